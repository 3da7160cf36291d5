"""How sure is a metric, and is one model better than another? Bootstrap intervals and a paired test."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000  # the ends of a 95% interval then move by less than a tenth of its width from seed to seed
CONFIDENCE = 0.95


def bootstrap_intervals(
    values: NDArray[np.float64], *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """The percentile bootstrap interval of the mean of every column, over rows drawn with replacement.

    The columns are resampled together. For the difference of two models on the same queries give the differences
    query by query: drawing pairs is what makes the interval narrow where both fail at the same queries.

    Where all values are equal the interval is that one point, which says less than it seems to for few queries.

    Args:
        values: (S, M), a row for each query, a column for each metric; S at least 1.
        confidence: of a two-sided interval, between 0 and 1.
        resamples: how often S rows are drawn.
        seed: the same seed draws the same rows.

    Returns:
        (M, 2) float64, lower and upper ends.

    Raises:
        ValueError: there are no values, or they are not (S, M).

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"values of shape {values.shape} given, (S, M) with S at least 1 is needed")
    count, generator = len(values), np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    for row in range(resamples):  # one at a time: memory stays at S
        drawn = np.bincount(generator.integers(0, count, count), minlength=count)  # how often each row
        means[row] = drawn @ values / count
    tail = (1 - confidence) / 2
    return np.quantile(means, [tail, 1 - tail], axis=0).T


def mcnemar_p(first: ArrayLike, second: ArrayLike) -> float:
    """The exact two-sided p value that two models find equally often, by the queries which only one of them finds.

    Under that hypothesis each of these b + c queries falls to either model with probability 1/2. Queries that both
    find, or neither, say nothing.

    Args:
        first, second: (S,) bool, whether each model found each query's product.

    Returns:
        2 P(X <= min(b, c)) for X binomial(b + c, 1/2), at most 1; 1 where b + c is 0.

    Raises:
        ValueError: they are of different shapes.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions", in its exact
    form; for comparing classifiers Dietterich 1998, "Approximate Statistical Tests".
    """
    first, second = np.asarray(first, np.bool_), np.asarray(second, np.bool_)
    if first.shape != second.shape:
        raise ValueError(f"outcomes of shapes {first.shape} and {second.shape} given; give both for the same queries")
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    discordant = only_first + only_second
    ways = term = 1  # of choosing 0, in whole numbers: exact for any count
    for chosen in range(min(only_first, only_second)):
        term = term * (discordant - chosen) // (chosen + 1)
        ways += term
    p_value: float = min(1.0, ways / 2 ** (discordant - 1)) if discordant else 1.0
    return p_value
