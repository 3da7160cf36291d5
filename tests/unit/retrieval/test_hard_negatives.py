"""Negatives mined through an index are those that a loop over all pairs finds, and look-alikes are set aside."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.training import hard_negatives
from retrieval.training.hard_negatives import mine_from_index


def unit_rows(count: int, dim: int = 8, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def on_a_circle(*degrees: float) -> NDArray[np.float32]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def slowly_mined(
    embeddings: NDArray[np.float32], labels: list[int], window: tuple[int, int], duplicate_score: float = np.inf
) -> tuple[list[list[int]], set[tuple[int, int]]]:
    """Rows and suspects by a loop over all pairs."""
    first, last = window
    mined, suspects = [], set()
    for row, label in enumerate(labels):
        scores = [
            (-float(embeddings[row] @ embeddings[other]), other)
            for other in range(len(labels))
            if labels[other] != label
        ]
        suspects |= {(min(row, other), max(row, other)) for score, other in scores if -score >= duplicate_score}
        ranked = [other for score, other in sorted(scores) if -score < duplicate_score][first:last]
        mined.append(ranked + [-1] * (last - first - len(ranked)))
    return mined, suspects


def assert_equal_but_for_ties(found: NDArray[np.int64], expected: list[list[int]], rows: NDArray[np.float32]) -> None:
    """The same pictures in the same places; such as score alike to within the index's rounding may change theirs."""
    assert found.dtype == np.int64
    wanted = np.array(expected)
    np.testing.assert_array_equal(found >= 0, wanted >= 0)
    scores, wanted_scores = (np.einsum("nd,nwd->nw", rows, rows[each]) for each in (found, wanted))
    np.testing.assert_allclose(np.where(found >= 0, scores, 0), np.where(wanted >= 0, wanted_scores, 0), atol=1e-3)
    for mined in found:
        there = mined[mined >= 0]
        assert len(set(there.tolist())) == len(there)


def test_a_window_worked_by_hand() -> None:
    # From 0 degrees, of other labels: 20 (row 3), 30 (row 4), 50 (row 2), 90 (row 5); its own, at 10, does not count.
    embeddings = on_a_circle(0, 10, 50, 20, 30, 90)
    mined = mine_from_index(embeddings, np.array([0, 0, 1, 2, 1, 3]), window=(1, 3))
    assert mined.rows[0].tolist() == [4, 2]


@pytest.mark.parametrize("window", [(0, 1), (0, 5), (2, 6), (7, 9), (0, 60)])
@pytest.mark.parametrize("classes", [2, 7, 40])
def test_mined_rows_equal_a_slow_loop(window: tuple[int, int], classes: int) -> None:
    embeddings = unit_rows(40, seed=classes)
    labels = np.random.default_rng(classes).integers(0, classes, 40)

    mined = mine_from_index(embeddings, labels, window=window)

    assert_equal_but_for_ties(mined.rows, slowly_mined(embeddings, labels.tolist(), window)[0], embeddings)
    assert not any(labels[row] in labels[mined.rows[row][mined.rows[row] >= 0]] for row in range(40))
    assert mined.suspects == []


