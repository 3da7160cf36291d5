"""What a reader holds: one generation of the index, whole and unchanging, and the way to the next one."""

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from indexer.approximation import ApproximationFile, open_approximation, read_approximation
from indexer.errors import IndexDamaged
from indexer.forgetting import oldest_generation
from indexer.gpu import Gpus
from indexer.growth import Grown, Growth
from indexer.open_segment import Allowed, OpenSegment
from indexer.segments import SealedFile, Segment, use_threads
from indexer.spaces import LEFT_OUT, Space, newest_generation
from indexer.tail import Tail
from indexer.vectors import Ids, Mask, Neighbors, Vectors, merge_topk, rows_of

_log = logging.getLogger(__name__)
_NONE: Ids = np.empty(0, np.int64)
_SEGMENTS = "FROM segments WHERE space_id = ? AND merged_into IS NULL"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One generation, searchable from any number of threads."""

    index_dir: Path
    generation: int
    space: Space
    segments: tuple[OpenSegment, ...]
    tail: Tail
    gpus: Gpus | None = None
    growth: Growth = field(default_factory=Growth, repr=False)
    grown: Grown | None = None

    @property
    def images(self) -> int:
        """The number of pictures in this generation."""
        return sum(one.images for one in self.segments) + len(self.tail.visible)

    @property
    def is_growing(self) -> bool:
        """Whether another refresh makes searches faster, though it changes no answer."""
        if self.grown is not None:
            return self.grown.has_more
        return self.growth.can_begin(self.segments, self.tail)

    def blocks(self, rows: int = 4096) -> Iterator[tuple[Ids, Vectors]]:
        """Every picture's vector once, at most `rows` at a time: (N,) ids and their (N, D) vectors."""
        for one in self.segments:
            is_visible = ~np.isin(one.segment.ids, one.removed)
            for start in range(0, len(is_visible), rows):
                chosen = is_visible[start : start + rows]
                vectors = one.segment.read(start, start + len(chosen))
                yield one.segment.ids[start : start + rows][chosen], vectors[chosen]
        for start in range(0, len(self.tail.ids), rows):
            here = slice(start, start + rows)
            chosen = ~self.tail.is_removed[here]
            yield self.tail.ids[here][chosen], self.tail.vectors[here][chosen]

    def visible(self) -> Mask:
        """(highest id + 1,) by picture id, whether this generation holds it."""
        parts = [one.segment.ids for one in self.segments] + [self.tail.visible]
        mask = np.zeros(max((int(ids[-1]) + 1 for ids in parts if ids.size), default=0), np.bool_)
        for ids in parts:
            mask[ids] = True
        for one in self.segments:
            mask[one.removed] = False
        return mask

    def vectors_of(self, ids: Ids) -> Vectors:
        """(N, D) vectors of N pictures; NaN of those that are not in this generation, or have none in it."""
        vectors = np.full((len(ids), self.space.dim), np.nan, np.float32)
        parts: list[Segment | Tail] = [*(one.segment for one in self.segments), self.tail]
        for part in parts:
            is_here, there = part.vectors_of(ids)
            vectors[is_here] = there
        removed = [one.removed for one in self.segments] + [self.tail.ids[self.tail.is_removed]]
        for some in removed:
            vectors[rows_of(some, ids)[0]] = np.nan
        return vectors

    def search(self, queries: Vectors, k: int, threads: int | None = None, *, allowed: Mask | None = None) -> Neighbors:
        """The k nearest pictures of each of the (Q, D) unit queries, of every segment and the tail.

        Scores are exact. Where a segment has an approximation, this finds the share of the nearest that it was tuned
        to; k are found wherever k exist.

        Args:
            threads: what FAISS may use for it; None leaves that to OpenMP.
            allowed: by picture id, which pictures of this generation may be found, and no others; None: all.
        """
        if self.segments and threads is not None:
            # FAISS splits work by query. Threads woken for nothing would spin on, on the cores that encode the next one
            use_threads(max(1, min(threads, len(queries))))
        chosen = None if allowed is None else Allowed(allowed)
        self.growth.is_wanted = True
        if self.grown is not None:
            found = self.grown.search(queries, k, chosen)
            if found is not None:
                return merge_topk(found, k)
        parts = [one.search(queries, k, chosen) for one in self.segments]
        if len(self.tail.ids):
            parts.append(self.tail.search(queries, k, allowed))
        return merge_topk(parts, k) if parts else Neighbors.empty(len(queries), k)


