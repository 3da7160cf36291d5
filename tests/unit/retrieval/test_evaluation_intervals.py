"""Intervals cover what they should, and the paired test is the binomial one."""

import numpy as np
import pytest

from retrieval.evaluation.intervals import bootstrap_intervals, mcnemar_p


def test_the_interval_of_a_mean_is_near_its_normal_one() -> None:
    """400 values of which 100 are 1: mean 0.25, standard error sqrt(0.25 * 0.75 / 400) = 0.02165, times 1.96."""
    values = np.repeat([1.0, 0.0], [100, 300])[:, np.newaxis]
    ((low, high),) = bootstrap_intervals(values)
    assert low == pytest.approx(0.25 - 1.96 * 0.02165, abs=0.004)
    assert high == pytest.approx(0.25 + 1.96 * 0.02165, abs=0.004)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    intervals = [bootstrap_intervals(generator.random((60, 1)), resamples=300, seed=seed)[0] for seed in range(200)]
    covered = np.mean([low <= 0.5 <= high for low, high in intervals])
    assert 0.88 <= covered <= 0.99  # 0.95, give or take three standard errors of 200 trials and of 300 resamples


def test_the_interval_equals_that_of_a_plain_loop_over_the_same_draws() -> None:
    values = np.random.default_rng(1).random((30, 2))
    generator = np.random.default_rng(7)
    means = []
    for _ in range(50):
        drawn = [values[row] for row in generator.integers(0, 30, 30)]
        means.append(sum(drawn) / 30)
    expected = np.quantile(np.array(means), [0.025, 0.975], axis=0).T
    np.testing.assert_allclose(bootstrap_intervals(values, resamples=50, seed=7), expected)


def test_a_paired_difference_is_narrower_than_the_two_intervals_apart() -> None:
    """Two models that differ at 5 of 200 queries: what they share cancels."""
    first = np.random.default_rng(2).integers(0, 2, 200).astype(float)
    second = first.copy()
    second[np.flatnonzero(first == 0)[:5]] = 1
    (low, high), _ = bootstrap_intervals(np.stack([second - first, first], axis=1))
    assert 0 < low < 5 / 200 < high < 0.06
    assert np.ptp(bootstrap_intervals(first[:, np.newaxis])) > 0.12


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(3).random((20, 1))
    one, again, other = (bootstrap_intervals(values, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_one_query_is_an_interval_of_one_point() -> None:
    assert bootstrap_intervals(np.array([[0.4]])).tolist() == [[0.4, 0.4]]


@pytest.mark.parametrize("shape", [(0, 3), (4,)])
def test_no_values_have_no_interval(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="S at least 1 is needed"):
        bootstrap_intervals(np.zeros(shape))


def outcomes(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_mcnemar_by_hand() -> None:
    """1 of 6 discordant queries falls to the second: 2 * (1 + 6) / 2^6 = 14/64."""
    assert mcnemar_p(*outcomes(10, 5, 1, 3)) == pytest.approx(14 / 64)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (0, 9), (4, 4), (31, 17), (600, 700)])
def test_mcnemar_equals_the_binomial_test(only_first: int, only_second: int) -> None:
    from scipy.stats import binomtest

    total = only_first + only_second
    expected = binomtest(only_first, total).pvalue if total else 1.0
    assert mcnemar_p(*outcomes(3, only_first, only_second, 2)) == pytest.approx(expected, rel=1e-9)


def test_thousands_of_discordant_queries_do_not_overflow() -> None:
    assert 0 <= mcnemar_p(*outcomes(0, 2_000, 9_000, 0)) < 1e-300


def test_outcomes_of_different_queries_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\) given"):
        mcnemar_p([True, False], [True, False, True])
