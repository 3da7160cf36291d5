"""The learned comparison of two embeddings: what it computes, what it is pulled to, and that it can learn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from retrieval.calibration import PairHead, fit_calibration, fit_head
from retrieval.calibration.logistic import smoothed_targets

Rows = NDArray[np.float64]


def pairs_alike_in_two_dimensions(pairs: int = 800, dim: int = 6) -> tuple[Rows, Rows, NDArray[np.bool_]]:
    """Unit rows whose first two values are nearly equal where they match; the others are chance."""
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, pairs, dim))
    is_match = generator.random(pairs) < 0.4
    second[is_match, :2] = first[is_match, :2] + generator.normal(scale=0.1, size=(int(is_match.sum()), 2))
    return *(rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second)), is_match


def test_log_odds_worked_by_hand() -> None:
    # u = (1, 0), v = (0.6, 0.8): |u - v| = (0.4, 0.8), u * v = (0.6, 0). 0.4 * 1 + 0.8 * 2 + 0.6 * 3 - 1 = 2.8
    head = PairHead(np.array([1.0, 2.0, 3.0, 4.0]), offset=-1.0)
    first, second = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]])
    assert head.log_odds(first, second) == pytest.approx([2.8])
    assert head.probability(first, second) == pytest.approx([1 / (1 + np.exp(-2.8))])


def test_the_order_of_the_two_pictures_does_not_count() -> None:
    first, second, is_match = pairs_alike_in_two_dimensions()
    head = fit_head(first, second, is_match, fit_calibration((first * second).sum(1), is_match))
    assert np.array_equal(head.probability(first, second), head.probability(second, first))


def test_a_strong_pull_leaves_the_plain_distance() -> None:
    first, second, is_match = pairs_alike_in_two_dimensions()
    scores = (first * second).sum(axis=1)
    calibration = fit_calibration(scores, is_match)
    head = fit_head(first, second, is_match, calibration, ridge=1e9)
    np.testing.assert_allclose(head.probability(first, second), calibration.probability(scores), atol=1e-6)


def test_a_weak_pull_gives_what_scikit_learn_finds() -> None:
    first, second, is_match = pairs_alike_in_two_dimensions()
    joined = np.concatenate([np.abs(first - second), first * second], axis=1)
    targets = smoothed_targets(is_match)  # scikit-learn takes none between 0 and 1: each pair twice, weighted
    oracle = LogisticRegression(C=1e8, tol=1e-10, max_iter=5000).fit(
        np.concatenate([joined, joined]),
        np.repeat([1, 0], len(joined)),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )
    head = fit_head(first, second, is_match, fit_calibration((first * second).sum(1), is_match), ridge=1e-10)
    expected = oracle.predict_proba(joined)[:, 1]
    np.testing.assert_allclose(head.probability(first, second), expected, atol=1e-4)


def test_it_learns_which_values_tell() -> None:
    first, second, is_match = pairs_alike_in_two_dimensions()
    calibration = fit_calibration((first * second)[:400].sum(axis=1), is_match[:400])
    head = fit_head(first[:400], second[:400], is_match[:400], calibration, ridge=0.01)
    plain = calibration.probability((first * second)[400:].sum(axis=1))
    learned = head.probability(first[400:], second[400:])
    wrong = [np.mean((one > 0.5) != is_match[400:]) for one in (learned, plain)]
    assert wrong[0] < 0.6 * wrong[1]


def test_float32_embeddings_give_the_same_head() -> None:
    first, second, is_match = pairs_alike_in_two_dimensions()
    calibration = fit_calibration((first * second).sum(axis=1), is_match)
    wide, narrow = (fit_head(first.astype(kind), second.astype(kind), is_match, calibration) for kind in ("f8", "f4"))
    np.testing.assert_allclose(narrow.probability(first, second), wide.probability(first, second), atol=1e-4)


def test_rows_of_another_length_are_refused() -> None:
    head = PairHead(np.zeros(8), 0.0)
    with pytest.raises(ValueError, match="the head compares 4 values"):
        head.log_odds(np.zeros((1, 3)), np.zeros((1, 3)))