Opening = Callable[[], Snapshot]
"""What is left to do for a generation, when the catalog has been read: to read files, for up to seconds."""


def load_snapshot(
    connection: sqlite3.Connection,
    index_dir: Path,
    space: Space | None = None,
    gpus: Gpus | None = None,
    growth: Growth | None = None,
) -> Opening:
    """Read of the newest generation what the catalog knows, inside the read transaction that the caller holds.

    Args:
        space: whose vectors; None takes the live one's. Pictures without a vector there are not in the snapshot.
        gpus: where large segments are searched; None: nowhere but here.
        growth: to begin with.

    Returns:
        What does the rest, outside of the transaction.

    Raises:
        IndexDamaged: a segment is missing or cut short.
    """
    generation, live = newest_generation(connection)
    space = space or live
    nothing = Snapshot(index_dir, -1, space, (), _tail_of([], space.dim), gpus, growth or Growth())
    return _advance(nothing, connection, generation)


def next_snapshot(current: Snapshot, connection: sqlite3.Connection) -> Opening:
    """The same, reading only what changed since `current`; this opens `current` itself where nothing did."""
    generation, space = newest_generation(connection)
    if (
        space != current.space
        or current.generation < oldest_generation(connection)
        or _is_without_one_of_its_segments(current, connection)
        or _has_been_elsewhere(current, connection)
    ):
        growth = Growth(is_wanted=current.growth.is_wanted)
        return load_snapshot(connection, current.index_dir, gpus=current.gpus, growth=growth)
    return _advance(current, connection, generation)


def _advance(current: Snapshot, connection: sqlite3.Connection, generation: int) -> Opening:
    opened = _segments_after(current, connection)
    approximations = _approximations(current, connection)
    has_others = any(_has_another(one, approximations) for one in current.segments)
    if generation == current.generation and not opened and not has_others and not current.is_growing:
        return lambda: current
    removed = _column(
        connection, "SELECT id FROM pictures WHERE removed > ? AND removed <= ?", (current.generation, generation)
    )
    segments = [_with_removed(one, removed) for one in current.segments]
    segments += _freshly_opened(opened, connection, is_first=not segments)
    tail = current.tail.without(removed) if removed.size else current.tail
    for segment in opened:
        tail = tail.outside(segment.ids)
    ids, vectors = _rows_added_since(current, connection)
    tail = tail.extended(ids, vectors) if ids.size else tail

    def open_files() -> Snapshot:
        made = [_on_gpus(_with_approximation(one, approximations), current.gpus) for one in segments]
        grown = current.growth.advanced(current.grown, made, tail, removed)
        return replace(current, generation=generation, segments=tuple(made), tail=tail, grown=grown)

    return open_files


def _is_without_one_of_its_segments(current: Snapshot, connection: sqlite3.Connection) -> bool:
    """A repair or a compaction has taken a segment out: its vectors have moved, and must not be found twice."""
    named = set(_column(connection, f"SELECT id {_SEGMENTS}", (current.space.id,)).tolist())
    return any(one.segment.segment_id not in named for one in current.segments)


def _has_been_elsewhere(current: Snapshot, connection: sqlite3.Connection) -> bool:
    """Another space was live meanwhile: this one may have been given vectors of pictures that it had none of."""
    row = connection.execute(
        "SELECT 1 FROM generations WHERE number > ? AND space_id != ? LIMIT 1", (current.generation, current.space.id)
    ).fetchone()
    return row is not None


def _segments_after(current: Snapshot, connection: sqlite3.Connection) -> list[Segment]:
    newest = max((one.segment.segment_id for one in current.segments), default=0)
    rows = connection.execute(
        f"SELECT id, file, rows, size_bytes, sha256, frame_checksum {_SEGMENTS} AND id > ? ORDER BY id",
        (current.space.id, newest),
    ).fetchall()
    return [Segment(current.index_dir, row[0], SealedFile(*row[1:])) for row in rows]