def test_blocks_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = unit_rows(40), np.arange(40) % 9
    whole = mine_from_index(embeddings, labels, window=(0, 6)).rows
    monkeypatch.setattr(hard_negatives, "_ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(mine_from_index(embeddings, labels, window=(0, 6)).rows, whole)


def test_a_class_larger_than_the_window_does_not_hide_the_others() -> None:
    # Thirty of one class within 3 degrees, three of another a quarter of the circle away.
    embeddings = on_a_circle(*np.linspace(0, 3, 30), 90, 91, 92)
    mined = mine_from_index(embeddings, np.repeat([0, 1], [30, 3]), window=(0, 3))
    assert mined.rows[29].tolist() == [30, 31, 32]
    assert mined.rows[30].tolist() == [29, 28, 27]


def test_where_there_are_fewer_negatives_than_the_window_holds_the_rest_is_empty() -> None:
    mined = mine_from_index(on_a_circle(0, 10, 40, 60), np.array([0, 0, 0, 1]), window=(0, 3))
    assert mined.rows.tolist() == [[3, -1, -1], [3, -1, -1], [3, -1, -1], [2, 1, 0]]


def test_one_class_alone_has_no_negatives() -> None:
    mined = mine_from_index(unit_rows(5), np.zeros(5, np.int64), window=(0, 2), duplicate_share=1.0)
    assert mined.rows.tolist() == [[-1, -1]] * 5
    assert mined.suspects == []


# Probable label errors


def test_a_look_alike_of_another_label_is_reported_once_and_is_nobodys_negative() -> None:
    embeddings, labels = unit_rows(20), np.arange(20) % 5
    embeddings[13] = embeddings[2]  # labels 3 and 2

    mined = mine_from_index(embeddings, labels, window=(0, 4), duplicate_share=0.01)

    ((row, other, score),) = [(each.row, each.other, each.score) for each in mined.suspects]
    assert (row, other) == (2, 13)
    assert score == pytest.approx(1.0, abs=1e-3)
    assert 13 not in mined.rows[2]
    assert 2 not in mined.rows[13]
    assert_equal_but_for_ties(mined.rows, slowly_mined(embeddings, labels.tolist(), (0, 4), 0.99)[0], embeddings)


def test_a_look_alike_stays_a_negative_of_the_others() -> None:
    # Rows 0 and 1 show the same; row 2, of a third label, may still learn from both.
    mined = mine_from_index(on_a_circle(0, 0, 60, 90), np.array([0, 1, 2, 3]), window=(0, 3), duplicate_share=0.01)
    assert set(mined.rows[2].tolist()) == {0, 1, 3}


def test_two_of_one_label_that_look_the_same_are_no_error() -> None:
    mined = mine_from_index(on_a_circle(0, 0, 60), np.array([0, 0, 1]), window=(0, 1), duplicate_share=0.01)
    assert mined.suspects == []


def test_without_a_share_nothing_is_set_aside() -> None:
    mined = mine_from_index(on_a_circle(0, 0, 60), np.arange(3), window=(0, 1), duplicate_share=0.0)
    assert mined.suspects == []
    assert mined.rows[:2].tolist() == [[1], [0]]


def test_suspects_are_reported_most_alike_first() -> None:
    # Of seven pictures around the circle, neighbours are 8, 2 and 5 degrees apart: 1 - cos is 0.0097, 0.0006, 0.0038.
    # Two random ones are some 90 degrees apart, 1 - cos is about 1: 2 percent of it is more than each.
    embeddings = on_a_circle(0, 8, 90, 92, 180, 185, 270)
    mined = mine_from_index(embeddings, np.arange(7), window=(0, 2), duplicate_share=0.02)
    assert [(each.row, each.other) for each in mined.suspects] == [(2, 3), (4, 5), (0, 1)]
    assert [each.score for each in mined.suspects] == pytest.approx(np.cos(np.radians([2, 5, 8])), abs=1e-3)


def test_the_share_is_of_the_squared_distance_of_two_random_pictures() -> None:
    # Ten places 90 degrees from each other, two pictures of different labels at each, 30 degrees apart. Of the random
    # pairs nine in ten are 90 degrees apart or a little less, their median cosine is 0 here: squared distances
    # are 2 and, for 30 degrees, 0.268, a share of 0.134.
    embeddings = np.zeros((20, 20), np.float32)
    for place in range(10):
        embeddings[2 * place, 2 * place] = 1
        embeddings[2 * place + 1, [2 * place, 2 * place + 1]] = np.cos(np.pi / 6), np.sin(np.pi / 6)
    below, above = (
        mine_from_index(embeddings, np.arange(20), window=(0, 2), duplicate_share=share).suspects
        for share in (0.130, 0.138)
    )
    assert below == []
    assert [(each.row, each.other) for each in sorted(above, key=lambda each: each.row)] == [
        (2 * place, 2 * place + 1) for place in range(10)
    ]


def test_a_network_that_finds_everything_alike_suspects_no_more() -> None:
    # The same directions around a common one, at a tenth of the angles: all cosines are above 0.9.
    spread, labels = unit_rows(40, dim=16), np.arange(40) % 8
    spread[9] = spread[0]
    narrow = np.concatenate([np.full((40, 1), 5.0, np.float32), spread], axis=1)
    narrow /= np.linalg.norm(narrow, axis=1, keepdims=True)
    assert (narrow @ narrow.T).min() > 0.9
    mined = mine_from_index(narrow, labels, window=(0, 4), duplicate_share=0.1)
    assert [(each.row, each.other) for each in mined.suspects] == [(0, 9)]


def test_suspects_equal_a_slow_loop() -> None:
    embeddings, labels = unit_rows(16, dim=4, seed=57), np.arange(16) % 5
    scores = embeddings @ embeddings.T
    random_score = float(np.median(scores[~np.eye(16, dtype=bool)]))
    threshold = 1 - 0.3 * (1 - random_score)
    assert np.abs(scores - threshold).min() > 0.02  # no pair is so close to it that the draw of random pairs decides

    mined = mine_from_index(embeddings, labels, window=(0, 16), duplicate_share=0.3)

    rows, suspects = slowly_mined(embeddings, labels.tolist(), (0, 16), threshold)
    assert len(suspects) > 5
    assert {(each.row, each.other) for each in mined.suspects} == suspects
    assert_equal_but_for_ties(mined.rows, rows, embeddings)


# The index


def test_the_index_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine_from_index(unit_rows(6), np.arange(6) % 2, window=(0, 2))
    assert list(tmp_path.iterdir()) == []


def test_no_pictures_have_no_negatives() -> None:
    mined = mine_from_index(unit_rows(0), np.array([], np.int64), window=(0, 3))
    assert mined.rows.shape == (0, 3)
    assert mined.suspects == []
