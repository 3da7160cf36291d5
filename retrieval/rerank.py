"""A better order from the hits themselves: a query moved towards what it found, or hits that find one another."""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


def expand_queries(queries: Vectors, neighbors: Vectors, scores: Vectors, *, alpha: float = 3.0) -> Vectors:
    """Queries moved towards their nearest neighbours, the nearer the more, of unit length again.

    Args:
        queries: (Q, D) unit rows.
        neighbors: (Q, n, D) unit rows, the nearest of each; NaN where there are fewer.
        scores: (Q, n) their cosines; those below 0 count nothing.
        alpha: the power of a cosine that a neighbour weighs; 0 is the mean.

    Returns:
        (Q, D) unit rows.

    Source: Radenovic et al. 2018, "Fine-tuning CNN Image Retrieval with No Human Annotation" (alpha-QE).
    """
    weights = np.where(np.isfinite(scores) & (scores > 0), np.maximum(scores, 0) ** alpha, 0).astype(np.float32)
    moved = queries + np.einsum("qn,qnd->qd", weights, np.nan_to_num(neighbors))
    expanded: Vectors = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return expanded


def k_reciprocal_order(
    query: Vectors, neighbors: Vectors, *, k1: int = 20, k2: int = 6, share: float = 0.3
) -> NDArray[np.intp]:
    """The order of a query's neighbours by how much their neighbourhoods have in common with the query's.

    Args:
        query: (D,) unit.
        neighbors: (n, D) unit rows.
        k1: size of a neighbourhood, whose members must have each other among their k1 nearest.
        k2: neighbourhoods are averaged over so many nearest.
        share: of the plain distance in the one that is sorted by, 0 to 1.

    Returns:
        (n,) rows of `neighbors`, best first.

    Source: Zhong et al. 2017, "Re-ranking Person Re-identification with k-reciprocal Encoding".
    """
    if not len(neighbors):
        return np.empty(0, np.intp)
    everything = np.concatenate([query[np.newaxis], neighbors])  # (1 + n, D), the query first
    apart = np.maximum(2 - 2 * (everything @ everything.T), 0)
    nearest = np.argsort(apart, axis=1, kind="stable")
    encoded = _encoded(apart / apart.max(axis=1, keepdims=True).clip(min=1e-12), nearest, k1)
    if k2 > 1:
        encoded = encoded[nearest[:, :k2]].mean(axis=1)
    shared = np.minimum(encoded[0], encoded[1:]).sum(axis=1)
    jaccard = 1 - shared / (np.maximum(encoded[0], encoded[1:]).sum(axis=1)).clip(min=1e-12)
    plain = apart[0, 1:] / max(float(apart[0].max()), 1e-12)
    return np.argsort((1 - share) * jaccard + share * plain, kind="stable")


def _encoded(apart: NDArray[np.float32], nearest: NDArray[np.intp], k1: int) -> NDArray[np.float32]:
    """(m, m) how much each of m pictures belongs to the neighbourhood of each, rows summing to 1."""
    encoded = np.zeros_like(apart)
    for row in range(len(apart)):
        members = own = _reciprocal(nearest, row, k1)
        for candidate in own:
            others = _reciprocal(nearest, int(candidate), round(k1 / 2))
            if len(np.intersect1d(others, own)) > 2 / 3 * len(others):  # most of them belong to it, so all may
                members = np.union1d(members, others)
        weights = np.exp(-apart[row, members])
        encoded[row, members] = weights / weights.sum()
    return encoded


def _reciprocal(nearest: NDArray[np.intp], row: int, k: int) -> NDArray[np.intp]:
    """The k nearest of a picture (itself among them) that have it among their k nearest, too."""
    forward = nearest[row, : k + 1]
    return np.sort(forward[(nearest[forward, : k + 1] == row).any(axis=1)])
