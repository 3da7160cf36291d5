"""A network that embeds everything at one place is found out, and one that does not is not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.training.collapse import Spread, measure_spread


def unit_rows(count: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def two_places(squared_sine: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Two labels, each at its place, both the same angle from the middle between them."""
    across, along = np.sqrt(squared_sine), np.sqrt(1 - squared_sine)
    labels = np.arange(20) % 2
    return np.array([(across, along), (-across, along)], np.float32)[labels], labels


def test_two_places_worked_by_hand() -> None:
    # Each 0.6 from the middle between them, which is their centre: a mean square of 0.36; 1.2 from one another.
    spread = measure_spread(*two_places(0.36))
    assert spread.variance == pytest.approx(0.36)
    assert spread.random_distance == pytest.approx(1.2)


def test_the_variance_is_the_mean_squared_distance_from_the_centre() -> None:
    rows = unit_rows(30, 5) + np.float32(0.5)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    centre = [sum(float(row[column]) for row in rows) / 30 for column in range(5)]
    slow = sum(sum((float(x) - c) ** 2 for x, c in zip(row, centre, strict=True)) for row in rows) / 30
    assert measure_spread(rows, np.arange(30)).variance == pytest.approx(slow, abs=1e-6)


def test_the_random_distance_is_the_median_over_pictures_of_different_labels() -> None:
    rows, labels = unit_rows(40, 6), np.arange(40) % 4
    slow = [float(np.linalg.norm(rows[i] - rows[j])) for i in range(40) for j in range(40) if labels[i] != labels[j]]
    assert measure_spread(rows, labels).random_distance == pytest.approx(np.median(slow), abs=0.05)  # of a sample


def test_turning_all_embeddings_changes_nothing() -> None:
    rows, labels = unit_rows(50, 6), np.arange(50) % 5
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0].astype(np.float32)
    before, after = measure_spread(rows, labels), measure_spread(rows @ turn, labels)
    assert after.variance == pytest.approx(before.variance, abs=1e-6)
    assert after.random_distance == pytest.approx(before.random_distance, abs=1e-5)


def test_one_point_is_collapsed() -> None:
    spread = measure_spread(np.repeat(unit_rows(1, 64), 100, axis=0), np.arange(100) % 10)
    assert spread.is_collapsed
    assert spread.variance == pytest.approx(0.0, abs=1e-6)
    assert spread.random_distance == 0.0


@pytest.mark.parametrize("dim", [2, 32, 256])
def test_random_directions_are_not_collapsed(dim: int) -> None:
    spread = measure_spread(unit_rows(1000, dim), np.arange(1000) % 50)
    assert not spread.is_collapsed
    assert spread.variance == pytest.approx(1.0, abs=0.01)
    assert spread.random_distance == pytest.approx(np.sqrt(2), abs=0.1)


@pytest.mark.parametrize(("squared_sine", "is_collapsed"), [(0.005, True), (0.1, False)])
def test_a_narrow_cone_is_collapsed_and_a_wide_one_is_not(squared_sine: float, is_collapsed: bool) -> None:
    assert measure_spread(*two_places(squared_sine)).is_collapsed == is_collapsed


def test_classes_at_one_point_each_are_no_collapse() -> None:
    labels = np.arange(90) % 9
    assert not measure_spread(unit_rows(9, 16)[labels], labels).is_collapsed


def test_what_is_no_number_counts_as_collapsed() -> None:
    rows = unit_rows(10, 4)
    rows[3] = np.nan
    assert measure_spread(rows, np.arange(10) % 2).is_collapsed
    assert Spread(float("nan"), 1.0).is_collapsed


def test_with_one_label_there_is_no_random_distance() -> None:
    spread = measure_spread(unit_rows(10, 4), np.zeros(10, np.int64))
    assert np.isnan(spread.random_distance)
    assert not spread.is_collapsed
