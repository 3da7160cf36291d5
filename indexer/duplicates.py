"""Which pictures are nearly the same? Groups of them, joined by whom each is nearest to."""

from collections import defaultdict

import numpy as np

from indexer.snapshot import Snapshot
from indexer.vectors import NO_ID, Ids, Mask, Vectors

_NEIGHBORS = 16  # of each picture; one that has more is asked again for those outside of its group
_ROWS_AT_ONCE = 4096


def find_duplicates(snapshot: Snapshot, score: float, threads: int | None = None) -> list[list[int]]:
    """Ids of pictures that are nearly the same, a list for each group of two and more.

    Two pictures are in one group if their cosine reaches `score`, or if a chain of such pictures joins them.

    Args:
        score: the lowest cosine.
        threads: that searches may use.

    Returns:
        Groups by ascending first id, ids ascending.
    """
    if snapshot.images < 2:
        return []
    groups = _Groups()

    def joined(ids: Ids, vectors: Vectors, allowed: Mask | None = None) -> list[int]:
        """Join pictures with their nearest, and return those that may have more that are alike."""
        found = snapshot.search(vectors, min(_NEIGHBORS + 1, snapshot.images), threads, allowed=allowed)
        is_alike = (found.scores >= score) & (found.ids != NO_ID) & (found.ids != ids[:, None])
        for row, column in zip(*is_alike.nonzero(), strict=True):
            groups.join(int(ids[row]), int(found.ids[row, column]))
        return list(ids[found.scores[:, -1] >= score].tolist())

    crowded: list[int] = []
    for ids, vectors in snapshot.blocks(_ROWS_AT_ONCE):
        if ids.size:
            crowded += joined(ids, vectors)
    allowed = snapshot.visible()
    while crowded:  # who still is has been joined with another group, so these become fewer
        members, asking = groups.members(), crowded
        crowded = []
        for leader, some in groups.by_leader(asking).items():
            if len(members[leader]) == snapshot.images:
                continue
            allowed[members[leader]] = False
            for start in range(0, len(some), _ROWS_AT_ONCE):
                ids = np.array(some[start : start + _ROWS_AT_ONCE], np.int64)
                crowded += joined(ids, snapshot.vectors_of(ids), allowed)
            allowed[members[leader]] = True
    return list(groups.members().values())


class _Groups:
    """Pictures that are joined; the lowest id of a group leads it."""

    def __init__(self) -> None:
        self._leader: dict[int, int] = {}

    def join(self, one: int, other: int) -> None:
        first, second = self._leader_of(one), self._leader_of(other)
        self._leader[max(first, second)] = min(first, second)

    def members(self) -> dict[int, list[int]]:
        """All that are joined with another one, by who leads them; ascending."""
        return self.by_leader(sorted(self._leader))

    def by_leader(self, ids: list[int]) -> dict[int, list[int]]:
        """Ids in their order, by who leads them."""
        groups = defaultdict(list)
        for id_ in ids:
            groups[self._leader_of(id_)].append(id_)
        return dict(groups)

    def _leader_of(self, id_: int) -> int:
        while (above := self._leader.setdefault(id_, id_)) != id_:
            self._leader[id_] = self._leader[above]  # halves the way for those who come after
            id_ = above
        return id_
