"""What may a GPU do for a search? It names candidates, fast; the vectors on the disk give them their exact scores.

FAISS on a GPU is not thread-safe, not even for reads, so one thread calls it and asks at once what has come together.
It passes over no rows and gives no more than 2,048: who searches under conditions asks it for more than is needed, and
leaves to the CPU what that does not answer.
"""

import logging
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.approximation import Approximation, Tuning
from indexer.errors import GpuUnavailable
from indexer.rescoring import score_again
from indexer.segments import Segment
from indexer.vectors import NO_ID, Mask, Neighbors, Vectors

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

DEEPEST = 2048  # neighbours of a query, faiss/gpu/GpuIndex.cu; lists that are looked into likewise
LEAST_VALUES = 12_800_000  # of a segment; smaller ones are searched in about a millisecond by any CPU
_SPARE = 16  # candidates more than needed: scores of float16 queries are wrong by up to 1e-3
_SPARE_SHARE = 1.25
_ROWS_AT_ONCE = 65_536  # between two of which searches get their turn
_TEMPORARY_BYTES = 256 * 2**20  # FAISS takes 1.5 GB, which the encoder may want

PassesRows = Callable[[NDArray[np.int64]], Mask]
"""Rows of a segment, of any shape, to whether each may be found."""


class Device(Protocol):
    """Where indexes of candidates are; called by one thread alone."""

    def flats(self, dim: int) -> list[Any]:
        """An empty FAISS index of inner products for each GPU."""

    def copy_of(self, index: Any, probed_lists: int) -> Any:
        """A FAISS index with lists, copied there, to look into so many lists for each query.

        Raises:
            RuntimeError: it is of a kind that a GPU does not search, or does not fit.
        """


