"""Sealed segments: immutable FAISS files of vectors labelled with picture ids, mapped into memory, not loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.errors import IndexDamaged
from indexer.files import write_whole
from indexer.vectors import Ids, Neighbors, Vectors

SEGMENTS_FOLDER = "segments"
EXACT_RECIPE = "IDMap,SQfp16"


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A segment file as the catalog records it."""

    file: str
    rows: int
    size_bytes: int
    sha256: str


def write_segment(index_dir: Path, file: str, ids: Ids, vectors: Vectors) -> SealedFile:
    """Write (N, D) unit `vectors` under (N,) ascending `ids` as an exact float16 segment; durable on return.

    Raises:
        DiskFull, IndexReadOnly
    """
    index = faiss.index_factory(vectors.shape[1], EXACT_RECIPE, faiss.METRIC_INNER_PRODUCT)
    index.add_with_ids(vectors, ids)
    payload: NDArray[np.uint8] = faiss.serialize_index(index)
    with write_whole(index_dir / SEGMENTS_FOLDER / file) as sink:
        sink.write(payload.data)
        sha256 = sink.finish()
    return SealedFile(file, len(ids), sink.size_bytes, sha256)


class Segment:
    """One sealed segment, open for search."""

    def __init__(self, index_dir: Path, segment_id: int, file: str, rows: int, size_bytes: int) -> None:
        """Map the segment's file.

        Raises:
            IndexDamaged: it is missing, cut short or no FAISS index of that many rows.
        """
        self.segment_id = segment_id
        self.path = index_dir / SEGMENTS_FOLDER / file
        self._index = _map(self.path, rows, size_bytes)
        self.ids: Ids = faiss.vector_to_array(self._index.id_map)

    def search(self, queries: Vectors, k: int, removed: Ids) -> Neighbors:
        """The k nearest vectors of each query whose ids are not in `removed` (sorted)."""
        k_here = min(k, len(self.ids) - removed.size)
        if k_here == 0:
            return Neighbors.empty(len(queries), k)
        if removed.size:
            scores, ids = self._index.search(queries, k_here, params=_leaving_out(removed))
        else:
            scores, ids = self._index.search(queries, k_here)
        return Neighbors(ids, scores)


def read_raw_rows(index_dir: Path, file: str, dim: int) -> list[bytes]:
    """The float16 bytes of each vector of a damaged exact segment, in the order of ids, as far as the file goes.

    Rests on where such a file keeps them: in one piece behind a header of fixed length. FAISS itself would refuse the
    whole file for one wrong byte of its header.
    """
    empty = faiss.serialize_index(faiss.index_factory(dim, EXACT_RECIPE, faiss.METRIC_INNER_PRODUCT))
    start = len(empty) - 8  # behind the vectors, of which it has none, come the number of ids and the ids
    path = index_dir / SEGMENTS_FOLDER / file
    content = path.read_bytes() if path.is_file() else b""
    return [content[at : at + 2 * dim] for at in range(start, len(content), 2 * dim)]


def _leaving_out(removed: Ids) -> Any:
    parameters: Any = faiss.SearchParameters  # its stub does not know that it takes arguments
    # as an argument: some versions of FAISS lose a selector that is assigned to the attribute
    return parameters(sel=faiss.IDSelectorNot(faiss.IDSelectorBatch(removed)))


def _map(path: Path, rows: int, size_bytes: int) -> Any:
    remedy = "run `retrieve verify --repair`, or restore the index from a `retrieve backup`"
    try:
        actual_bytes = path.stat().st_size
    except FileNotFoundError:
        raise IndexDamaged(f"segment {path} is missing; {remedy}") from None
    if actual_bytes != size_bytes:
        raise IndexDamaged(f"segment {path} has {actual_bytes} bytes, {size_bytes} were written; {remedy}")
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, MemoryError) as error:  # a wrong length in the header asks for any amount of memory
        raise IndexDamaged(f"segment {path} cannot be read ({repr(error).splitlines()[0]}); {remedy}") from error
    if not _is_exact(index, rows):
        raise IndexDamaged(f"segment {path} is not the file of {rows} vectors that was written; {remedy}")
    return index


def _is_exact(index: Any, rows: int) -> bool:
    """Whether the values in the file's header that FAISS does not check are those of an exact segment."""
    return hasattr(index, "id_map") and all(
        (part.ntotal, part.d, part.metric_type, part.is_trained) == (rows, index.d, faiss.METRIC_INNER_PRODUCT, True)
        for part in (index, index.index)
    )
