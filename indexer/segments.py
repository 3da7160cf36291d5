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
        k_here = min(k, len(self.ids))
        if k_here == 0:
            return Neighbors.empty(len(queries), k)
        if removed.size:
            scores, ids = self._index.search(queries, k_here, params=_leaving_out(removed))
        else:
            scores, ids = self._index.search(queries, k_here)
        scores[ids < 0] = -np.inf
        return Neighbors(ids, scores)

    def vectors(self) -> NDArray[np.float32]:
        """(N, D) float32, row for row as `ids`; a copy in memory."""
        rows: NDArray[np.float32] = self._index.index.reconstruct_n(0, len(self.ids))
        return rows


def _leaving_out(removed: Ids) -> Any:
    parameters = faiss.SearchParameters()
    parameters.sel = faiss.IDSelectorNot(faiss.IDSelectorBatch(removed))
    return parameters


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
    except RuntimeError as error:
        raise IndexDamaged(f"segment {path} cannot be read ({str(error).splitlines()[0]}); {remedy}") from error
    if index.ntotal != rows or not hasattr(index, "id_map"):
        raise IndexDamaged(f"segment {path} holds {index.ntotal} vectors, {rows} were written; {remedy}")
    return index
