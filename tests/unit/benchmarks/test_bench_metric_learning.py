"""The comparison over seeds is paired by query, and says no more than its seeds and queries allow."""

import numpy as np

from bench_metric_learning import difference_interval


def test_the_interval_holds_the_difference() -> None:
    random = np.random.default_rng(0)
    first, second = random.random((3, 400)) < 0.9, random.random((3, 400)) < 0.8
    low, high = difference_interval(first, second)
    assert low < first.mean() - second.mean() < high
    assert low > 0.02


def test_queries_that_both_find_or_both_miss_add_no_doubt() -> None:
    random = np.random.default_rng(0)
    second = np.repeat(random.random((1, 1000)) < 0.5, 3, axis=0)
    first = second.copy()
    first[:, np.flatnonzero(~second[0])[:20]] = True  # 2% more, the same for each seed
    low, high = difference_interval(first, second)
    assert 0.01 < low < 0.02 < high < 0.03  # by chance alone each side's share would vary by 0.03


def test_seeds_that_disagree_widen_the_interval() -> None:
    queries = 2000
    first = np.zeros((3, queries), np.bool_)
    first[0], first[1, : queries // 2] = True, True  # 1, 0.5 and 0
    low, high = difference_interval(first, np.zeros((3, queries), np.bool_))
    assert low < 0.05
    assert high > 0.95
