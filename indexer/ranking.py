"""The best of what may be found: from a rank on, without some pictures, one of each group, without near-duplicates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.snapshot import Snapshot
from indexer.vectors import NO_ID, Ids, Mask, Neighbors, Vectors


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What a search asks for.

    Attributes:
        k: so many of each query, where they exist.
        offset: leave out the best so many.
        min_score: the lowest cosine.
        allowed: by picture id, which pictures may be found; None: all.
        excluded: ids of pictures that may not.
        groups: by picture id, a number that pictures share of which only the best is wanted; -1 of a picture that is
            alone.
        duplicate_score: a picture whose cosine to a better one of the answer is at least this is left out.
    """

    k: int
    offset: int = 0
    min_score: float = -np.inf
    allowed: Mask | None = None
    excluded: frozenset[int] = frozenset()
    groups: NDArray[np.int64] | None = None
    duplicate_score: float | None = None

    @property
    def collapses(self) -> bool:
        """Whether one picture stands for several."""
        return self.groups is not None or self.duplicate_score is not None


def rank(snapshot: Snapshot, queries: Vectors, wanted: Wanted, threads: int | None = None) -> Neighbors:
    """The best pictures for each of the (Q, D) unit queries: k of each wherever k exist.

    Returns:
        (Q, k) or, where the snapshot holds fewer pictures, so many columns.
    """
    most = snapshot.images
    needed = min(wanted.offset + wanted.k, most)
    width = min((1 + wanted.collapses) * needed + len(wanted.excluded), most)
    if not width:
        return Neighbors.empty(len(queries), 0)
    found = snapshot.search(queries, width, threads, allowed=wanted.allowed)
    if wanted.collapses or wanted.excluded:
        found = _picked(snapshot, queries, wanted, needed, found, threads)
    ids, scores = found.ids[:, wanted.offset :], found.scores[:, wanted.offset :]
    is_low = scores < wanted.min_score
    return Neighbors(np.where(is_low, NO_ID, ids), np.where(is_low, -np.inf, scores).astype(np.float32))


def _picked(
    snapshot: Snapshot, queries: Vectors, wanted: Wanted, needed: int, found: Neighbors, threads: int | None
) -> Neighbors:
    """(Q, needed) of those that the wishes leave, where the nearest of each query are already found."""
    picked = Neighbors.empty(len(queries), needed)
    for row, query in enumerate(queries):
        picking = _Picking(snapshot, wanted, needed)
        ids, scores = found.ids[row], found.scores[row]
        while not picking.take(ids, scores):
            # What has been seen is not asked for again, nor are the other pictures of a group: a product of a thousand
            # pictures costs one more search, not a thousand ranks.
            width = min(2 * len(ids), snapshot.images)
            more = snapshot.search(query[np.newaxis], width, threads, allowed=picking.rest())
            ids, scores = more.ids[0], more.scores[0]
        picked.ids[row, : len(picking.ids)], picked.scores[row, : len(picking.ids)] = picking.ids, picking.scores
    return picked


class _Picking:
    """The answer to one query as it grows, and what may still be found."""

    def __init__(self, snapshot: Snapshot, wanted: Wanted, needed: int) -> None:
        self._snapshot, self._wanted, self._needed = snapshot, wanted, needed
        self._rest: Mask | None = None
        self._seen: list[Ids] = []
        self._groups: set[int] = set()
        self.ids: list[int] = []
        self.scores: list[float] = []
        self._vectors = np.empty((0, snapshot.space.dim), np.float32)  # of what is picked, and room for more

    def take(self, ids: Ids, scores: NDArray[np.float32]) -> bool:
        """Pick from the next best pictures; returns whether no more are needed, or none are left."""
        is_there = (ids != NO_ID) & (scores >= self._wanted.min_score)
        ids, scores = ids[is_there], scores[is_there]
        self._seen.append(ids)
        duplicates = self._wanted.duplicate_score
        vectors = None if duplicates is None else self._snapshot.vectors_of(ids)
        if vectors is not None:  # room for all of them: a copy each time, not for each hit
            self._vectors = np.concatenate([self._vectors[: len(self.ids)], np.empty_like(vectors)])
        for place, (id_, score) in enumerate(zip(ids.tolist(), scores.tolist(), strict=True)):
            if len(self.ids) == self._needed:
                break
            if id_ in self._wanted.excluded or not self._is_first_of_its_group(id_):
                continue
            if vectors is not None:
                if (self._vectors[: len(self.ids)] @ vectors[place] >= duplicates).any():
                    continue
                self._vectors[len(self.ids)] = vectors[place]
            self.ids.append(id_)
            self.scores.append(score)
        return len(self.ids) == self._needed or not is_there.all()

    def _is_first_of_its_group(self, id_: int) -> bool:
        groups = self._wanted.groups
        group = -1 if groups is None else int(groups[id_])
        if group in self._groups:
            return False
        if group >= 0:
            self._groups.add(group)
        return True

    def rest(self) -> Mask:
        """By picture id, what has not been seen and is of none of the groups that have."""
        if self._rest is None:
            allowed = self._wanted.allowed
            self._rest = self._snapshot.visible() if allowed is None else allowed.copy()
        self._rest[np.concatenate(self._seen)] = False
        groups = self._wanted.groups
        if groups is not None and self._groups:
            is_taken = np.zeros(int(groups.max()) + 2, np.bool_)  # the last is -1's, and stays false
            is_taken[list(self._groups)] = True
            both = min(len(groups), len(self._rest))
            self._rest[:both] &= ~is_taken[groups[:both]]
        return self._rest
