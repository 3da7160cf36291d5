"""Do these two embeddings show the same product? One answer, with everything that can be said."""

import numpy as np

from retrieval.calibration.matching import Matcher
from retrieval.calibration.pairs import Vectors
from retrieval.errors import ModelError
from retrieval.results import MatchResult


def compare(
    vectors: Vectors,
    names: tuple[str | None, str | None],
    matcher: Matcher | None,
    model: str,
    false_accept_rate: float | None = None,
) -> MatchResult:
    """Compare two embeddings of one model.

    Args:
        vectors: (2, D), unit rows.
        names: of the two pictures, where they have one.
        matcher: what the model knows; None where it is not calibrated.
        model: its fingerprint.
        false_accept_rate: decide at the score that at most this share of different products reaches; None: do not.

    Raises:
        ModelError: a decision is wanted, and the model is not calibrated, or on too few pairs for this rate.
    """
    first, second = np.asarray(vectors, np.float64)
    score = min(float(first @ second), 1.0)
    threshold = None if false_accept_rate is None else _threshold(matcher, model, false_accept_rate)
    return MatchResult(
        a=names[0],
        b=names[1],
        score=score,
        distance=float(np.linalg.norm(first - second)),
        match_probability=None if matcher is None else float(matcher.probability(vectors[:1], vectors[1:])[0]),
        threshold=threshold,
        is_match=None if threshold is None else score >= threshold,
        model=model,
    )


def _threshold(matcher: Matcher | None, model: str, false_accept_rate: float) -> float:
    if matcher is None:
        raise ModelError(
            f"model {model[:8]} is not calibrated: no score stands for a false-accept rate of {false_accept_rate:g}; "
            "take one that `retrieve train` made, or leave --threshold out"
        )
    threshold = matcher.threshold(false_accept_rate)
    if threshold is None:
        lowest = min((one.false_accept_rate for one in matcher.held_out.thresholds), default=None)
        limit = "none at all" if lowest is None else f"{lowest:g} and above"
        raise ModelError(
            f"model {model[:8]} cannot be held to a false-accept rate of {false_accept_rate:g}: its held-out pictures "
            f"were enough for {limit}; choose such a rate, or train with more held-out pictures"
        )
    return threshold.score
