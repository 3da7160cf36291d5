"""What is learned from held-out pictures: halves without a common product, true figures, a head that must earn it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.calibration import Matcher, expected_calibration_error, fit_match, matching, sample_hits
from retrieval.calibration.matching import HeadTrial

Rows = NDArray[np.float32]


def catalogue(
    products: int, pictures: int, noise: float = 0.7, dim: int = 16, telling: int = 16, seed: int = 0
) -> tuple[Rows, NDArray[np.int64]]:
    """Unit rows around one centre a product, of which only the first `telling` values tell products apart."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(products), pictures)
    rows = generator.normal(size=(products, dim))[labels]
    rows[:, telling:] = generator.normal(size=(len(labels), dim - telling))
    rows += noise * generator.normal(size=rows.shape) * (np.arange(dim) < telling)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def fitted(embeddings: Rows, labels: NDArray[np.int64]) -> Matcher:
    matcher = fit_match(embeddings, labels, seed=0)
    assert matcher is not None
    return matcher


def test_of_hits_on_new_products_the_predicted_share_matches() -> None:
    matcher = fitted(*catalogue(300, 4))
    new = sample_hits(*catalogue(150, 4, seed=1), seed=0)  # as large as one half
    assert expected_calibration_error(matcher.calibration.probability(new.scores), new.is_match) < 0.03
    assert matcher.held_out.expected_calibration_error < 0.03


def test_no_product_is_both_fitted_on_and_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = catalogue(40, 3)
    seen: list[set[int]] = []

    def spy(rows: Rows, codes: NDArray[np.int64], **options: int) -> object:
        seen.append(set(codes.tolist()))
        return sample_hits(rows, codes, **options)

    monkeypatch.setattr(matching, "sample_hits", spy)
    fit_match(embeddings, labels, seed=0)
    assert [len(half) for half in seen] == [20, 20]
    assert not seen[0] & seen[1]


def test_rotating_all_embeddings_changes_no_probability_of_a_score() -> None:
    embeddings, labels = catalogue(60, 3)
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(16, 16)))[0].astype(np.float32)
    before, after = fitted(embeddings, labels).calibration, fitted(embeddings @ turn, labels).calibration
    assert after.probability([0.2, 0.5, 0.8]) == pytest.approx(before.probability([0.2, 0.5, 0.8]), abs=1e-3)


def test_the_names_of_the_labels_do_not_count() -> None:
    embeddings, labels = catalogue(60, 3)
    assert fitted(embeddings, labels).to_dict() == fitted(embeddings, labels * 7 + 3).to_dict()


def test_a_head_that_sees_what_the_distance_cannot_is_kept() -> None:
    matcher = fitted(*catalogue(300, 4, noise=0.1, telling=4))
    assert matcher.trial is not None
    assert matcher.trial.is_won
    assert matcher.head is not None


def test_a_head_that_learned_chance_is_dropped() -> None:
    embeddings, labels = catalogue(30, 2, dim=200, telling=200)  # 400 coefficients, 300 hits
    matcher = fitted(embeddings, labels)
    assert matcher.trial is not None
    assert not matcher.trial.is_won
    assert matcher.head is None


def test_a_head_is_not_tried_on_fewer_hits_of_either_kind_than_a_fit_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MAX_HEAD_PAIRS", 2 * matching.MIN_PAIRS - 1)
    matcher = fitted(*catalogue(300, 4, noise=0.1, telling=4))
    assert (matcher.trial, matcher.head) == (None, None)
    assert Matcher.from_dict(matcher.to_dict()).to_dict() == matcher.to_dict()


def test_a_gain_within_its_standard_error_wins_nothing() -> None:
    assert HeadTrial(log_loss=0.3, gain=0.02, standard_error=0.01).is_won
    assert not HeadTrial(log_loss=0.3, gain=0.01, standard_error=0.01).is_won
    assert not HeadTrial(log_loss=0.3, gain=-0.02, standard_error=0.01).is_won


def test_the_probability_is_the_heads_if_there_is_one() -> None:
    embeddings, labels = catalogue(300, 4, noise=0.1, telling=4)
    matcher = fitted(embeddings, labels)
    first, second = embeddings[:50], embeddings[1:51]
    assert matcher.head is not None
    assert np.array_equal(matcher.probability(first, second), matcher.head.probability(first, second))


def test_the_probability_is_the_scores_if_there_is_no_head() -> None:
    embeddings, labels = catalogue(30, 2, dim=200, telling=200)
    matcher = fitted(embeddings, labels)
    first, second = embeddings[:50], embeddings[1:51]
    expected = matcher.calibration.probability((first * second).sum(axis=1))
    assert np.array_equal(matcher.probability(first, second), expected)


def test_an_encoder_that_is_always_right_is_calibrated_on_hits_further_down() -> None:
    embeddings, labels = catalogue(8, 30, noise=0.01)  # all of the first ten hits are right, among 29 that could be
    matcher = fitted(embeddings, labels)
    assert matcher.calibration.is_informative
    assert matcher.calibration.probability([0.99])[0] > 0.9


@pytest.mark.parametrize(
    ("products", "pictures"), [(0, 0), (1, 10), (3, 10), (50, 1), (4, 2)], ids=lambda count: str(count)
)
def test_too_few_pairs_give_nothing(products: int, pictures: int) -> None:
    embeddings, labels = catalogue(products, pictures)
    assert fit_match(embeddings, labels, seed=0) is None


def test_thresholds_are_stricter_for_lower_rates() -> None:
    thresholds = fitted(*catalogue(300, 4)).held_out.thresholds
    assert [one.false_accept_rate for one in thresholds] == [0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001]
    assert (np.diff([one.score for one in thresholds]) > 0).all()
    assert (np.diff([one.true_accept_rate for one in thresholds]) <= 0).all()


def test_rates_that_few_pairs_cannot_show_are_left_out() -> None:
    rates = [one.false_accept_rate for one in fitted(*catalogue(30, 2)).held_out.thresholds]
    assert rates[0] == 0.1
    assert 0.001 not in rates  # 15 products of two pictures make 420 pairs that do not match; 3,000 are needed


def test_a_rate_in_between_gets_the_threshold_of_the_next_lower_one() -> None:
    matcher = fitted(*catalogue(300, 4))
    between, measured = matcher.threshold(0.03), matcher.threshold(0.02)
    assert between == measured
    assert measured is not None
    assert measured.false_accept_rate == 0.02


def test_a_rate_below_all_measured_ones_has_no_threshold() -> None:
    assert fitted(*catalogue(300, 4)).threshold(0.0001) is None


@pytest.mark.parametrize("telling", [4, 16], ids=["with a head", "without"])
def test_a_matcher_survives_json(telling: int) -> None:
    matcher = fitted(*catalogue(100, 3, telling=telling))
    assert Matcher.from_dict(matcher.to_dict()).to_dict() == matcher.to_dict()
