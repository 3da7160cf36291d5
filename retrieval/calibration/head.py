"""Does a learned comparison of two embeddings beat their plain distance? A logistic head over the joined pair."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.calibration.logistic import Calibration, prior_weights, smoothed_targets
from retrieval.calibration.newton import fit_logistic, sigmoid

Vectors = NDArray[np.floating]
RIDGE = 0.3  # of the mean loss, on features of unit scale; docs/decisions/0017 has the measurement


@dataclass(frozen=True, eq=False)
class PairHead:
    """A logistic function of the joined pair [|u - v|, u * v]; the same for (u, v) and (v, u).

    Attributes:
        weights: (2D,) float64, of |u - v| and then of u * v. Zeros and then D times the slope of a `Calibration` are
            that calibration, since the sum of u * v is the cosine.
        offset: added to their sum.
    """

    weights: NDArray[np.float64]
    offset: float

    def log_odds(self, first: Vectors, second: Vectors) -> NDArray[np.float64]:
        """(M,) log odds that M pairs of (M, D) unit rows show the same product.

        Raises:
            ValueError: the rows do not have D values.
        """
        dim = len(self.weights) // 2
        if first.shape != second.shape or first.shape[-1] != dim:
            raise ValueError(f"pairs have shapes {first.shape} and {second.shape}; the head compares {dim} values")
        return np.abs(first - second) @ self.weights[:dim] + (first * second) @ self.weights[dim:] + self.offset

    def probability(self, first: Vectors, second: Vectors) -> NDArray[np.float64]:
        """(M,) probabilities of a match; takes and raises what `log_odds` does."""
        return sigmoid(self.log_odds(first, second))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"weights": self.weights.tolist(), "offset": self.offset}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PairHead":
        """Rebuild from `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or is not what it should be.
        """
        weights, offset = np.asarray(values["weights"], np.float64), float(values["offset"])
        if weights.ndim != 1 or len(weights) % 2 or not np.isfinite([*weights, offset]).all():
            raise ValueError(f"weights of shape {weights.shape} and offset {offset} are no head")
        return cls(weights, offset)


def fit_head(
    first: Vectors, second: Vectors, is_match: NDArray[np.bool_], calibration: Calibration, *, ridge: float = RIDGE
) -> PairHead:
    """Fit a head by L2-regularised logistic regression that is pulled to the plain distance, not to nothing.

    Where the pairs are too few to show better, the outcome is close to `calibration`.

    Args:
        first, second: (M, D) unit rows, the two sides of M pairs.
        is_match: (M,) bool, some of either kind.
        calibration: of the same pairs; the head is fitted for its prior.
        ridge: how strong the pull is; above 0.
    """
    joined = np.concatenate([np.abs(first - second), first * second], axis=1)
    dim = first.shape[1]
    scales = np.maximum(joined.std(axis=0), 1e-9).astype(np.float64)
    centres = joined.mean(axis=0).astype(np.float64)
    plain = np.concatenate([np.zeros(dim), np.full(dim, calibration.slope)])
    start = np.append(plain * scales, calibration.offset + plain @ centres)
    joined -= centres.astype(joined.dtype)
    joined /= scales.astype(joined.dtype)
    weights = prior_weights(is_match, calibration.prior)
    found = fit_logistic(joined, smoothed_targets(is_match), weights, ridge=ridge, start=start)
    coefficients = found[:-1] / scales
    return PairHead(coefficients, float(found[-1] - coefficients @ centres))
