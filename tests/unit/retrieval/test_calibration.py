"""From a score to a probability: the logistic fit, by hand, against scipy, and what must hold for any scores."""

import math

import numpy as np
import pytest
import scipy.optimize
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from retrieval.calibration import Calibration, fit_calibration
from retrieval.calibration.newton import fit_logistic


def overlapping(pairs: int = 400, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores of which those of matching pairs are higher, with much overlap."""
    generator = np.random.default_rng(seed)
    is_match = generator.random(pairs) < 0.3
    return generator.normal(np.where(is_match, 0.6, 0.4), 0.15), is_match


def test_two_scores_get_the_shares_seen_at_them() -> None:
    # Two parameters reproduce two shares exactly. Three of six pairs match, so Platt's targets are 4/5 and 1/5:
    # at score 0, one of three matches: (4/5 + 1/5 + 1/5) / 3 = 0.4; at score 1, two of three: 0.6.
    fitted = fit_calibration([0, 0, 0, 1, 1, 1], [True, False, False, True, True, False])
    assert fitted.probability([0.0, 1.0]) == pytest.approx([0.4, 0.6], abs=1e-7)
    assert (fitted.slope, fitted.offset) == pytest.approx((2 * np.log(1.5), -np.log(1.5)), abs=1e-6)
    assert (fitted.pairs, fitted.match_share, fitted.prior) == (6, 0.5, 0.5)


@pytest.mark.parametrize("prior", [None, 0.5, 0.05])
def test_the_fit_is_the_maximum_likelihood_that_scipy_finds(prior: float | None) -> None:
    scores, is_match = overlapping()
    matching, other = int(is_match.sum()), int((~is_match).sum())
    share = matching / len(scores) if prior is None else prior

    def loss(at: NDArray[np.float64]) -> float:
        total = 0.0
        for score, matches in zip(scores, is_match, strict=True):
            target = (matching + 1) / (matching + 2) if matches else 1 / (other + 2)
            weight = share / matching if matches else (1 - share) / other
            probability = 1 / (1 + np.exp(-(at[0] * score + at[1])))
            total -= weight * (target * np.log(probability) + (1 - target) * np.log(1 - probability))
        return total

    expected = scipy.optimize.minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-7}).x
    fitted = fit_calibration(scores, is_match, prior=prior)
    assert (fitted.slope, fitted.offset) == pytest.approx(tuple(expected), rel=1e-4)


def test_many_regularised_coefficients_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    features = generator.normal(size=(300, 12))
    targets = features @ generator.normal(size=12) + generator.normal(size=300) > 0
    ridge = 0.02
    oracle = LogisticRegression(C=1 / (ridge * 300), tol=1e-10, max_iter=1000).fit(features, targets)
    found = fit_logistic(features, targets.astype(float), np.full(300, 1 / 300), ridge=ridge)
    np.testing.assert_allclose(found, [*oracle.coef_[0], oracle.intercept_[0]], atol=1e-5)


def test_the_mean_probability_is_the_prior() -> None:
    scores, is_match = overlapping(2000)
    fitted = fit_calibration(scores, is_match)
    assert fitted.probability(scores).mean() == pytest.approx(is_match.mean(), abs=1e-3)  # but for Platt's targets


def test_shifting_all_scores_shifts_the_function_with_them() -> None:
    scores, is_match = overlapping()
    fitted, shifted = fit_calibration(scores, is_match), fit_calibration(scores + 0.25, is_match)
    np.testing.assert_allclose(shifted.probability(scores + 0.25), fitted.probability(scores), atol=1e-9)


def test_the_probability_never_falls_as_the_score_rises() -> None:
    fitted = fit_calibration(*overlapping())
    assert fitted.is_informative
    assert (np.diff(fitted.probability(np.linspace(-1, 1, 201))) > 0).all()


def test_scores_that_separate_perfectly_give_a_finite_slope() -> None:
    fitted = fit_calibration([0.1, 0.2, 0.3, 0.8, 0.9, 1.0], [False, False, False, True, True, True])
    assert np.isfinite(fitted.slope)
    assert fitted.probability([0.2])[0] < 0.25 < 0.75 < fitted.probability([0.9])[0]


@pytest.mark.parametrize(
    "scores", [np.full(6, 0.5), np.array([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])], ids=["all alike", "the wrong way round"]
)
def test_scores_that_say_nothing_leave_the_prior(scores: NDArray[np.float64]) -> None:
    fitted = fit_calibration(scores, [False, False, False, False, True, True])
    assert not fitted.is_informative
    assert fitted.probability([-1.0, 0.0, 1.0]) == pytest.approx([1 / 3] * 3)


def test_extreme_log_odds_are_probabilities_without_a_warning() -> None:
    steep = Calibration(slope=1e6, offset=0.0, prior=0.5, pairs=1, match_share=0.5)
    assert steep.probability([-1.0, 0.0, 1.0]).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("scores", "is_match", "prior", "said"),
    [
        ([0.1, 0.2, 0.3], [True, False], None, "must be \\(M,\\)"),
        ([0.1, np.nan], [True, False], None, "1 of 2 scores are not finite"),
        ([0.1, 0.2], [True, True], None, "2 of 2 pairs match"),
        ([], [], None, "0 of 0 pairs match"),
        ([0.1, 0.2], [True, False], 1.0, "prior is 1.0"),
    ],
)
def test_pairs_that_cannot_be_fitted_are_refused(
    scores: list[float], is_match: list[bool], prior: float | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        fit_calibration(scores, is_match, prior=prior)


@pytest.mark.parametrize("probability", [0.01, 0.5, 0.97])
def test_the_least_score_is_where_the_probability_is_reached(probability: float) -> None:
    fitted = fit_calibration(*overlapping())
    least = fitted.least_score(probability)
    assert fitted.probability(least) == pytest.approx(probability, abs=1e-9)
    assert fitted.least_score(0.0) == -math.inf
    assert fitted.least_score(1.0) == math.inf


def test_where_scores_say_nothing_either_all_are_probable_enough_or_none() -> None:
    flat = Calibration(0.0, math.log(0.3 / 0.7), 0.3, 10, 0.3)
    assert (flat.least_score(0.29), flat.least_score(0.31)) == (-math.inf, math.inf)
