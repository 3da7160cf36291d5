"""How is a logistic regression fitted? By Newton's method, its linear systems solved by conjugate gradients."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

_NEWTON_STEPS = 100  # 5 to 15 are usual
_CG_STEPS = 200
_SLOPE_LEFT = 1e-10  # of the mean loss, on features of unit scale; ten roundings where that is more
_HALVINGS = 40


def sigmoid(logits: Floats) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow at either end."""
    return 0.5 + 0.5 * np.tanh(np.asarray(logits, np.float64) / 2)


def log_losses(logits: Floats, targets: Floats) -> NDArray[np.float64]:
    """(M,) cross-entropy, in nats, of targets in [0, 1] under the probabilities `sigmoid(logits)`."""
    wide = np.asarray(logits, np.float64)
    return np.logaddexp(0, wide) - targets * wide


def fit_logistic(
    features: Floats, targets: Floats, weights: Floats, *, ridge: float, start: Floats | None = None
) -> NDArray[np.float64]:
    """The coefficients with the least penalised loss: sum(weights * log loss) + ridge / 2 * |w - start|^2.

    Args:
        features: (M, F), of about unit scale.
        targets: (M,) in [0, 1].
        weights: (M,) of the rows, summing to 1.
        ridge: above 0.
        start: (F + 1,) where the search starts, and what the penalty pulls to; zeros where None.

    Returns:
        (F + 1,): one coefficient a feature, then the offset, which is not penalised.

    Source: Lin, Weng and Keerthi 2008, "Trust Region Newton Method for Large-Scale Logistic Regression"; with a line
    search in place of the trust region.
    """
    origin = np.zeros(features.shape[1] + 1) if start is None else np.asarray(start, np.float64)
    pull = np.append(np.full(features.shape[1], ridge), 0.0)
    enough = max(_SLOPE_LEFT, 10 * float(np.finfo(features.dtype).eps))

    def loss(at: NDArray[np.float64]) -> float:
        penalty = pull @ (at - origin) ** 2 / 2
        return float(weights @ log_losses(_logits(features, at), targets) + penalty)

    found, lowest = origin, loss(origin)
    for _ in range(_NEWTON_STEPS):
        probabilities = sigmoid(_logits(features, found))
        gradient = _back(features, weights * (probabilities - targets)) + pull * (found - origin)
        if np.abs(gradient).max() < enough:
            break
        curvature = weights * probabilities * (1 - probabilities)
        step = _newton_step(features, curvature, pull, gradient)
        for halving in range(_HALVINGS):
            candidate = found + step / 2**halving
            if (there := loss(candidate)) < lowest:
                found, lowest = candidate, there
                break
        else:  # no step lowers it any more: this is the minimum, to rounding
            break
    return found


def _newton_step(
    features: Floats, curvature: NDArray[np.float64], pull: NDArray[np.float64], gradient: NDArray[np.float64]
) -> NDArray[np.float64]:
    """To where the parabola that touches the loss has its minimum."""

    def bend(along: NDArray[np.float64]) -> NDArray[np.float64]:
        return _back(features, curvature * _logits(features, along)) + pull * along

    return _conjugate_gradients(bend, -gradient)


def _logits(features: Floats, at: NDArray[np.float64]) -> NDArray[np.float64]:
    products: NDArray[np.float64] = np.asarray(features @ at[:-1].astype(features.dtype), np.float64)
    return products + float(at[-1])


def _back(features: Floats, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The transpose of `_logits`: (M,) -> (F + 1,)."""
    return np.append(rows.astype(features.dtype) @ features, rows.sum())


def _conjugate_gradients(
    apply: Callable[[NDArray[np.float64]], NDArray[np.float64]], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve apply(x) = wanted for a symmetric positive definite `apply`, the better the nearer the minimum is.

    To min(0.1, sqrt(|wanted|)) of |wanted|: Nocedal and Wright 2006, "Numerical Optimization", section 7.1.
    """
    found = np.zeros_like(wanted)
    residual, direction = wanted, wanted
    square = float(residual @ residual)
    enough = square * min(0.01, square**0.5)
    for _ in range(_CG_STEPS):
        bent = apply(direction)
        curvature = float(direction @ bent)
        if curvature <= 0:  # flat to rounding: what was found so far still goes downhill
            return found if found.any() else wanted
        length = square / curvature
        found, residual = found + length * direction, residual - length * bent
        before, square = square, float(residual @ residual)
        if square <= enough:
            break
        direction = residual + square / before * direction
    return found
