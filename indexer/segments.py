"""Sealed segments: immutable FAISS files of vectors labelled with picture ids, mapped into memory, not loaded."""

import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.errors import IndexDamaged
from indexer.files import HashingFile, write_whole
from indexer.vectors import NO_ID, Ids, Mask, Neighbors, Vectors, merge_topk, rows_of

SEGMENTS_FOLDER = "segments"
EXACT_RECIPE = "IDMap,SQfp16"
_HEAD_BYTES = 4096  # FAISS's header, some 120 bytes, lies within
_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A segment file as the catalog records it.

    `frame_checksum` is the crc32 of all that surrounds the vectors, and of the first few of them. It is quick to check
    at every opening, and a wrong length there would make FAISS ask for any amount of memory.
    """

    file: str
    rows: int
    size_bytes: int
    sha256: str
    frame_checksum: int


def write_segment(index_dir: Path, file: str, ids: Ids, vectors: Vectors) -> SealedFile:
    """Write (N, D) unit `vectors` under (N,) ascending `ids` as an exact float16 segment; durable on return.

    Raises:
        DiskFull, IndexReadOnly
    """
    return write_segment_of(index_dir, file, vectors.shape[1], [(ids, vectors)])


def write_segment_of(index_dir: Path, file: str, dim: int, blocks: Iterable[tuple[Ids, Vectors]]) -> SealedFile:
    """The same of vectors that come in blocks, ids ascending throughout; holds all of them in float16.

    Raises:
        DiskFull, IndexReadOnly
    """
    index = faiss.index_factory(dim, EXACT_RECIPE, faiss.METRIC_INNER_PRODUCT)
    for ids, vectors in blocks:
        index.add_with_ids(vectors, ids)
    path = index_dir / SEGMENTS_FOLDER / file
    with write_whole(path) as sink:
        write_index(index, sink)
        sha256 = sink.finish()
    return SealedFile(file, index.ntotal, sink.size_bytes, sha256, _frame_checksum(path, index.ntotal))


def write_index(index: Any, sink: HashingFile) -> None:
    """Write a FAISS index as it is read again, without a copy of it in memory."""
    failed: list[BaseException] = []

    def write(block: bytes) -> int:
        if not failed:
            try:
                sink.write(block)
            except BaseException as error:  # it may not pass through C++
                failed.append(error)
        return 0

    writer: Any = faiss.PyCallbackIOWriter(write)  # type: ignore[attr-defined]
    faiss.write_index(index, writer)
    if failed:
        raise failed[0]


class Segment:
    """One sealed segment, open for search."""

    def __init__(self, index_dir: Path, segment_id: int, sealed: SealedFile) -> None:
        """Map the segment's file.

        Raises:
            IndexDamaged: it is missing or cut short, or differs from what was written elsewhere than in its vectors.
        """
        self.segment_id = segment_id
        self.sealed = sealed
        self.path = index_dir / SEGMENTS_FOLDER / sealed.file
        self._index = _map(self.path, sealed)
        self.ids: Ids = faiss.vector_to_array(self._index.id_map)
        self.index: Any = self._index.index  # of the vectors alone, by row

    @property
    def dim(self) -> int:
        """D."""
        return int(self._index.d)

    @cached_property
    def stored(self) -> NDArray[np.float16]:
        """(N, D) the vectors, as the file has them."""
        return np.asarray(_Stored(self._index, len(self.ids)))

    def read(self, start: int, stop: int) -> Vectors:
        """The vectors of the rows from `start` to `stop`, whose ids are `ids[start:stop]`."""
        vectors: Vectors = self.index.reconstruct_n(start, stop - start)
        return vectors

    def rows(self, rows: NDArray[np.integer[Any]]) -> Vectors:
        """(N, D) the vectors of N rows."""
        vectors: Vectors = self.index.reconstruct_batch(rows)
        return vectors

    def vectors_of(self, ids: Ids) -> tuple[Mask, Vectors]:
        """(N,) which of N ids are here, and the (M, D) vectors of those."""
        is_here, rows = rows_of(self.ids, ids)
        return is_here, self.rows(rows)

    def search(self, queries: Vectors, k: int, selector: Any = None) -> Neighbors:
        """The k nearest vectors of each query, of those that a selector lets through; (Q, k) at most.

        Of equally near ones those with the lowest ids, so that whoever asks for more finds these first.
        """
        k = min(k, len(self.ids))
        parameters: Any = faiss.SearchParameters  # its stub does not know that it takes arguments
        # as an argument: some versions of FAISS lose a selector that is assigned to the attribute
        chosen = None if selector is None else parameters(sel=selector)
        more = self._found(queries, k + 1, chosen)
        found = Neighbors(more.ids[:, :k], more.scores[:, :k])
        if more.ids.shape[1] > k:
            is_cut = (more.scores[:, k] == found.scores[:, -1]) & (more.ids[:, k] != NO_ID)  # between equal ones
            if is_cut.any():
                best = self._with_equals(queries[is_cut], k, 2 * k, chosen)
                found.ids[is_cut], found.scores[is_cut] = best.ids, best.scores
        return found

    def _with_equals(self, queries: Vectors, k: int, width: int, parameters: Any) -> Neighbors:
        """See `search`. FAISS keeps any of equal ones: it is asked for more until it has left out none."""
        more = self._found(queries, width, parameters)
        found = merge_topk([more], k)
        is_cut = more.scores[:, -1] == found.scores[:, -1]
        if width < len(self.ids) and is_cut.any():
            best = self._with_equals(queries[is_cut], k, 2 * width, parameters)
            found.ids[is_cut], found.scores[is_cut] = best.ids, best.scores
        return found

    def _found(self, queries: Vectors, width: int, parameters: Any) -> Neighbors:
        """What FAISS finds; (Q, width) at most."""
        scores, ids = self._index.search(queries, min(width, len(self.ids)), params=parameters)
        scores[ids == NO_ID] = -np.inf  # FAISS fills up with the lowest float
        return Neighbors(ids, scores)


class _Stored:
    """The codes of a mapped index, as numpy asks for them; who looks at them keeps the index."""

    def __init__(self, index: Any, rows: int) -> None:
        self._index = index
        inner: Any = faiss.downcast_index(index.index)
        address = int(inner.codes.data())
        self.__array_interface__ = {
            "version": 3,
            "typestr": "<f2",
            "shape": (rows, index.d),
            "data": (address, True),
        }


def use_threads(count: int) -> None:
    """How many threads the searches of the calling thread may use; OpenMP keeps that for each thread by itself."""
    faiss.omp_set_num_threads(count)


@contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Let FAISS use so many threads for what the calling thread asks of it, until this ends."""
    before = faiss.omp_get_max_threads()
    use_threads(count)
    try:
        yield
    finally:
        use_threads(before)


