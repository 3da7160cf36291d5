"""Every vector is compared: the k nearest, and of equally near ones those with the lowest labels."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.vectors import NO_ID, Neighbors, Vectors, merge_topk

Float16Vectors = NDArray[np.float16]  # (N, D)


def nearest(index: Any, queries: Vectors, k: int, parameters: Any = None) -> Neighbors:
    """The k nearest of a FAISS index that compares all, by its labels; (Q, k) at most.

    Of equally near ones those with the lowest labels, in any order, so that whoever asks for more finds these as well.
    """
    k = min(k, index.ntotal)
    more = _found(index, queries, k + 1, parameters)
    found = Neighbors(more.ids[:, :k], more.scores[:, :k])
    if more.ids.shape[1] > k:
        is_cut = (more.scores[:, k] == found.scores[:, -1]) & (more.ids[:, k] != NO_ID)  # between equal ones
        if is_cut.any():
            best = _with_equals(index, queries[is_cut], k, 2 * k, parameters)
            found.ids[is_cut], found.scores[is_cut] = best.ids, best.scores
    return found


def nearest_of(vectors: Float16Vectors, queries: Vectors, k: int) -> Neighbors:
    """The same of (N, D) vectors, by their rows: compared as those of a segment are, to the last bit."""
    index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.add_sa_codes(vectors.view(np.uint8))
    return nearest(index, queries, k)


def _with_equals(index: Any, queries: Vectors, k: int, width: int, parameters: Any) -> Neighbors:
    """See `nearest`. FAISS keeps any of equal ones: it is asked for more until it has left out none."""
    more = _found(index, queries, width, parameters)
    found = merge_topk([more], k)
    is_cut = more.scores[:, -1] == found.scores[:, -1]
    if width < index.ntotal and is_cut.any():
        best = _with_equals(index, queries[is_cut], k, 2 * width, parameters)
        found.ids[is_cut], found.scores[is_cut] = best.ids, best.scores
    return found


def _found(index: Any, queries: Vectors, width: int, parameters: Any) -> Neighbors:
    """What FAISS finds; (Q, width) at most."""
    scores, labels = index.search(queries, min(width, index.ntotal), params=parameters)
    scores[labels == NO_ID] = -np.inf  # FAISS fills up with the lowest float
    return Neighbors(labels, scores)