class Cuda:
    """NVIDIA GPUs, which share what they hold.

    Args:
        numbers: of the GPUs, as CUDA counts them.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = list(numbers)
        self._resources = [faiss.StandardGpuResources() for _ in self._numbers]
        for one in self._resources:
            one.setTempMemory(_TEMPORARY_BYTES)

    def flats(self, dim: int) -> list[Any]:
        """See `Device`."""
        made: Any = faiss  # the stubs know no GPU
        indexes = []
        for number, resources in zip(self._numbers, self._resources, strict=True):
            config = made.GpuIndexFlatConfig()
            config.device, config.useFloat16 = number, True
            indexes.append(made.GpuIndexFlatIP(resources, dim, config))
        return indexes

    def copy_of(self, index: Any, probed_lists: int) -> Any:
        """See `Device`."""
        made: Any = faiss
        options = made.GpuMultipleClonerOptions()
        options.useFloat16, options.shard = True, True
        copied = made.index_cpu_to_gpu_multiple_py(self._resources, index, options, self._numbers)
        made.GpuParameterSpace().set_index_parameter(copied, "nprobe", probed_lists)
        return copied


def open_gpus(said: str) -> "Gpus | None":
    """The GPUs that somebody has named: `cpu` for none, `cuda` for all, `cuda:1`, or `auto` for all that there are.

    Raises:
        GpuUnavailable: a GPU is asked for and not there, or the name is none of these.
    """
    there = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    kind, _, number = said.partition(":")
    if said not in ("auto", "cpu", "cuda") and not (kind == "cuda" and number.isdecimal()):
        raise GpuUnavailable(f"search device {said!r} is unknown; write auto, cpu, cuda or cuda:0, cuda:1, ...")
    if said == "cpu" or (said == "auto" and not there):
        return None
    if not there or (number and int(number) >= there):
        seen = f"FAISS sees {there} NVIDIA GPUs" if there else "FAISS sees no NVIDIA GPU on this machine"
        raise GpuUnavailable(f"search device {said} is not available: {seen}; use auto or cpu")
    return Gpus(Cuda([int(number)] if number else range(there)))


class Gpus:
    """Segments that are searched on GPUs, by the one thread that may.

    Args:
        device: where they are.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._thread = ThreadPoolExecutor(1, "faiss-gpu")
        self._lock = threading.Lock()
        self._waiting: list[_Asked] = []
        self._forgotten: deque[_Held] = deque()
        self._is_closed = False

    def place(self, segment: Segment, approximation: Approximation | None) -> "Placed | None":
        """Begin to bring a segment to the GPUs, or None where that is not worth it; returns at once.

        Args:
            approximation: what is brought there instead if the vectors are too many for it.
        """
        if len(segment.ids) * segment.dim < LEAST_VALUES:
            return None
        placed = Placed(self, segment)
        self._thread.submit(self._begin, weakref.ref(placed), approximation)
        return placed

    def search(self, held: "_Held", queries: Vectors, width: int) -> NDArray[np.int64]:
        """(Q, width) rows that the index which is held takes for the nearest; -1 where it has fewer."""
        asked = _Asked(held, queries, width, Future())
        with self._lock:
            self._waiting.append(asked)
        self._thread.submit(self._answer)
        return asked.rows.result()

    def forget(self, held: "_Held") -> None:
        """Free the memory of an index, at the thread's next turn.

        Takes no lock: garbage is collected anywhere, also where a lock of the thread's is held.
        """
        if self._is_closed:
            held.index = None
        else:
            self._forgotten.append(held)

    def close(self) -> None:
        """End the thread; searches that wait for it are left to the CPU."""
        self._thread.shutdown(cancel_futures=True)
        self._is_closed = True
        self._free()
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for asked in waiting:
            asked.rows.set_exception(RuntimeError("closed"))

    def _free(self) -> None:
        while self._forgotten:
            self._forgotten.pop().index = None

    def _answer(self) -> None:
        """Ask each index once for all who wait; whoever comes meanwhile is of the next round."""
        self._free()
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for held in {id(asked.held): asked.held for asked in waiting}.values():
            group = [asked for asked in waiting if asked.held is held]
            try:
                width = max(asked.width for asked in group)
                _, rows = held.index.search(np.concatenate([asked.queries for asked in group]), width)
            except Exception as error:  # theirs to handle
                for asked in group:
                    asked.rows.set_exception(error)
                continue
            start = 0
            for asked in group:
                stop = start + len(asked.queries)
                asked.rows.set_result(rows[start:stop, : asked.width])
                start = stop

    def _begin(self, placed: "weakref.ref[Placed]", approximation: Approximation | None) -> None:
        self._free()
        one = placed()
        if one is None:
            return
        try:
            flats = self._device.flats(one.segment.dim)
        except Exception as error:  # nobody waits for it here
            self._instead(one, approximation, error)
        else:
            self._go_on(placed, _Filling(flats, -(-len(one.segment.ids) // len(flats))), approximation)

    def _go_on(self, placed: "weakref.ref[Placed]", filling: "_Filling", approximation: Approximation | None) -> None:
        """Bring some more rows, and leave the rest to a later turn."""
        self._free()
        one = placed()
        if one is None:
            return  # the segment is no longer searched
        try:
            if filling.add_from(one.segment):
                self._thread.submit(self._go_on, placed, filling, approximation)
            else:
                one.become(filling.whole(one.segment.dim), None)
        except Exception as error:  # nobody waits for it here
            filling.flats.clear()
            self._instead(one, approximation, error)

    def _instead(self, placed: "Placed", approximation: Approximation | None, error: Exception) -> None:
        """Bring the approximation, the vectors being too many."""
        what = f"segment {placed.segment.path.name} of {len(placed.segment.ids)} vectors"
        try:
            if approximation is None or approximation.lists is None:
                raise error
            tuning = approximation.file.tuning
            placed.become(self._device.copy_of(approximation.index, min(tuning.effort, DEEPEST)), tuning)
            _log.info("%s does not fit on the GPU; its approximation does", what)
        except Exception as last:
            _log.warning("%s is searched on the CPU, the GPU does not take it: %s", what, _line_of(last))


class Placed:
    """A segment that a GPU searches, or soon will.

    Args:
        gpus: where.
        segment: whose vectors score again what is found.
    """

    def __init__(self, gpus: Gpus, segment: Segment) -> None:
        self.segment = segment
        self.is_ready = threading.Event()
        self._tuning: Tuning | None = None  # of the approximation that stands for the vectors
        self._gpus = gpus
        self._held = _Held()
        self._has_failed = False
        weakref.finalize(self, gpus.forget, self._held)

    def become(self, index: Any, tuning: Tuning | None) -> None:
        """Search this index from now on.

        Args:
            tuning: of an approximation; None: of all vectors.
        """
        self._held.index, self._tuning = index, tuning
        self.is_ready.set()

    def search(self, queries: Vectors, k: int, share: float, passes: PassesRows | None) -> Neighbors | None:
        """(Q, k) rows of the segment in place of ids, with exact scores; empty slots where it found fewer.

        Args:
            share: of the rows, that may be found; an estimate.
            passes: which these are; None: all.

        Returns:
            None where this is nothing for a GPU: it has to go too deep, or is not ready.
        """
        width = self._width(k, share)
        if width is None or not self.is_ready.is_set() or self._has_failed:
            return None
        try:
            rows = self._gpus.search(self._held, queries, width)
        except (RuntimeError, MemoryError) as error:  # FAISS's two kinds
            self._has_failed = True
            _log.warning("the GPU failed, searches go on without it: %s", _line_of(error))
            return None
        if passes is not None:
            rows = np.where((rows != NO_ID) & passes(rows), rows, NO_ID)
        kept = width if self._tuning else min(width, _with_spare(k))
        return score_again(self.segment.stored.__getitem__, queries, _first(rows, kept), k)

    def _width(self, k: int, share: float) -> int | None:
        """How many candidates to ask for, or None where that is too many."""
        count = len(self.segment.ids)
        if self._tuning is None:
            width = min(count, _with_spare(math.ceil(k / max(share, 1 / count))))
        else:  # tuned to find enough of all vectors, not of a few
            width = math.ceil(k * self._tuning.pool / share) if share > 0.5 else count
        return width if width <= DEEPEST else None


class _Held:
    """The index of one segment; only the thread of the GPUs looks inside."""

    index: Any = None


class _Asked(NamedTuple):
    """One call of `Gpus.search` that waits for its turn."""

    held: _Held
    queries: Vectors
    width: int
    rows: "Future[NDArray[np.int64]]"


class _Filling:
    """Indexes that are being filled, each with its part of a segment's rows, in order.

    Args:
        flats: one for each GPU.
        rows_each: of a part.
    """

    def __init__(self, flats: list[Any], rows_each: int) -> None:
        self.flats, self._rows_each, self._done = flats, rows_each, 0

    def add_from(self, segment: Segment) -> bool:
        """Add the next rows; returns whether any are left."""
        part = self._done // self._rows_each
        stop = min(self._done + _ROWS_AT_ONCE, (part + 1) * self._rows_each, len(segment.ids))
        self.flats[part].add(segment.read(self._done, stop))
        self._done = stop
        return stop < len(segment.ids)

    def whole(self, dim: int) -> Any:
        """The parts as one index."""
        if len(self.flats) == 1:
            return self.flats[0]
        made: Any = faiss
        shards = made.IndexShards(dim, True, True)  # in threads of their own; rows count on from part to part
        for flat in self.flats:
            shards.add_shard(flat)
        return shards


def _with_spare(k: int) -> int:
    return math.ceil(k * _SPARE_SHARE) + _SPARE


def _first(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(Q, count) of each query's candidates, those that are there before those that are not."""
    if count == rows.shape[1]:
        return rows
    order = np.argsort(rows == NO_ID, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(rows, order, axis=1)


def _line_of(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__
