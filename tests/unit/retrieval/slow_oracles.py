"""The definitions of losses and miners once more, as slow and obvious loops over plain numbers."""

import math
from collections.abc import Sequence

Triplet = tuple[int, int, int]


def slow_distance(u: Sequence[float], v: Sequence[float], distance: str) -> float:
    squared = math.fsum((x - y) ** 2 for x, y in zip(u, v, strict=True))
    if distance == "squared_euclidean":
        return squared
    if distance == "euclidean":
        return math.sqrt(squared)
    assert distance == "cosine"
    product = math.fsum(x * y for x, y in zip(u, v, strict=True))
    return 1 - product / (math.hypot(*u) * math.hypot(*v))


def slow_triplet_loss(to_positive: float, to_negative: float, margin: float | None) -> float:
    """With no margin, the soft one."""
    if margin is None:
        gap = to_positive - to_negative
        return math.log1p(math.exp(gap)) if gap < 700 else gap
    return max(0.0, to_positive - to_negative + margin)


def slow_contrastive_loss(distance: float, y: int, margin: float) -> float:
    return y * distance**2 / 2 + (1 - y) * max(0.0, margin - distance) ** 2 / 2


def slow_pair_loss(distance: float, y: int, slope: float, offset: float) -> float:
    p = 1 / (1 + math.exp(-(offset - slope * distance)))
    return -(y * math.log(p) + (1 - y) * math.log(1 - p))


def slow_triplets(labels: Sequence[int]) -> list[Triplet]:
    rows = range(len(labels))
    return [
        (a, p, n)
        for a in rows
        for p in rows
        for n in rows
        if a != p and labels[a] == labels[p] and labels[a] != labels[n]
    ]


def slow_semi_hard(distances: Sequence[Sequence[float]], labels: Sequence[int], margin: float) -> list[Triplet]:
    chosen: dict[tuple[int, int], int] = {}
    for a, p, n in slow_triplets(labels):
        d = distances[a]
        if 0 < d[n] - d[p] < margin and ((a, p) not in chosen or d[n] < d[chosen[a, p]]):
            chosen[a, p] = n
    return [(a, p, n) for (a, p), n in chosen.items()]


def slow_hard(distances: Sequence[Sequence[float]], labels: Sequence[int]) -> list[Triplet]:
    triplets = []
    for a, label in enumerate(labels):
        positives = [row for row, other in enumerate(labels) if other == label and row != a]
        negatives = [row for row, other in enumerate(labels) if other != label]
        if positives and negatives:  # max and min take the first of equals
            triplets.append(
                (a, max(positives, key=distances[a].__getitem__), min(negatives, key=distances[a].__getitem__))
            )
    return triplets


def slow_draw_weights(to_negatives: Sequence[float], dim: int) -> list[float]:
    """Probability with which each negative of one anchor is drawn: inverse density, cut off at 0.5 and 1.4."""
    weights = []
    for distance in to_negatives:
        d = max(distance, 0.5)
        density = d ** (dim - 2) * (1 - d**2 / 4) ** ((dim - 3) / 2) if d < 2 else math.inf
        weights.append(1 / density if distance < 1.4 else 0.0)
    return [weight / math.fsum(weights) for weight in weights]
