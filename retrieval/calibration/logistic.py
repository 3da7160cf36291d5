"""What probability does a score stand for? A logistic function of the cosine, fitted to labelled pairs."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.calibration.newton import fit_logistic, sigmoid

_RIDGE = 1e-9  # only keeps the slope of nearly constant scores finite; Platt's targets do the rest


@dataclass(frozen=True, slots=True)
class Calibration:
    """Turns the cosine of two embeddings into the probability that both pictures show the same product.

    The same function of the squared Euclidean distance, which is 2 - 2 * cosine. The probability is right for pairs
    drawn as those of the fit were, of which the share `prior` match; `fit_match` draws the hits of searches.

    Attributes:
        slope: of the log odds over the cosine; never below 0. At 0 every pair gets the probability `prior`.
        offset: the log odds at a cosine of 0.
        prior: the share of matching pairs for which the probability is right.
        pairs: that it was fitted on.
        match_share: the share of matching pairs among those.
    """

    slope: float
    offset: float
    prior: float
    pairs: int
    match_share: float

    @property
    def is_informative(self) -> bool:
        """Whether the score says anything: higher scores went with matches."""
        return self.slope > 0

    def log_odds(self, scores: ArrayLike) -> NDArray[np.float64]:
        """The logarithm of p / (1 - p) for cosines of any shape."""
        return self.slope * np.asarray(scores, np.float64) + self.offset

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """The probability of a match, in [0, 1], for cosines of any shape; it never falls as the cosine rises."""
        return sigmoid(self.log_odds(scores))

    def least_score(self, probability: float) -> float:
        """The cosine from which a match is at least so probable: -inf where it always is, inf where it never is."""
        with np.errstate(divide="ignore"):
            log_odds = float(np.log(probability) - np.log1p(-probability))
        if self.is_informative:
            return (log_odds - self.offset) / self.slope
        return -math.inf if self.offset >= log_odds else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """Rebuild from `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or is not what it should be.
        """
        slope, offset = float(values["slope"]), float(values["offset"])
        if not (math.isfinite(slope) and math.isfinite(offset) and slope >= 0):
            raise ValueError(f"slope {slope} and offset {offset} are no calibration")
        return cls(slope, offset, float(values["prior"]), int(values["pairs"]), float(values["match_share"]))


def fit_calibration(scores: ArrayLike, is_match: ArrayLike, *, prior: float | None = None) -> Calibration:
    """Fit a calibration to labelled pairs by maximum likelihood.

    Where higher scores do not go with matches, the outcome has slope 0 and says `prior` for every pair. The targets
    are not 0 and 1 but Platt's, which keeps the slope finite where one score separates matches from the rest.

    Args:
        scores: (M,) cosines.
        is_match: (M,) bool, whether the pair shows one product.
        prior: the share of matching pairs to fit for: pairs are weighted to it. None: as many as the sample has.

    Raises:
        ValueError: the two disagree on M, a score is not finite, no pair matches or all do, or `prior` is not
            between 0 and 1.

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines"; Lin, Lin and Weng 2007, "A Note on
    Platt's Probabilistic Outputs for Support Vector Machines".
    """
    values, matches = checked_pairs(scores, is_match)
    share = float(matches.mean())
    wanted = share if prior is None else prior
    weights = prior_weights(matches, wanted)
    centre, spread = float(values.mean()), float(values.std())
    slope, offset = 0.0, _log_odds_of(wanted)
    if spread > 1e-12:
        standardised = ((values - centre) / spread)[:, np.newaxis]
        steepness, level = fit_logistic(standardised, smoothed_targets(matches), weights, ridge=_RIDGE).tolist()
        if steepness > 0:
            slope, offset = steepness / spread, level - steepness * centre / spread
    return Calibration(slope, offset, wanted, len(values), share)


def smoothed_targets(is_match: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(M,) Platt's targets: (m + 1) / (m + 2) for each of m matching pairs, 1 / (n + 2) for each of n others."""
    matching = int(is_match.sum())
    return np.where(is_match, (matching + 1) / (matching + 2), 1 / (len(is_match) - matching + 2))


def prior_weights(is_match: NDArray[np.bool_], prior: float) -> NDArray[np.float64]:
    """(M,) weights that sum to 1, of which matching pairs have the share `prior`.

    Raises:
        ValueError: `prior` is not between 0 and 1.
    """
    if not 0 < prior < 1:
        raise ValueError(f"prior is {prior}; the share of matching pairs must lie between 0 and 1")
    matching = int(is_match.sum())
    return np.where(is_match, prior / matching, (1 - prior) / (len(is_match) - matching))


def checked_pairs(scores: ArrayLike, is_match: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Both as (M,) arrays.

    Raises:
        ValueError: they disagree on M, a score is not finite, no pair matches, or all do.
    """
    values, matches = np.asarray(scores, np.float64), np.asarray(is_match, bool)
    if values.ndim != 1 or values.shape != matches.shape:
        raise ValueError(f"scores have shape {values.shape}, is_match {matches.shape}; both must be (M,)")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {len(values)} scores are not finite")
    if not 0 < matches.sum() < len(matches):
        raise ValueError(
            f"{int(matches.sum())} of {len(matches)} pairs match; a calibration needs some that do and some that do not"
        )
    return values, matches


def _log_odds_of(probability: float) -> float:
    return math.log(probability / (1 - probability))