def read_raw_rows(index_dir: Path, file: str, dim: int) -> list[bytes]:
    """The float16 bytes of each vector of a damaged exact segment, in the order of ids, as far as the file goes.

    Rests on where such a file keeps them: in one piece behind a header of fixed length. FAISS itself would refuse the
    whole file for one wrong byte of its header.
    """
    empty = faiss.serialize_index(faiss.index_factory(dim, EXACT_RECIPE, faiss.METRIC_INNER_PRODUCT))
    start = len(empty) - _ID_BYTES  # behind the vectors, of which it has none, come the number of ids and the ids
    path = index_dir / SEGMENTS_FOLDER / file
    content = path.read_bytes() if path.is_file() else b""
    return [content[at : at + 2 * dim] for at in range(start, len(content), 2 * dim)]


def all_but(removed: Ids) -> Any:
    """A selector of all ids but some."""
    return faiss.IDSelectorNot(faiss.IDSelectorBatch(removed))


def only(allowed: Mask) -> Any:
    """A selector of the ids at which a mask is true."""
    selector: Any = faiss.IDSelectorBitmap  # its stub knows only its C++ arguments
    return selector(np.packbits(allowed, bitorder="little"))


def _map(path: Path, sealed: SealedFile) -> Any:
    remedy = "run `retrieve verify --repair`, or restore the index from a `retrieve backup`"
    try:
        actual_bytes = path.stat().st_size
        frame_checksum = _frame_checksum(path, sealed.rows) if actual_bytes == sealed.size_bytes else None
    except FileNotFoundError:
        raise IndexDamaged(f"segment {path} is missing; {remedy}") from None
    if actual_bytes != sealed.size_bytes:
        raise IndexDamaged(f"segment {path} has {actual_bytes} bytes, {sealed.size_bytes} were written; {remedy}")
    if frame_checksum != sealed.frame_checksum:
        raise IndexDamaged(f"segment {path} differs from its checksum; {remedy}")
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise IndexDamaged(f"segment {path} cannot be read ({str(error).splitlines()[0]}); {remedy}") from error


def _frame_checksum(path: Path, rows: int) -> int:
    """The crc32 of a segment's first bytes and of its last: the number of its ids, and the ids."""
    with path.open("rb") as file:
        head = zlib.crc32(file.read(_HEAD_BYTES))
        file.seek(-min(path.stat().st_size, _ID_BYTES * (rows + 1)), os.SEEK_END)
        return zlib.crc32(file.read(), head)
