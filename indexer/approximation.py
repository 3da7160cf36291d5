"""A smaller index in front of a segment's vectors: which of them to look at. Losing it loses speed, never a vector.

Its labels are rows of the segment. What it names is scored again by the segment's own vectors: scores are exact, only
who is missed is approximate.
"""

import sqlite3
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from indexer.errors import IndexDamaged
from indexer.files import crc32_of, write_whole
from indexer.recipe import innermost
from indexer.segments import SEGMENTS_FOLDER, Segment, write_index
from indexer.vectors import NO_ID, Neighbors, Vectors

RECALL_K = 10  # neighbours that it is tuned to find


class Tuning(NamedTuple):
    """How thoroughly it is searched.

    Attributes:
        effort: lists that are looked into, or the breadth of a walk through a graph; of no meaning for codes alone.
        pool: for each hit that is wanted, how many are scored again.
    """

    effort: int
    pool: int


@dataclass(frozen=True, slots=True)
class ApproximationFile:
    """An approximation as the catalog records it.

    Attributes:
        checksum: the crc32 of the file, checked at every opening: FAISS takes what it reads for true, and a wrong label
            would reach outside of the segment.
        recall: of the true `RECALL_K` nearest, the share that it was tuned to find, 0 to 1.
        measured_recall: the share that it finds.
    """

    file: str
    size_bytes: int
    checksum: int
    recipe: str
    tuning: Tuning
    recall: float
    measured_recall: float


class Approximation:
    """The first stage of one segment's searches.

    Args:
        segment: whose vectors score again what it finds.
        index: a FAISS index of the segment's rows.
        file: what the catalog says of it, or will.
    """

    def __init__(self, segment: Segment, index: Any, file: ApproximationFile) -> None:
        self.file = file
        inner = innermost(index)
        self.lists = int(inner.nlist) if isinstance(inner, faiss.IndexIVF) else None
        self.is_graph = isinstance(inner, faiss.IndexHNSW)
        self.index = index
        self._segment = segment  # whose vectors the next line's index reads
        self._refined = faiss.IndexRefine(index, segment.index)

    def search(self, queries: Vectors, k: int, tuning: Tuning, rows: Any = None) -> Neighbors:
        """(Q, k) rows of the segment in place of ids; empty slots where it finds fewer.

        Args:
            rows: a selector of the rows that may be found; None: all.
        """
        searched = max(k, RECALL_K)
        is_usual = rows is None and searched == RECALL_K and tuning == self.file.tuning
        parameters = self._usual_parameters if is_usual else self._parameters(tuning, searched, rows)
        scores, found = self._refined.search(queries, searched, params=parameters)
        scores[found == NO_ID] = -np.inf
        return Neighbors(found[:, :k], scores[:, :k])

    @cached_property
    def _usual_parameters(self) -> Any:
        """Of most searches: making them anew would cost each of these a tenth."""
        return self._parameters(self.file.tuning, RECALL_K, None)

    def _parameters(self, tuning: Tuning, searched: int, rows: Any) -> Any:
        made: Any = faiss.IndexRefineSearchParameters  # its stub does not know that it takes arguments
        inner = search_parameters(self.index, tuning, searched, rows)
        return made(k_factor=tuning.pool, base_index_params=inner)


def write_approximation(index_dir: Path, file: str, index: Any) -> tuple[int, int]:
    """Write a trained and filled index; durable on return. Gives its size in bytes and its crc32.

    Raises:
        DiskFull, IndexReadOnly
    """
    path = index_dir / SEGMENTS_FOLDER / file
    with write_whole(path) as sink:
        write_index(index, sink)
        sink.finish()
    return sink.size_bytes, crc32_of(path)


def read_approximation(connection: sqlite3.Connection, segment_id: int) -> ApproximationFile:
    """What the catalog says of a segment's approximation, which there is."""
    file, size_bytes, checksum, recipe, effort, pool, *recalls = connection.execute(
        "SELECT file, size_bytes, checksum, recipe, effort, pool, recall, measured_recall FROM approximations"
        " WHERE segment_id = ?",
        (segment_id,),
    ).fetchone()
    return ApproximationFile(file, size_bytes, checksum, recipe, Tuning(effort, pool), *recalls)


def open_approximation(segment: Segment, file: ApproximationFile) -> Approximation:
    """Map an approximation's file.

    Raises:
        IndexDamaged: it is missing, or not what was written. The segment is whole without it.
    """
    path = segment.path.with_name(file.file)
    check_approximation(path, file)
    return Approximation(segment, faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), file)


def read_into_memory(segment: Segment, file: ApproximationFile) -> Any:
    """The FAISS index of a segment's approximation, to be changed by the caller alone.

    Raises:
        IndexDamaged: it is missing, or not what was written.
    """
    path = segment.path.with_name(file.file)
    check_approximation(path, file)
    return faiss.read_index(str(path))


def check_approximation(path: Path, file: ApproximationFile) -> None:
    """Read an approximation's file as a whole.

    Raises:
        IndexDamaged: it is missing, or not what was written.
    """
    remedy = "searches compare every vector until `retrieve compact` makes it anew"
    try:
        is_whole = path.stat().st_size == file.size_bytes and crc32_of(path) == file.checksum
    except FileNotFoundError:
        raise IndexDamaged(f"{path} is missing; {remedy}") from None
    if not is_whole:
        raise IndexDamaged(f"{path} differs from its checksum; {remedy}")


def search_parameters(index: Any, tuning: Tuning, k: int, rows: Any) -> Any:
    """FAISS's search parameters for an index of whichever kind."""
    made: Any = faiss  # the stubs of its parameters do not know that they take arguments
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return made.SearchParametersPreTransform(index_params=search_parameters(index.index, tuning, k, rows))
    if isinstance(index, faiss.IndexIVF):
        return made.SearchParametersIVF(nprobe=tuning.effort, sel=rows)
    if isinstance(index, faiss.IndexHNSW):
        return made.SearchParametersHNSW(efSearch=max(tuning.effort, k * tuning.pool), sel=rows)
    return made.SearchParameters(sel=rows)