def _freshly_opened(segments: list[Segment], connection: sqlite3.Connection, *, is_first: bool) -> list[OpenSegment]:
    if not segments:
        return []
    sql, span = "SELECT id FROM pictures WHERE removed IS NOT NULL", tuple[int, ...]()
    if not is_first:  # of some thousands, not of all that was ever removed
        sql += " AND id BETWEEN ? AND ?"
        span = min(int(one.ids[0]) for one in segments), max(int(one.ids[-1]) for one in segments)
    removed = _column(connection, sql, span)
    return [_with_removed(OpenSegment(segment, _NONE), removed) for segment in segments]


def _with_removed(one: OpenSegment, removed: Ids) -> OpenSegment:
    here = removed[rows_of(one.segment.ids, removed)[0]]
    return replace(one, removed=np.sort(np.concatenate([one.removed, here]), kind="stable")) if here.size else one


def _approximations(current: Snapshot, connection: sqlite3.Connection) -> dict[int, ApproximationFile]:
    """What the catalog says of each segment's approximation, by the segment's id."""
    sql = f"SELECT segment_id FROM approximations WHERE segment_id IN (SELECT id {_SEGMENTS})"
    ids = _column(connection, sql, (current.space.id,)).tolist()
    return {segment_id: read_approximation(connection, segment_id) for segment_id in ids}


def _has_another(one: OpenSegment, approximations: Mapping[int, ApproximationFile]) -> bool:
    """Whether a segment has another approximation by now, or none any more."""
    said = approximations.get(one.segment.segment_id)
    return one.approximation_file != (None if said is None else said.file)


def _with_approximation(one: OpenSegment, approximations: Mapping[int, ApproximationFile]) -> OpenSegment:
    if not _has_another(one, approximations):
        return one
    said = approximations.get(one.segment.segment_id)
    if said is None:
        return replace(one, approximation=None, approximation_file=None)
    try:
        opened = open_approximation(one.segment, said)
    except IndexDamaged as error:
        _log.warning("%s", error)
        opened = None
    return replace(one, approximation=opened, approximation_file=said.file)


def _on_gpus(one: OpenSegment, gpus: Gpus | None) -> OpenSegment:
    if gpus is None or one.placed is not None:
        return one
    return replace(one, placed=gpus.place(one.segment, one.approximation))


def _rows_added_since(current: Snapshot, connection: sqlite3.Connection) -> tuple[Ids, Vectors]:
    known = [one.segment.ids for one in current.segments] + [current.tail.ids]
    highest = max((int(ids[-1]) for ids in known if ids.size), default=0)  # whatever was added since has a higher id
    rows = connection.execute(
        "SELECT p.id, e.vector FROM pictures p JOIN embeddings e ON e.picture_id = p.id"
        " WHERE p.added > ? AND p.removed IS NULL AND e.space_id = ? AND e.segment_id IS NULL AND e.picture_id > ?"
        f" AND NOT {LEFT_OUT} ORDER BY p.id",
        (current.generation, current.space.id, highest),
    ).fetchall()
    tail = _tail_of(rows, current.space.dim)
    return tail.ids, tail.vectors


def _tail_of(rows: Sequence[tuple[int, bytes]], dim: int) -> Tail:
    damaged = [picture_id for picture_id, blob in rows if len(blob or b"") != 2 * dim]
    if damaged:
        raise IndexDamaged(
            f"the vectors of {len(damaged)} pictures in the catalog are cut short; run `retrieve verify --repair`"
        )
    ids = np.array([picture_id for picture_id, _ in rows], np.int64)
    vectors = np.frombuffer(b"".join(blob for _, blob in rows), "<f2").astype(np.float32)
    return Tail.of(ids, vectors.reshape(len(rows), dim))


def _column(connection: sqlite3.Connection, sql: str, parameters: tuple[int, ...]) -> Ids:
    return np.array([row[0] for row in connection.execute(sql, parameters)], np.int64)
