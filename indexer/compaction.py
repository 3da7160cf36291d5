"""How do many segments become one, without the removed pictures, and with an approximation that suits its size?

A job of minutes: it reads files that never change, writes new ones aside, and names them in one short transaction. No
picture becomes more or less visible by it. Readers move over when they refresh; until then they hold the former files,
which stay on the disk for as long as anybody has them open.
"""

import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.approximation import ApproximationFile, write_approximation
from indexer.building import build
from indexer.catalog import Catalog
from indexer.errors import IndexDamaged
from indexer.files import sha256_of
from indexer.open_segment import OpenSegment
from indexer.recipe import EXACT, read_recipe
from indexer.sealing import OF_A_JOB, name_segment
from indexer.segments import SEGMENTS_FOLDER, SealedFile, Segment, write_segment_of
from indexer.settings import SearchSettings
from indexer.snapshot import Snapshot
from indexer.vectors import Ids, Vectors

_ROWS_AT_ONCE = 65_536
_DUE_SHARE = 0.2  # of the pictures: in other segments than the largest, or removed from it
_DUE_SEGMENTS = 8  # each costs a search some 30 microseconds


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction came to.

    Attributes:
        segments: how many there were; 0 where all vectors were in the catalog.
        images: in the one that there is now.
        dropped: vectors of removed pictures that are gone.
        recipe: a FAISS factory string, or "exact".
        reason: why this one.
        ann_recall_at_10: the share of the true ten nearest that it finds, measured; 1 for "exact".
        memory_bytes: of its first stage.
        seconds: it took.
    """

    segments: int
    images: int
    dropped: int
    recipe: str
    reason: str
    ann_recall_at_10: float
    memory_bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return asdict(self)


def is_due(snapshot: Snapshot) -> bool:
    """Whether searches pay for many small segments, or for pictures that are no more."""
    segments = snapshot.segments
    if len(segments) < _DUE_SEGMENTS and not any(one.removed.size for one in segments):
        return False
    largest = max(segments, key=lambda one: one.images)
    total = sum(one.images for one in segments)
    return total - largest.images + largest.removed.size > _DUE_SHARE * max(total, 1)


def compact(
    catalog: Catalog, index_dir: Path, snapshot: Snapshot, settings: SearchSettings, *, is_first: bool = False
) -> Compaction | None:
    """Merge a generation's segments; the caller holds the job lock. None where there is nothing to do.

    Holds the vectors in memory once, as they are stored.

    Args:
        is_first: the caller has sealed the only segment for this, which is something done.

    Raises:
        RecipeError: the recipe does not suit the vectors, or finds too few; nothing has changed.
        IndexDamaged: a segment is not what was written; nothing has changed.
        IndexReadOnly, IndexBusy, DiskFull
    """
    start = time.perf_counter()
    sources = snapshot.segments
    images = sum(one.images for one in sources)
    said = settings.recipe if images else EXACT
    recipe = read_recipe(said, images, snapshot.space.dim, memory_bytes=settings.memory_bytes)
    is_one = len(sources) == 1 and not sources[0].removed.size
    if not sources or (is_one and not is_first and _is_as_asked(sources[0], recipe.factory, settings.recall)):
        return None
    made: list[str] = []
    try:
        sealed, segment = None, sources[0].segment
        if images and not is_one:
            sealed = write_segment_of(index_dir, _new_file(made), snapshot.space.dim, _merged(sources))
            segment = Segment(index_dir, 0, sealed)
        approximated = None
        if recipe.factory != EXACT:
            built = build(segment, recipe, settings.recall)
            file = _new_file(made)
            size_bytes, checksum = write_approximation(index_dir, file, built.index)
            approximated = ApproximationFile(
                file, size_bytes, checksum, recipe.factory, built.tuning, settings.recall, built.measured_recall
            )
        with catalog.write() as connection:
            outdated = _name(connection, snapshot, sealed, approximated, is_one=is_one)
    except BaseException:
        _unlink(index_dir, made)
        raise
    _unlink(index_dir, outdated)
    return Compaction(
        len(sources) - is_first,
        images,
        sum(one.removed.size for one in sources),
        recipe.factory,
        recipe.reason,
        1.0 if approximated is None else approximated.measured_recall,
        0 if approximated is None else approximated.size_bytes,
        time.perf_counter() - start,
    )


def _is_as_asked(one: OpenSegment, factory: str, recall: float) -> bool:
    """Whether a segment is searched by a recipe already, tuned to a recall."""
    if one.approximation is None:
        return factory == EXACT and one.approximation_file is None
    return (one.approximation.file.recipe, one.approximation.file.recall) == (factory, recall)


def _new_file(made: list[str]) -> str:
    made.append(f"{OF_A_JOB}{uuid.uuid4().hex}.faiss")
    return made[-1]


def _unlink(index_dir: Path, files: Sequence[str]) -> None:
    for file in files:
        (index_dir / SEGMENTS_FOLDER / file).unlink(missing_ok=True)


def _merged(sources: Sequence[OpenSegment]) -> Iterator[tuple[Ids, Vectors]]:
    """Ids, ascending, and vectors of all pictures that are not removed, some thousands at a time.

    Raises:
        IndexDamaged: a segment is not what was written; else its damage would go on as if it were right.
    """
    for one in sources:
        if sha256_of(one.segment.path) != one.segment.sealed.sha256:
            raise IndexDamaged(f"segment {one.segment.path} differs from its checksum; run `retrieve verify --repair`")
    kept = [np.setdiff1d(one.segment.ids, one.removed, assume_unique=True) for one in sources]
    ids = np.concatenate(kept)
    order = np.argsort(ids, kind="stable")
    source = np.repeat(np.arange(len(sources)), [len(part) for part in kept])
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        here = order[start : start + _ROWS_AT_ONCE]
        vectors = np.empty((len(here), sources[0].segment.dim), np.float32)
        for number in np.unique(source[here]):
            of_this = source[here] == number
            vectors[of_this] = sources[number].segment.vectors_of(ids[here[of_this]])[1]
        yield ids[here], vectors


def _name(
    connection: sqlite3.Connection,
    snapshot: Snapshot,
    sealed: SealedFile | None,
    approximated: ApproximationFile | None,
    *,
    is_one: bool,
) -> list[str]:
    """Put the new files in the place of the former ones; returns those that nothing names any more."""
    sources = [one.segment.segment_id for one in snapshot.segments]
    these = f"({', '.join(map(str, sources))})"
    outdated = _column(connection, f"SELECT file FROM approximations WHERE segment_id IN {these}")
    connection.execute(f"DELETE FROM approximations WHERE segment_id IN {these}")
    segment_id: int | None = sources[0]
    if not is_one:
        outdated += _column(connection, f"SELECT file FROM segments WHERE id IN {these}")
        segment_id = None if sealed is None else name_segment(connection, snapshot.space.id, sealed)
        _forget_removed(connection, snapshot)
        merged = f"id IN {these} OR merged_into IN {these}"
        if segment_id is None:
            connection.execute(f"DELETE FROM segments WHERE {merged}")
        else:
            connection.execute(f"UPDATE segments SET merged_into = ? WHERE {merged}", (segment_id,))
    if approximated is not None:
        file, size_bytes, checksum, recipe, tuning, *recalls = astuple(approximated)
        connection.execute(
            "INSERT INTO approximations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (segment_id, file, size_bytes, checksum, recipe, *tuning, *recalls),
        )
    return outdated


def _column(connection: sqlite3.Connection, sql: str) -> list[str]:
    return [row[0] for row in connection.execute(sql)]


def _forget_removed(connection: sqlite3.Connection, snapshot: Snapshot) -> None:
    """Drop the rows of vectors that are in no file any more."""
    removed = np.concatenate([one.removed for one in snapshot.segments])
    connection.executemany(
        "DELETE FROM embeddings WHERE picture_id = ? AND space_id = ?",
        [(picture_id, snapshot.space.id) for picture_id in removed.tolist()],
    )
