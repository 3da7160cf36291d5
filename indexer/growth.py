"""What has come since the largest segment was given its lists takes its place in these, in memory.

Else each search would compare it one by one: what a few thousand vectors cost, a hundred thousand cost behind lists.
The lists are as they were learned, and grow under the searches. Scores are exact here as well.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.approximation import RECALL_K, Approximation, read_into_memory, search_parameters
from indexer.errors import IndexDamaged
from indexer.exact import Float16Vectors
from indexer.gate import Gate
from indexer.open_segment import Allowed, OpenSegment, tuning_for
from indexer.rescoring import score_again
from indexer.segments import only, with_threads
from indexer.tail import Tail
from indexer.vectors import Ids, Mask, Neighbors, Vectors, rows_of

_log = logging.getLogger(__name__)
_LEAST_TO_BEGIN = 1024  # newcomers: fewer are compared in no time, and the lists take memory
_MOST_AT_ONCE = 4096  # that one refresh brings in: some tens of milliseconds
_MOST_OF_A_SEGMENT = 16_384  # a larger one waits for a compaction
_ROWS_A_TURN = 128  # for which searches wait: a millisecond or two
_QUERIES_A_TURN = 256  # for which newcomers wait
_LEAST_ROOM = 8192  # places for newcomers


class Growth:
    """Whether there is reason to let lists grow; what successive generations know of it together."""

    def __init__(self, *, is_wanted: bool = False) -> None:
        self.is_wanted = is_wanted  # by a search: an index that is only written needs none
        self._damaged: Approximation | None = None

    def can_begin(self, segments: Sequence[OpenSegment], tail: Tail) -> bool:
        """Whether a generation that is not searched by growing lists could be."""
        base, others = _base_and_others(segments)
        if not self.is_wanted or base is None or base.approximation is self._damaged:
            return False
        return sum(one.images for one in others) + len(tail.visible) >= _LEAST_TO_BEGIN

    def advanced(
        self, before: "Grown | None", segments: Sequence[OpenSegment], tail: Tail, removed: Ids
    ) -> "Grown | None":
        """How a generation is searched by lists that hold its newcomers, or most of them; None: there are none such.

        Called by one thread at a time, while any number search.

        Args:
            before: what this came to for the generation before it.
            segments, tail: of the generation.
            removed: ascending ids of pictures that were in the generation before and are not any more.
        """
        base, others = _base_and_others(segments)
        if base is None:
            return None
        if before is None or not before.lists.are_of(base) or before.is_wasteful:
            if not self.can_begin(segments, tail):
                return None
            try:
                lists, before = Lists(base), None
            except IndexDamaged as error:
                _log.warning("%s", error)
                self._damaged = base.approximation
                return None
        else:
            lists = before.lists
        left, has_more = lists.take_segments(others)
        if not has_more:
            has_more = lists.take_tail(tail)
        is_visible = lists.visible_in(before, base, removed)
        return Grown(lists, lists.ids, is_visible, tuple(left), tail.outside(lists.ids), has_more)


def _base_and_others(segments: Sequence[OpenSegment]) -> tuple[OpenSegment | None, list[OpenSegment]]:
    """The segment whose lists can grow, if there is one: the oldest and largest. The others by their ids."""
    ordered = sorted((one for one in segments if len(one.segment.ids)), key=lambda one: int(one.segment.ids[0]))
    if not ordered or ordered[0].images < max(one.images for one in ordered):
        return None, ordered
    base = ordered[0]
    has_lists = base.placed is None and base.approximation is not None and base.approximation.lists is not None
    return base if has_lists else None, ordered[1:]


@dataclass(frozen=True)
class Grown:
    """The lists, as one generation sees them.

    Attributes:
        ids: (N,) ascending, by place in the lists.
        is_visible: (N,) whether this generation has that picture, and finds it here.
        segments: that are not in the lists.
        tail: the part of it that is not.
        has_more: whether another refresh brings in more.
    """

    lists: "Lists"
    ids: Ids
    is_visible: Mask
    segments: tuple[OpenSegment, ...]
    tail: Tail
    has_more: bool

    def search(self, queries: Vectors, k: int, allowed: Allowed | None) -> list[Neighbors] | None:
        """The k nearest pictures of each of the (Q, D) queries, in parts that are to be merged.

        Args:
            allowed: which pictures of this generation may be found; None: all.

        Returns:
            None where the lists find fewer than k, or take longer than to compare all that may be found.
        """
        if allowed is not None:
            way = self._way(k, *_selected(self.is_visible & allowed.among(self.ids)))
        else:
            way = self._usual_way if k <= RECALL_K else self._way(k, *self._all)
        if way is None:
            return None
        found = self.lists.search(queries, k, way)
        if np.isneginf(found.scores[:, -1]).any():
            return None
        parts = [Neighbors(self.ids[found.ids], found.scores)]
        parts += [one.search(queries, k, allowed) for one in self.segments]
        if len(self.tail.ids):
            parts.append(self.tail.search(queries, k, None if allowed is None else allowed.mask))
        return parts

    @property
    def is_wasteful(self) -> bool:
        """Most places are of newcomers that are not found here any more: the lists are to begin anew without them."""
        newcomers = self.is_visible[self.lists.base_count :]
        return 2 * (len(newcomers) - int(np.count_nonzero(newcomers))) > len(self.is_visible)

    @cached_property
    def _all(self) -> tuple[Any, int]:
        """A selector of the places of all pictures of this generation, and how many these are."""
        return _selected(self.is_visible)

    @cached_property
    def _usual_way(self) -> "Way | None":
        """Of most searches: making it anew for each would cost these a fifth."""
        return self._way(RECALL_K, *self._all)

    def _way(self, k: int, selector: Any, count: int) -> "Way | None":
        return self.lists.way(k, count / len(self.ids), selector)


def _selected(places: Mask) -> tuple[Any, int]:
    """A selector of the places at which a mask is true, None where it is everywhere; and how many these are."""
    count = int(np.count_nonzero(places))
    return None if count == len(places) else only(places), count


class Way(NamedTuple):
    """How lists are searched.

    Attributes:
        candidates: for each query, that are scored again.
        parameters: FAISS's.
    """

    candidates: int
    parameters: Any


class Lists:
    """A segment's lists in memory, and the pictures that were added to them.

    Args:
        base: the segment.

    Raises:
        IndexDamaged: their file is not what was written.
    """

    def __init__(self, base: OpenSegment) -> None:
        assert base.approximation is not None
        self._approximation: Approximation = base.approximation
        self._base = base.segment
        self._index = read_into_memory(base.segment, base.approximation.file)
        self._gate = Gate()
        self._count = len(base.segment.ids)
        self._ids = np.concatenate([base.segment.ids, np.empty(_LEAST_ROOM, np.int64)])
        self._newcomers = np.empty((_LEAST_ROOM, base.segment.dim), np.float16)
        self._segments: set[int] = set()  # whose pictures are all here
        self._outside: set[int] = set()  # segments of which some pictures can never be here
        self._given_up = np.empty(0, np.intp)  # places of those that came before: they are found in their segment

    @property
    def ids(self) -> Ids:
        """(N,) of all pictures here, ascending."""
        return self._ids[: self._count]

    @property
    def base_count(self) -> int:
        """The number of places of the segment's own pictures, which come first."""
        return len(self._base.ids)

    def are_of(self, base: OpenSegment) -> bool:
        """Whether these are the lists of that segment, and of its present approximation, and whole."""
        is_same = self._base is base.segment and self._approximation is base.approximation
        return is_same and self._index.ntotal == self._count  # else an addition was interrupted

    def take_segments(self, segments: list[OpenSegment]) -> tuple[list[OpenSegment], bool]:
        """Bring in the pictures of segments, ordered by their ids, as many as a refresh may.

        Returns:
            Those that are not here, and whether any of them can be brought in later.
        """
        left: list[OpenSegment] = []
        most = self._count + _MOST_AT_ONCE
        is_full = False
        for one in segments:
            if one.segment.segment_id in self._segments:
                continue
            is_full = is_full or self._count >= most  # whoever comes later must not come in before
            if one.segment.segment_id in self._outside or not self._take_segment(one, is_full=is_full):
                left.append(one)
        return left, is_full

    def _take_segment(self, one: OpenSegment, *, is_full: bool) -> bool:
        """Whether all pictures of a segment are here now.

        One of which some came through the tail is taken whatever its size. Where that cannot be, others of it having
        lower ids than what is here, it stays outside, and those that came are given up: else they would be found twice.
        """
        rows = np.flatnonzero(~np.isin(one.segment.ids, one.removed))
        ids = one.segment.ids[rows]
        is_new = ids > self.ids[-1]
        is_here, at = rows_of(self.ids, ids[~is_new])
        can_wait = not len(at) and (is_full or len(ids) > _MOST_OF_A_SEGMENT)
        if can_wait:
            return False
        if not is_here.all():
            self._outside.add(one.segment.segment_id)
            self._given_up = np.union1d(self._given_up, at)
            return False
        self._add(ids[is_new], one.segment.rows(rows[is_new]))
        self._segments.add(one.segment.segment_id)
        return True

    def take_tail(self, tail: Tail) -> bool:
        """Bring in pictures that are in no segment yet, as many as a refresh may; returns whether more are waiting."""
        new = np.flatnonzero((tail.ids > self.ids[-1]) & ~tail.is_removed)
        rows = new[:_MOST_AT_ONCE]
        self._add(tail.ids[rows], tail.vectors[rows])
        return rows.size < new.size

    def _add(self, ids: Ids, vectors: Vectors) -> None:
        for start in range(0, len(ids), _ROWS_A_TURN):
            here = slice(start, start + _ROWS_A_TURN)
            with self._gate.writing(), with_threads(1):
                end = self._count + len(ids[here])
                self._make_room(end)
                self._ids[self._count : end] = ids[here]
                self._newcomers[self._count - self.base_count : end - self.base_count] = vectors[here]
                self._index.add(vectors[here])
                self._count = end

    def _make_room(self, count: int) -> None:
        if count > len(self._ids):
            more = max(count - len(self._ids), len(self._newcomers))  # at least twice as much
            self._newcomers = np.concatenate([self._newcomers, np.empty((more, self._base.dim), np.float16)])
            self._ids = np.concatenate([self._ids, np.empty(more, np.int64)])  # last: it says how much room there is

    def visible_in(self, before: Grown | None, base: OpenSegment, removed: Ids) -> Mask:
        """(N,) which of the pictures here are in a generation.

        Args:
            before: the generation before it.
            base: the segment of these lists, as the generation has it.
            removed: between the two generations.
        """
        is_visible = np.ones(self._count, np.bool_)
        if before is None:
            is_visible[rows_of(self.ids, base.removed)[1]] = False
        else:
            is_visible[: len(before.is_visible)] = before.is_visible
            is_visible[rows_of(self.ids, removed)[1]] = False
        is_visible[self._given_up] = False
        return is_visible

    def way(self, k: int, share: float, selector: Any) -> Way | None:
        """How to look for k pictures; None where comparing all that may be found takes no longer.

        Args:
            share: of the places, that may be found.
            selector: of these.
        """
        tuning = tuning_for(self._approximation, share, k)
        if tuning is None:
            return None
        searched = max(k, RECALL_K)
        return Way(searched * tuning.pool, search_parameters(self._index, tuning, searched, selector))

    def search(self, queries: Vectors, k: int, way: Way) -> Neighbors:
        """(Q, k) places in the lists in place of ids; empty slots where they find fewer."""
        parts = []
        for start in range(0, max(1, len(queries)), _QUERIES_A_TURN):
            some = queries[start : start + _QUERIES_A_TURN]
            with self._gate.reading():
                _, places = self._index.search(some, way.candidates, params=way.parameters)
                parts.append(score_again(self._vectors_of, some, places, k))
        if len(parts) == 1:
            return parts[0]
        return Neighbors(np.concatenate([one.ids for one in parts]), np.concatenate([one.scores for one in parts]))

    def _vectors_of(self, places: NDArray[np.int64]) -> Float16Vectors:
        first = np.searchsorted(places, self.base_count)  # of the newcomers
        if first == len(places):
            return self._base.stored[places]
        newcomers = self._newcomers[places[first:] - self.base_count]
        return np.concatenate([self._base.stored[places[:first]], newcomers])
