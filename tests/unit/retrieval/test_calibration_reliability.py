"""Whether probabilities are right, and the scores for false-accept rates: by hand, against loops, and properties."""

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.calibration import expected_calibration_error, reliability_bins, threshold_at


def guessed(pairs: int = 500, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    generator = np.random.default_rng(seed)
    probabilities = generator.random(pairs)
    return probabilities, generator.random(pairs) < probabilities**2


def test_the_error_of_two_bins_worked_by_hand() -> None:
    # (0, 0.5]: 0.1 and 0.3, one of two matches: |0.2 - 0.5| = 0.3, weight 2/5.
    # (0.5, 1]: 0.6, 0.9 and 0.9, all match:     |0.8 - 1.0| = 0.2, weight 3/5. Together 0.24.
    probabilities, is_match = [0.1, 0.3, 0.6, 0.9, 0.9], [False, True, True, True, True]
    assert expected_calibration_error(probabilities, is_match, bins=2) == pytest.approx(0.24)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_the_error_equals_a_loop_over_bins(bins: int) -> None:
    probabilities, is_match = guessed()
    expected = 0.0
    for number in range(bins):
        inside = [
            (probability, matches)
            for probability, matches in zip(probabilities, is_match, strict=True)
            if number / bins < probability <= (number + 1) / bins
        ]
        if inside:
            gap = abs(sum(one for one, _ in inside) - sum(matches for _, matches in inside)) / len(inside)
            expected += len(inside) / len(probabilities) * gap
    assert expected_calibration_error(probabilities, is_match, bins) == pytest.approx(expected, abs=1e-12)


def test_the_order_of_the_pairs_does_not_count() -> None:
    probabilities, is_match = guessed()
    order = np.random.default_rng(1).permutation(len(probabilities))
    shuffled = expected_calibration_error(probabilities[order], is_match[order])
    assert shuffled == pytest.approx(expected_calibration_error(probabilities, is_match), abs=1e-12)


def test_certainty_that_is_right_has_no_error() -> None:
    assert expected_calibration_error([0.0, 1.0, 1.0, 0.0], [False, True, True, False]) == 0


def test_a_probability_on_an_edge_belongs_to_the_bin_below_and_0_to_the_first() -> None:
    bins = reliability_bins([0.0, 0.5, 1.0], [False, False, True], bins=2)
    assert [(one.lower, one.upper, one.pairs) for one in bins] == [(0.0, 0.5, 2), (0.5, 1.0, 1)]


def test_bins_without_a_pair_are_left_out() -> None:
    assert [one.lower for one in reliability_bins([0.05, 0.95], [False, True], bins=10)] == [0.0, 0.9]


@pytest.mark.parametrize(
    ("probabilities", "is_match", "said"),
    [
        ([], [], "M at least 1"),
        ([0.1, 0.2], [True], "must be one"),
        ([0.1, 1.2], [True, False], "must lie in"),
        ([0.1, np.nan], [True, False], "must lie in"),
    ],
)
def test_what_are_no_probabilities_is_refused(probabilities: list[float], is_match: list[bool], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        reliability_bins(probabilities, is_match)


def test_the_threshold_lies_just_above_the_first_pair_too_many() -> None:
    # Ten others 0.0 to 0.9; a rate of 0.3 accepts three: 0.7, 0.8, 0.9. Of the matches, 0.65 and 0.95, one is accepted.
    scores = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.65, 0.95]
    threshold = threshold_at(0.3, scores, [False] * 10 + [True] * 2)
    assert 0.6 < threshold.score <= 0.65
    assert (threshold.false_accept_rate, threshold.true_accept_rate) == (0.3, 1.0)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_no_lower_score_keeps_the_rate(rate: float) -> None:
    generator = np.random.default_rng(2)
    scores, is_match = np.round(generator.normal(size=600), 2), generator.random(600) < 0.3  # rounded: many ties
    threshold = threshold_at(rate, scores, is_match)
    others = scores[~is_match]
    assert sum(score >= threshold.score for score in others) / len(others) <= rate
    below = max(score for score in others if score < threshold.score)
    assert sum(score >= below for score in others) / len(others) > rate
    accepted = [score >= threshold.score for score in scores[is_match]]
    assert threshold.true_accept_rate == pytest.approx(sum(accepted) / len(accepted))


def test_pairs_of_equal_score_are_accepted_together_or_not_at_all() -> None:
    threshold = threshold_at(0.3, [0.5] * 10 + [0.5, 0.6], [False] * 10 + [True] * 2)
    assert 0.5 < threshold.score <= 0.6
    assert threshold.true_accept_rate == 0.5


def test_shifting_all_scores_shifts_the_threshold() -> None:
    generator = np.random.default_rng(3)
    scores, is_match = generator.random(400), generator.random(400) < 0.5
    before, after = (threshold_at(0.1, scores + shift, is_match) for shift in (0.0, 0.125))
    assert after.score == pytest.approx(before.score + 0.125, abs=1e-12)
    assert after.true_accept_rate == before.true_accept_rate


def test_a_rate_that_so_few_pairs_cannot_show_is_refused() -> None:
    with pytest.raises(ValueError, match=r"299 pairs that do not match .* 300 are needed"):
        threshold_at(0.01, np.linspace(0, 1, 300), [True] + [False] * 299)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        threshold_at(rate, [0.1, 0.2], [True, False])
