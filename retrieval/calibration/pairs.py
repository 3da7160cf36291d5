"""Which pairs of pictures is "the same product?" asked of? The hits of a search, or any two pictures at all."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

ANCHORS = 4000
HITS = 10  # what `retrieve query` shows
_BLOCK = 256  # anchors whose scores with all pictures are held at once: 256 x 60,000 float32 are 61 MB

Ints = NDArray[np.int64]
Vectors = NDArray[np.floating]


class Pairs(NamedTuple):
    """Pairs of pictures.

    Attributes:
        scores: (M,) float64, their cosines.
        is_match: (M,) bool, whether both have one label.
        first, second: (M,) int64, rows of the embeddings.
    """

    scores: NDArray[np.float64]
    is_match: NDArray[np.bool_]
    first: Ints
    second: Ints


def sample_hits(embeddings: Vectors, labels: ArrayLike, *, seed: int, anchors: int = ANCHORS, k: int = HITS) -> Pairs:
    """Pair pictures with what a search for them finds: the k nearest others, right and wrong as they come.

    Memory is bounded by blocks of anchors; no N x N matrix is made.

    Args:
        embeddings: (N, D), unit rows.
        labels: (N,) of any one type that can be sorted.
        seed: of the choice of anchors.
        anchors: pictures to search for, at most; chosen among those that have another one of their label.
        k: hits for each, at most.

    Returns:
        `first` is the picture that was searched for, `second` the hit. Two pictures that find each other make two
        pairs. Empty where no label has two pictures.

    Raises:
        ValueError: `embeddings` and `labels` disagree on N.
    """
    codes = label_codes(embeddings, labels)
    chosen = _anchors(codes, np.random.default_rng(seed), anchors)
    k = max(min(k, len(codes) - 1), 0)
    hits = np.empty((len(chosen), k), np.int64)
    scores = np.empty((len(chosen), k))
    for start in range(0, len(chosen), _BLOCK):
        block = chosen[start : start + _BLOCK]
        found = embeddings[block] @ embeddings.T  # (B, N)
        found[np.arange(len(block)), block] = -np.inf  # a picture is no hit of its own
        nearest = np.argpartition(-found, k - 1, axis=1)[:, :k]
        hits[start : start + _BLOCK] = nearest
        scores[start : start + _BLOCK] = np.take_along_axis(found, nearest, axis=1)
    first, second = chosen.repeat(k), hits.ravel()
    return Pairs(scores.ravel(), codes[first] == codes[second], first, second)


def sample_pairs(
    embeddings: Vectors, labels: ArrayLike, *, seed: int, anchors: int = ANCHORS, positives: int = 4, others: int = 16
) -> Pairs:
    """Pair pictures with random ones of their label and random ones of other labels.

    Args:
        embeddings: (N, D), unit rows.
        labels: (N,) of any one type that can be sorted.
        seed: of every choice.
        anchors: pictures to find partners for, at most; chosen among those that have another one of their label.
        positives: partners of its label for each, at most.
        others: pictures drawn for each, with replacement; those of its own label are dropped again.

    Returns:
        Each pair once, with `first` < `second`. Empty where no label has two pictures.

    Raises:
        ValueError: `embeddings` and `labels` disagree on N.
    """
    codes = label_codes(embeddings, labels)
    generator = np.random.default_rng(seed)
    pairs = [np.empty((0, 2), np.int64)]
    for anchor in _anchors(codes, generator, anchors).tolist():
        is_same = codes == codes[anchor]
        same = generator.permutation(np.flatnonzero(is_same))
        drawn = generator.integers(len(codes), size=others)
        partners = np.concatenate([same[same != anchor][:positives], drawn[~is_same[drawn]]])
        pairs.append(np.stack([np.minimum(anchor, partners), np.maximum(anchor, partners)], axis=1))
    first, second = np.unique(np.concatenate(pairs), axis=0).T
    return Pairs(_scores(embeddings, first, second), codes[first] == codes[second], first, second)


def label_codes(embeddings: Vectors, labels: ArrayLike) -> Ints:
    """(N,) int64: the labels as numbers from 0, in their order.

    Raises:
        ValueError: `embeddings` and `labels` disagree on N.
    """
    names = np.asarray(labels)
    if embeddings.ndim != 2 or names.shape != embeddings.shape[:1]:
        raise ValueError(f"embeddings have shape {embeddings.shape}, labels {names.shape}; (N, D) and (N,) are needed")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _anchors(codes: Ints, generator: np.random.Generator, limit: int) -> Ints:
    with_partner = np.flatnonzero(np.bincount(codes, minlength=1)[codes] > 1)
    return np.sort(generator.permutation(with_partner)[:limit])


def _scores(embeddings: Vectors, first: Ints, second: Ints) -> NDArray[np.float64]:
    scores = np.empty(len(first))
    step = 16 * _BLOCK  # 2 x 21 MB of rows with D = 1,280
    for start in range(0, len(first), step):
        rows = slice(start, start + step)
        scores[rows] = np.einsum("md,md->m", embeddings[first[rows]], embeddings[second[rows]])
    return scores
