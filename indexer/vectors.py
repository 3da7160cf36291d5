"""What a vector and an answer look like: unit float32 rows in, `Neighbors` out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexer.errors import VectorError

Vectors = NDArray[np.float32]  # (N, D)
Ids = NDArray[np.int64]  # (N,)
Mask = NDArray[np.bool_]  # by picture id, or of rows

NO_ID = -1
UNIT_TOLERANCE = 2e-3  # float16 rounding of 1,280 values moves a norm by less than 1e-3


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The nearest vectors of each query.

    Attributes:
        ids: (Q, k) int64; `NO_ID` where fewer than k exist.
        scores: (Q, k) float32 cosine, descending; -inf where the slot is empty. Equal scores are ordered by id.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    @classmethod
    def empty(cls, queries: int, k: int) -> "Neighbors":
        """No neighbour for any of the queries."""
        return cls(
            np.full((queries, k), NO_ID, np.int64),
            np.full((queries, k), -np.inf, np.float32),
        )


def check_unit_rows(vectors: ArrayLike, dim: int, names: Sequence[str] | None = None) -> Vectors:
    """Return `vectors` as C-contiguous (N, dim) float32, or say which rows are not unit vectors.

    Args:
        vectors: (N, dim) of any float type.
        dim: the number of values that each row must have.
        names: (N,) what to call the rows in an error; their numbers where None.

    Raises:
        VectorError: the shape is not (N, dim), or a row is not finite or not of unit length.
    """
    try:
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
    except ValueError as error:
        raise VectorError(f"vectors that are not (N, {dim}) numbers given: {error}") from None
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise VectorError(f"vectors of shape {rows.shape} given, the index takes (N, {dim})")
    squares = np.einsum("nd,nd->n", rows, rows)
    is_unit = (squares >= (1 - UNIT_TOLERANCE) ** 2) & (squares <= (1 + UNIT_TOLERANCE) ** 2)  # not finite is neither
    if not is_unit.all():
        bad, norms = np.flatnonzero(~is_unit), np.sqrt(squares)
        shown = ", ".join(str(names[i]) if names else f"row {i}" for i in bad[:5])
        more = f" and {bad.size - 5} more" if bad.size > 5 else ""
        raise VectorError(
            f"{shown}{more}: length {norms[bad[0]]:.4g} given, unit length needed; "
            "divide each row by its Euclidean norm"
        )
    return rows


def merge_topk(parts: Sequence[Neighbors], k: int) -> Neighbors:
    """Merge answers over disjoint sets of vectors into the best k of each query.

    Args:
        parts: at least one; each (Q, any number of columns).
        k: columns of the result.
    """
    if len(parts) == 1 and parts[0].ids.shape[1] == k and (parts[0].scores[:, 1:] < parts[0].scores[:, :-1]).all():
        return parts[0]  # in order already, and no two are equal
    ids = np.concatenate([part.ids for part in parts], axis=1)
    scores = np.concatenate([part.scores for part in parts], axis=1)
    order = np.lexsort((ids, -scores), axis=1)[:, :k]  # by score, then by id
    ids = np.take_along_axis(ids, order, axis=1)
    scores = np.take_along_axis(scores, order, axis=1)
    missing = k - ids.shape[1]
    if missing > 0:
        ids = np.pad(ids, ((0, 0), (0, missing)), constant_values=NO_ID)
        scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
    return Neighbors(ids, scores)


def inner_products(queries: Vectors, vectors: Vectors) -> Vectors:
    """(Q, N) of (Q, D) queries and (N, D) vectors, C-contiguous both, in the calling thread alone."""
    scores = np.empty((len(queries), len(vectors)), np.float32)
    if len(vectors):
        made: Any = faiss  # its stubs do not know this function
        pointer = faiss.swig_ptr(vectors)
        for row, query in enumerate(queries):
            made.fvec_inner_products_ny(
                faiss.swig_ptr(scores[row]), faiss.swig_ptr(query), pointer, vectors.shape[1], len(vectors)
            )
    return scores


def rows_of(held: Ids, ids: Ids) -> tuple[Mask, NDArray[np.intp]]:
    """Look (N,) ids up among ascending ones: (N,) which are there, and the (M,) rows of those."""
    rows = np.searchsorted(held, ids)
    is_there = rows < len(held)
    is_there[is_there] = held[rows[is_there]] == ids[is_there]
    return is_there, rows[is_there]


def is_marked(mask: Mask, ids: Ids) -> Mask:
    """(N,) of a mask by picture id, what it says of (N,) ascending ids; false of those beyond its end. Maybe a view."""
    if ids.size and ids[0] + ids.size == ids[-1] + 1 <= len(mask):
        return mask[ids[0] : ids[-1] + 1]
    inside = np.searchsorted(ids, len(mask))
    marked = np.zeros(len(ids), np.bool_)
    marked[:inside] = mask[ids[:inside]]
    return marked


def rank_scores(ids: Ids, scores: Vectors, k: int) -> Neighbors:
    """The best k of a full matrix of scores.

    Args:
        ids: (N,) the vectors' ids.
        scores: (Q, N) float32; -inf leaves a vector out.
        k: columns of the result.
    """
    found = Neighbors.empty(len(scores), k)
    for row, row_scores in enumerate(scores):
        kept = np.flatnonzero(~np.isneginf(row_scores))
        if kept.size > k:
            kth_best = np.partition(row_scores, row_scores.size - k)[-k]
            kept = np.flatnonzero(row_scores >= kth_best)  # every tie of the k-th best is still in
        order = kept[np.lexsort((ids[kept], -row_scores[kept]))][:k]
        found.ids[row, : order.size] = ids[order]
        found.scores[row, : order.size] = row_scores[order]
    return found
