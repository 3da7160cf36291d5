"""What candidates are really worth: their scores by the vectors themselves."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from indexer.vectors import NO_ID, Neighbors, Vectors

_ROWS_AT_ONCE = 65_536

VectorsOfRows = Callable[[NDArray[np.int64]], Vectors]
"""(N,) rows to their (N, D) vectors."""


def score_again(vectors_of: VectorsOfRows, queries: Vectors, rows: NDArray[np.int64], k: int) -> Neighbors:
    """The best k of (Q, W) candidates, by their exact scores; (Q, W) of them where W is less.

    Args:
        rows: `NO_ID` where there is no candidate. There is a row 0.

    Returns:
        Rows in place of ids.
    """
    scores = np.empty(rows.shape, np.float32)
    step = max(1, _ROWS_AT_ONCE // max(1, rows.shape[1]))
    for start in range(0, len(queries), step):
        here = rows[start : start + step]
        vectors = vectors_of(np.maximum(here, 0).ravel()).reshape(*here.shape, -1)
        np.einsum("qwd,qd->qw", vectors, queries[start : start + step], out=scores[start : start + step])
    scores[rows == NO_ID] = -np.inf
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    query = np.arange(len(rows))[:, np.newaxis]
    return Neighbors(rows[query, order], scores[query, order])
