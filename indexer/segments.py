"""Sealed segments: immutable FAISS files of vectors labelled with picture ids, mapped into memory, not loaded."""

import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.errors import IndexDamaged
from indexer.exact import Float16Vectors, nearest, nearest_of
from indexer.files import HashingFile, write_whole
from indexer.vectors import Ids, Mask, Neighbors, Vectors, merge_topk, rows_of

SEGMENTS_FOLDER = "segments"
EXACT_RECIPE = "IDMap,SQfp16"
_HEAD_BYTES = 4096  # FAISS's header, some 120 bytes, lies within
_ID_BYTES = 8
_ROWS_AT_ONCE = 2048  # a megabyte or two, which the processor keeps at hand


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
    """One sealed segment, open for search.

    Attributes:
        ids: (N,) ascending, of the pictures.
        stored: (N, D) the vectors, as the file has them.
        index: FAISS's, of the vectors alone, by row.
    """

    def __init__(self, index_dir: Path, segment_id: int, sealed: SealedFile) -> None:
        """Map the segment's file.

        Raises:
            IndexDamaged: it is missing or cut short, or differs from what was written elsewhere than in its vectors.
        """
        self.segment_id = segment_id
        self.sealed = sealed
        self.path = index_dir / SEGMENTS_FOLDER / sealed.file
        self._index = _map(self.path, sealed)
        inner: Any = faiss.downcast_index(self._index.index)
        self.index = inner
        rows = self._index.ntotal
        self.ids: Ids = np.asarray(_View(self._index, self._index.id_map, "<i8", rows))
        self.stored: Float16Vectors = np.asarray(_View(self._index, inner.codes, "<f2", rows, self._index.d))

    @property
    def dim(self) -> int:
        """D."""
        return int(self._index.d)

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

        Of equally near ones those with the lowest ids.
        """
        parameters: Any = faiss.SearchParameters  # its stub does not know that it takes arguments
        # as an argument: some versions of FAISS lose a selector that is assigned to the attribute
        return nearest(self._index, queries, k, None if selector is None else parameters(sel=selector))

    def search_rows(self, queries: Vectors, k: int, rows: NDArray[np.integer[Any]]) -> Neighbors:
        """The same of the vectors of (N,) ascending rows alone, one at least, which are copied for it."""
        parts = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            found = nearest_of(self.stored.take(some, axis=0), queries, k)
            parts.append(Neighbors(self.ids[some[found.ids]], found.scores))
        return merge_topk(parts, k)


class _View:
    """Memory of an index, as numpy asks for it, without a copy; who looks at it keeps the index."""

    def __init__(self, index: Any, vector: Any, typestr: str, *shape: int) -> None:
        self._index = index
        self.__array_interface__ = {
            "version": 3,
            "typestr": typestr,
            "shape": shape,
            "data": (int(vector.data()), True),
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
