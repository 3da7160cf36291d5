"""What candidates are really worth: their scores by the vectors themselves."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from indexer.exact import Float16Vectors, nearest_of
from indexer.vectors import Neighbors, Vectors

VectorsOfRows = Callable[[NDArray[np.int64]], Float16Vectors]
"""(N,) ascending rows to their (N, D) vectors."""


def score_again(vectors_of: VectorsOfRows, queries: Vectors, rows: NDArray[np.int64], k: int) -> Neighbors:
    """The best k of (Q, W) candidates, by their exact scores; (Q, W) of them where W is less.

    Args:
        rows: `NO_ID` where there is no candidate.

    Returns:
        Rows in place of ids.
    """
    best = Neighbors.empty(len(queries), min(k, rows.shape[1]))
    for place, candidates in enumerate(np.sort(rows, axis=1)):
        there = candidates[np.searchsorted(candidates, 0) :]
        if there.size:
            found = nearest_of(vectors_of(there), queries[place : place + 1], k)
            best.ids[place, : found.ids.shape[1]] = there[found.ids[0]]
            best.scores[place, : found.ids.shape[1]] = found.scores[0]
    return best
