"""The vectors that are not in a segment yet, in memory: a list that grows without being copied."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.vectors import Ids, Mask, Neighbors, Vectors, inner_products, is_marked, rank_scores, rows_of

_FEW = 32  # queries
_LEAST_ROWS = 64  # below which neither growing nor shrinking is worth a thought


class _Room:
    """Arrays with spare rows, shared by successive tails; only the newest may write behind its own end."""

    def __init__(self, ids: Ids, vectors: Vectors) -> None:
        self.ids = np.empty(max(_LEAST_ROWS, 2 * len(ids)), np.int64)
        self.vectors = np.empty((len(self.ids), vectors.shape[1]), np.float32)
        self.used = 0
        self.append(ids, vectors)

    def append(self, ids: Ids, vectors: Vectors) -> None:
        end = self.used + len(ids)
        self.ids[self.used : end] = ids
        self.vectors[self.used : end] = vectors
        self.used = end


@dataclass(frozen=True, slots=True)
class Tail:
    """Unsealed vectors of one generation; immutable, while its successors share its memory.

    Attributes:
        ids: (N,) int64, ascending.
        vectors: (N, D) float32.
        is_removed: (N,) bool.
    """

    ids: Ids
    vectors: Vectors
    is_removed: NDArray[np.bool_]
    _room: _Room

    @classmethod
    def of(cls, ids: Ids, vectors: Vectors) -> "Tail":
        """A tail of (N,) `ids` and (N, D) `vectors`."""
        room = _Room(ids, vectors)
        return cls(room.ids[: len(ids)], room.vectors[: len(ids)], np.zeros(len(ids), np.bool_), room)

    def extended(self, ids: Ids, vectors: Vectors) -> "Tail":
        """This tail and the rows behind it."""
        start, end = len(self.ids), len(self.ids) + len(ids)
        room = self._room
        if start != room.used or end > len(room.ids):
            room = _Room(self.ids, self.vectors)
            if end > len(room.ids):
                room = _Room(np.concatenate([self.ids, ids]), np.concatenate([self.vectors, vectors]))
                start = end
        if start != end:
            room.append(ids, vectors)
        is_removed = np.concatenate([self.is_removed, np.zeros(len(ids), np.bool_)])
        return Tail(room.ids[:end], room.vectors[:end], is_removed, room)

    def without(self, removed: Ids) -> "Tail":
        """This tail with the pictures `removed` marked as such, and copied without them once they are the most."""
        is_removed = self.is_removed | np.isin(self.ids, removed)
        if 2 * np.count_nonzero(is_removed) > max(len(self.ids), _LEAST_ROWS):
            return Tail.of(self.ids[~is_removed], self.vectors[~is_removed])
        return Tail(self.ids, self.vectors, is_removed, self._room)

    @property
    def visible(self) -> Ids:
        """The ids of the pictures that are not removed."""
        return self.ids[~self.is_removed]

    def only(self, kept: Ids) -> "Tail":
        """A tail of its own memory with the rows whose ids are in `kept`, none of them removed."""
        chosen = np.isin(self.ids, kept)
        return Tail.of(self.ids[chosen], self.vectors[chosen])

    def outside(self, held: Ids) -> "Tail":
        """A tail of its own memory without the rows whose ids are among ascending ones, none of the others removed."""
        if not self.ids.size:
            return self
        return self.only(self.ids[~rows_of(held, self.ids)[0] & ~self.is_removed])

    def vectors_of(self, ids: Ids) -> tuple[Mask, Vectors]:
        """(N,) which of N ids are here, and the (M, D) vectors of those."""
        is_here, rows = rows_of(self.ids, ids)
        return is_here, self.vectors[rows]

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> Neighbors:
        """The k nearest of each query, of those at whose ids `allowed` is true."""
        # A few queries without BLAS, whose threads would spin on, on the cores that encode the next one.
        few = len(queries) <= _FEW
        scores = inner_products(queries, self.vectors) if few else queries @ self.vectors.T  # (Q, N)
        left_out = self.is_removed if allowed is None else self.is_removed | ~is_marked(allowed, self.ids)
        if left_out.any():
            scores[:, left_out] = -np.inf
        return rank_scores(self.ids, scores, k)
