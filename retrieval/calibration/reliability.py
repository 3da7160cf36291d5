"""Are the probabilities right? Predicted against observed, bin by bin, and the scores for false-accept rates."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from retrieval.calibration.logistic import checked_pairs

PAIRS_PER_RATE = 3  # "rule of three": none accepted among 3 / r pairs means a rate below r, at 95% confidence


class ReliabilityBin(NamedTuple):
    """The pairs whose probability lies in one stretch of [0, 1].

    Attributes:
        lower, upper: its ends; `upper` belongs to it, and so does 0 to the first.
        predicted: their mean probability.
        observed: the share of them that match.
        pairs: how many there are.
    """

    lower: float
    upper: float
    predicted: float
    observed: float
    pairs: int


class Threshold(NamedTuple):
    """The score from which two pictures are taken for the same product.

    Attributes:
        false_accept_rate: the share of pairs of different products that reach the score, at most.
        score: the cosine; a pair that has it or more is accepted.
        true_accept_rate: the share of matching pairs that are accepted.
    """

    false_accept_rate: float
    score: float
    true_accept_rate: float


def reliability_bins(probabilities: ArrayLike, is_match: ArrayLike, bins: int = 15) -> tuple[ReliabilityBin, ...]:
    """Sort pairs into bins of equal width by their probability; bins without a pair are left out.

    Args:
        probabilities: (M,) in [0, 1].
        is_match: (M,) bool.
        bins: at least 1.

    Raises:
        ValueError: shapes disagree, there is no pair, or a probability lies outside [0, 1].

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    predicted, matches = np.asarray(probabilities, np.float64), np.asarray(is_match, bool)
    if predicted.ndim != 1 or predicted.shape != matches.shape or not len(predicted):
        raise ValueError(f"shapes {predicted.shape} and {matches.shape} must be one (M,), M at least 1")
    if not ((predicted >= 0) & (predicted <= 1)).all():
        raise ValueError(f"probabilities reach from {predicted.min()} to {predicted.max()}; they must lie in [0, 1]")
    edges = np.linspace(0, 1, bins + 1)
    places = np.maximum(np.searchsorted(edges, predicted, side="left") - 1, 0)
    counts = np.bincount(places, minlength=bins)
    predictions = np.bincount(places, predicted, bins)
    observations = np.bincount(places, matches, bins)
    return tuple(
        ReliabilityBin(
            lower=float(edges[at]),
            upper=float(edges[at + 1]),
            predicted=float(predictions[at] / counts[at]),
            observed=float(observations[at] / counts[at]),
            pairs=int(counts[at]),
        )
        for at in np.flatnonzero(counts)
    )


def expected_calibration_error(probabilities: ArrayLike, is_match: ArrayLike, bins: int = 15) -> float:
    """How far the probabilities are from the observed shares: the gaps of `reliability_bins`, averaged over the pairs.

    Takes and raises what `reliability_bins` does. In [0, 1]; 0 is perfect.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    occupied = reliability_bins(probabilities, is_match, bins)
    total = sum(one.pairs for one in occupied)
    return sum(one.pairs / total * abs(one.predicted - one.observed) for one in occupied)


def threshold_at(false_accept_rate: float, scores: ArrayLike, is_match: ArrayLike) -> Threshold:
    """The lowest score that accepts at most this share of the pairs that do not match.

    Pairs of equal score are accepted together or not at all, so the share that is accepted may be lower.

    Args:
        false_accept_rate: in (0, 1).
        scores: (M,) cosines.
        is_match: (M,) bool.

    Raises:
        ValueError: a rate outside (0, 1), too few pairs that do not match to measure it (`PAIRS_PER_RATE`), or as
            `fit_calibration` says.
    """
    values, matches = checked_pairs(scores, is_match)
    if not 0 < false_accept_rate < 1:
        raise ValueError(f"false_accept_rate is {false_accept_rate}; it must lie between 0 and 1")
    others = np.sort(values[~matches])[::-1]
    needed = pairs_needed(false_accept_rate)
    if len(others) < needed:
        raise ValueError(
            f"{len(others)} pairs that do not match cannot show a false-accept rate of {false_accept_rate}; "
            f"{needed} are needed"
        )
    accepted = math.floor(false_accept_rate * len(others) + 1e-9)  # 0.29 * 100 is 28.999999999999996
    score = float(np.nextafter(others[accepted], np.inf))
    return Threshold(false_accept_rate, score, float((values[matches] >= score).mean()))


def pairs_needed(false_accept_rate: float) -> int:
    """How many pairs that do not match it takes to measure a false-accept rate."""
    return math.ceil(PAIRS_PER_RATE / false_accept_rate - 1e-9)
