"""The encoder on a CPU: OpenVINO, one picture at once or batches in flight; torch is not imported."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.encoder.artifact import Artifact
from retrieval.encoder.compiled import CompiledModel, Hint
from retrieval.encoder.rows import check_pixels, unit_rows

DEFAULT_BATCH_SIZE = 8  # fastest of 4, 8, 16 and 32 with two requests in flight, and the least memory of the fast ones
_TOGETHER = 4  # of one thread: as much a picture as 8, in half the time
T = TypeVar("T")


class OpenVinoEncoder:
    """Pixels to embeddings on the CPU; satisfies `Encoder`.

    Compilations are made when first needed: for one picture in the shortest time, and for one, for four and for whole
    batches at the highest rate. All methods may be called from several threads at once.

    Args:
        artifact: the portable model.
        threads: OpenVINO's.
        batch_size: pictures in a batch of a stream.
        precision: of inference.
    """

    def __init__(self, artifact: Artifact, *, threads: int, batch_size: int, precision: Literal["f32", "bf16"]) -> None:
        self.name = artifact.description.name
        self.fingerprint = artifact.description.fingerprint
        self.dim = artifact.description.dim
        self.preprocessing = artifact.description.preprocessing
        self.batch_size = batch_size
        self.precision = precision
        self._artifact = artifact
        self._threads = threads
        self._lock = threading.Lock()
        self._engines: dict[tuple[Hint, int], _Engine] = {}
        self._calls = 0  # of `encode`, that run
        self._is_closed = False

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed pictures.

        Args:
            pixels: (N, 3, P, P), any N.

        Returns:
            (N, D) unit rows.

        Raises:
            ValueError: another shape or type, or the encoder is closed.
        """
        check_pixels(pixels, self.preprocessing.input_px)
        rows = np.empty((len(pixels), self.dim), np.float32)
        with self._among_calls() as is_alone:
            # All threads at once on each picture; or a thread for each batch, which in all costs a fifth less.
            hint: Hint = "LATENCY" if is_alone and len(pixels) < _TOGETHER else "THROUGHPUT"
            # What is left over goes one by one: a padded batch costs as much as a full one.
            whole = 0 if hint == "LATENCY" else len(pixels) - len(pixels) % _TOGETHER
            for size, places in ((_TOGETHER, range(0, whole, _TOGETHER)), (1, range(whole, len(pixels)))):
                pieces = ((start, pixels[start : start + size]) for start in places)
                for start, embeddings in _run(self._engine(hint, size), pieces) if places else ():
                    rows[start : start + size] = embeddings
        return rows

    def encode_stream(self, batches: Iterable[tuple[T, NDArray[np.uint8]]]) -> Iterator[tuple[T, NDArray[np.float32]]]:
        """Embed batches while the next ones are being made.

        Args:
            batches: a tag of the caller's and (N, 3, P, P), N at most `batch_size`, N = 0 allowed. The array may be
                reused as soon as the next batch is asked for.

        Yields:
            The tags with (N, D) unit rows, in the order of the batches, several batches behind them.

        Raises:
            ValueError: a batch of another shape or type, or of too many pictures.
        """
        return _run(self._engine("THROUGHPUT", self.batch_size), self._checked(batches))

    def close(self) -> None:
        """Free the compiled models; the encoder cannot be used any more."""
        with self._lock:
            self._is_closed = True
            self._engines.clear()

    @contextmanager
    def _among_calls(self) -> Iterator[bool]:
        """Whether no other call of `encode` runs as this one begins."""
        with self._lock:
            self._calls += 1
            is_alone = self._calls == 1
        try:
            yield is_alone
        finally:
            with self._lock:
                self._calls -= 1

    def _checked(self, batches: Iterable[tuple[T, NDArray[np.uint8]]]) -> Iterator[tuple[T, NDArray[np.uint8]]]:
        for tag, pixels in batches:
            check_pixels(pixels, self.preprocessing.input_px, at_most=self.batch_size)
            yield tag, pixels

    def _engine(self, hint: Hint, batch_size: int) -> "_Engine":
        with self._lock:
            if self._is_closed:
                raise ValueError("the encoder is closed")
            if (hint, batch_size) not in self._engines:
                model = CompiledModel(
                    self._artifact,
                    batch_size=batch_size,
                    hint=hint,
                    precision=self.precision,
                    threads=self._threads,
                )
                self._engines[hint, batch_size] = _Engine(model, self.dim)
            return self._engines[hint, batch_size]


class _Engine:
    """A compiled model and its requests, which are made as they are needed and used again."""

    def __init__(self, model: CompiledModel, dim: int) -> None:
        self.batch_size = model.batch_size
        # So many requests run at once; `_run` keeps one more, so that the next batch waits inside OpenVINO.
        self.depth = model.requests_in_flight
        self._model = model
        self._dim = dim
        self._free: deque[Any] = deque()  # its append and pop are atomic

    def start(self, pixels: NDArray[np.uint8]) -> Any:
        """Copy the pixels and set a request going; None if there are no pixels."""
        if not len(pixels):
            return None
        try:
            request = self._free.pop()
        except IndexError:
            request = self._model.create_request()
        # Rows beyond N keep what an earlier batch left there; their results are never read.
        request.get_input_tensor(0).data[: len(pixels)] = pixels
        request.start_async()
        return request

    def finish(self, request: Any, count: int) -> NDArray[np.float32]:
        """Wait for a request and read its first `count` rows."""
        if request is None:
            return np.empty((0, self._dim), np.float32)
        request.wait()
        rows = unit_rows(request.get_output_tensor(0).data[:count])
        self._free.append(request)
        return rows


def _run(engine: _Engine, batches: Iterable[tuple[T, NDArray[np.uint8]]]) -> Iterator[tuple[T, NDArray[np.float32]]]:
    in_flight: deque[tuple[T, int, Any]] = deque()
    try:
        for tag, pixels in batches:
            in_flight.append((tag, len(pixels), engine.start(pixels)))
            if len(in_flight) > engine.depth:
                tag, count, request = in_flight.popleft()
                yield tag, engine.finish(request, count)
        while in_flight:
            tag, count, request = in_flight.popleft()
            yield tag, engine.finish(request, count)
    finally:
        for _, _, request in in_flight:  # the caller stopped early: a running request must not be given away
            engine.finish(request, 0)
