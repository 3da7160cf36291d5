"""Which pictures are nearly the same? Groups of them, joined by whom each is nearest to."""

from collections import defaultdict

from indexer.snapshot import Snapshot
from indexer.vectors import NO_ID

_NEIGHBORS = 16  # of each picture; larger groups hang together by the neighbours of neighbours


def find_duplicates(snapshot: Snapshot, score: float, threads: int | None = None) -> list[list[int]]:
    """Ids of pictures that are nearly the same, a list for each group of two and more.

    Two pictures are in one group if their cosine reaches `score`, or if a chain of such pictures joins them.

    Args:
        score: the lowest cosine.
        threads: that searches may use.

    Returns:
        Groups by ascending first id, ids ascending.
    """
    leader: dict[int, int] = {}

    def leader_of(id_: int) -> int:
        while (above := leader.setdefault(id_, id_)) != id_:
            leader[id_] = leader[above]  # halves the way for those who come after
            id_ = above
        return id_

    for ids, vectors in snapshot.blocks():
        found = snapshot.search(vectors, min(_NEIGHBORS + 1, snapshot.images), threads)
        is_alike = (found.scores >= score) & (found.ids != NO_ID) & (found.ids != ids[:, None])
        for row, column in zip(*is_alike.nonzero(), strict=True):
            first, second = leader_of(int(ids[row])), leader_of(int(found.ids[row, column]))
            leader[max(first, second)] = min(first, second)
    groups = defaultdict(list)
    for id_ in sorted(leader):
        groups[leader_of(id_)].append(id_)
    return list(groups.values())
