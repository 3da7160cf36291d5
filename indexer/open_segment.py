"""How is one segment searched in one generation: vector by vector, by its approximation first, or by a GPU?"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.approximation import RECALL_K, Approximation, Tuning
from indexer.gpu import PassesRows, Placed
from indexer.segments import Segment, all_but, only
from indexer.vectors import NO_ID, Ids, Mask, Neighbors, Vectors, is_marked, rows_of

# From where comparing all that may be found, one by one, takes no longer (`bench_crossing.py`, 200,000 vectors: lists
# of two bits a value cross near 0.5 of them, of a byte near 0.2, a graph at a share of 0.03; of random pictures, so
# with some distance for those that are not).
_MOST_OF_LISTS = 0.4
_LEAST_OF_GRAPH = 0.05
_MOST_POOLED = 0.1  # of the rows, that are scored again: a bound, not a measurement
_MOST_COPIED = 0.1  # of the rows: so few are gathered faster than all others are passed over
_SAMPLE = 4096  # ids that say well enough what share of all may be found


@dataclass(frozen=True)
class OpenSegment:
    """A segment, which of its pictures are removed in this generation (sorted ids), and what makes it faster."""

    segment: Segment
    removed: Ids
    approximation: Approximation | None = None
    approximation_file: str | None = None  # of one that could not be opened, too
    placed: Placed | None = None

    @property
    def images(self) -> int:
        """The number of pictures that are not removed."""
        return len(self.segment.ids) - self.removed.size

    def search(self, queries: Vectors, k: int, allowed: "Allowed | None" = None) -> Neighbors:
        """The k nearest pictures of each of the (Q, D) queries; (Q, k) at most.

        Args:
            allowed: which pictures of this generation may be found; None: all.
        """
        k = min(k, len(self.segment.ids))
        found = self._from_gpu(queries, k, allowed) or self._from_approximation(queries, k, allowed)
        if found is None:
            return self._exact(queries, k, allowed)
        ids = self.segment.ids[found.ids]
        is_short = found.ids[:, -1] == NO_ID
        if is_short.any():  # what it missed exists all the same
            exact = self._exact(queries[is_short], k, allowed)
            ids[is_short], found.scores[is_short] = exact.ids, exact.scores
        return Neighbors(ids, found.scores)

    def _from_gpu(self, queries: Vectors, k: int, allowed: "Allowed | None") -> Neighbors | None:
        """(Q, k) rows in place of ids; None where no GPU can say."""
        if self.placed is None:
            return None
        if allowed is not None:
            share = allowed.share_of(self.segment.ids)
            return self.placed.search(queries, k, share, allowed.passing(self.segment.ids))
        return self.placed.search(
            queries, k, self.images / len(self.segment.ids), self._is_kept if self.removed.size else None
        )

    def _from_approximation(self, queries: Vectors, k: int, allowed: "Allowed | None") -> Neighbors | None:
        """(Q, k) rows in place of ids; None where comparing all vectors takes no longer."""
        if self.approximation is None:
            return None
        rows = None if allowed is None else allowed.among(self.segment.ids)
        count = self.images if rows is None else np.count_nonzero(rows)
        tuning = tuning_for(self.approximation, count / len(self.segment.ids), k)
        if tuning is None:
            return None
        return self.approximation.search(queries, k, tuning, self._kept if rows is None else only(rows))

    def _exact(self, queries: Vectors, k: int, allowed: "Allowed | None") -> Neighbors:
        if allowed is None:
            return self.segment.search(queries, k, all_but(self.removed) if self.removed.size else None)
        rows = np.flatnonzero(allowed.among(self.segment.ids))
        if len(rows) > _MOST_COPIED * len(self.segment.ids):
            return self.segment.search(queries, k, allowed.by_id)
        if not rows.size:
            return Neighbors.empty(len(queries), k)
        return self.segment.search_rows(queries, k, rows)

    @cached_property
    def _kept(self) -> Any:
        """A selector of the rows that are not removed; None: none is."""
        return all_but(rows_of(self.segment.ids, self.removed)[1]) if self.removed.size else None

    def _is_kept(self, rows: NDArray[np.int64]) -> Mask:
        """Of rows, whether their pictures are not removed."""
        return ~np.isin(self.segment.ids[rows], self.removed)


class Allowed:
    """Which pictures may be found, as FAISS asks for it.

    Args:
        mask: by picture id.
    """

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    @cached_property
    def by_id(self) -> Any:
        """A selector of ids."""
        return only(self.mask)

    def among(self, ids: Ids) -> Mask:
        """(N,) of ascending ids, which are allowed."""
        return is_marked(self.mask, ids)

    def share_of(self, ids: Ids) -> float:
        """Of a segment with these ids, about what share of the rows is allowed."""
        return float(np.mean(self.among(ids[:: max(1, len(ids) // _SAMPLE)])))

    def passing(self, ids: Ids) -> PassesRows:
        """Of rows of a segment with these ids, which are allowed."""

        def passes(rows: NDArray[np.int64]) -> Mask:
            chosen = ids[rows]
            is_inside = chosen < len(self.mask)
            return is_inside & self.mask[np.where(is_inside, chosen, 0)]

        return passes


def tuning_for(approximation: Approximation, share: float, k: int) -> Tuning | None:
    """How to search where a share of the rows may be found, and k of them; None: comparing these takes no longer.

    For each hit, as many allowed rows are looked at as there were when it was tuned.
    """
    effort, pool = approximation.file.tuning
    if k * pool > _MOST_POOLED * approximation.index.ntotal:
        return None
    needed = math.ceil(effort * max(1.0, k / RECALL_K) / max(share, 1e-9))
    if approximation.lists is not None:
        return Tuning(needed, pool) if needed <= max(effort, _MOST_OF_LISTS * approximation.lists) else None
    return None if approximation.is_graph and share < _LEAST_OF_GRAPH else Tuning(needed, pool)
