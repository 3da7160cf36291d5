"""Unit rows are checked by name; merged and ranked answers equal slow loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer.errors import VectorError
from indexer.vectors import NO_ID, Neighbors, check_unit_rows, merge_topk, rank_scores
from vectors import unit_rows

Ranked = list[tuple[int, float]]


def slow_ranking(scored: Ranked, k: int) -> Ranked:
    """The best k by score, then by id; empty slots behind."""
    best = sorted((one for one in scored if one[1] != -math.inf), key=lambda one: (-one[1], one[0]))[:k]
    return best + [(NO_ID, -math.inf)] * (k - len(best))


def ranked(found: Neighbors, row: int) -> Ranked:
    return list(zip(found.ids[row].tolist(), found.scores[row].tolist(), strict=True))


# Few different scores, so that ties are the rule; -inf is a vector that is left out.
SCORES = st.sampled_from([-math.inf, -0.5, 0.0, 0.25, 0.5, 1.0])


@given(st.lists(SCORES, max_size=12), st.integers(1, 15))
def test_ranked_scores_equal_a_slow_loop(scores: list[float], k: int) -> None:
    ids = np.arange(len(scores), dtype=np.int64) * 3 + 1
    found = rank_scores(ids, np.array([scores, scores[::-1]], np.float32), k)
    assert ranked(found, 0) == slow_ranking(list(zip(ids.tolist(), scores, strict=True)), k)
    assert ranked(found, 1) == slow_ranking(list(zip(ids.tolist(), scores[::-1], strict=True)), k)
    assert (found.ids.dtype, found.scores.dtype) == (np.int64, np.float32)


def as_part(scored: Ranked, columns: int) -> Neighbors:
    rows = slow_ranking(scored, columns)
    return Neighbors(np.array([[i for i, _ in rows]], np.int64), np.array([[s for _, s in rows]], np.float32))


@given(st.lists(st.lists(SCORES, max_size=6), min_size=1, max_size=4), st.integers(1, 12))
def test_merged_answers_equal_a_slow_loop_over_all_vectors(parts: list[list[float]], k: int) -> None:
    disjoint = [[(10 * row + part, s) for row, s in enumerate(scores)] for part, scores in enumerate(parts)]
    found = merge_topk([as_part(scored, len(scored) + part) for part, scored in enumerate(disjoint)], k)
    assert found.ids.shape == found.scores.shape == (1, k)
    assert ranked(found, 0) == slow_ranking([one for scored in disjoint for one in scored], k)


def test_merging_two_answers_worked_by_hand() -> None:
    one = Neighbors(np.array([[7, 2]]), np.array([[0.9, 0.5]], np.float32))
    other = Neighbors(np.array([[1, 8, 9]]), np.array([[0.9, 0.7, 0.5]], np.float32))
    merged = merge_topk([one, other], k=4)
    assert merged.ids.tolist() == [[1, 7, 8, 2]]  # 0.9 twice: 1 before 7; 0.5 twice: 2 before 9, for which no room is
    assert merged.scores[0].tolist() == pytest.approx([0.9, 0.9, 0.7, 0.5])


def test_queries_are_merged_each_for_itself() -> None:
    one = Neighbors(np.array([[1], [2]]), np.array([[0.1], [0.9]], np.float32))
    other = Neighbors(np.array([[3], [4]]), np.array([[0.5], [0.5]], np.float32))
    assert merge_topk([one, other], k=1).ids.tolist() == [[3], [2]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_unit_rows_of_any_float_type_pass_as_float32(dtype: type[np.floating]) -> None:
    rows = unit_rows(5, 1280, seed=0).astype(dtype)
    checked = check_unit_rows(rows, 1280)
    assert checked.dtype == np.float32
    assert checked.flags.c_contiguous
    np.testing.assert_allclose(checked, rows, atol=1e-6)


def test_rows_that_are_not_contiguous_are_made_so() -> None:
    rows = np.asfortranarray(unit_rows(5, 8, seed=0))
    assert check_unit_rows(rows, 8).flags.c_contiguous


def stretched(by: float) -> NDArray[np.float32]:
    rows = unit_rows(4, 8, seed=0)
    rows[2] *= by
    return rows


@pytest.mark.parametrize("by", [0.999, 1.001])
def test_a_row_within_rounding_of_unit_length_passes(by: float) -> None:
    check_unit_rows(stretched(by), 8)


@pytest.mark.parametrize("by", [0.0, 0.9, 1.1, math.nan, math.inf])
def test_a_row_of_another_length_is_named(by: float) -> None:
    with pytest.raises(VectorError, match=r"^row 2: length .* given, unit length needed; divide each row"):
        check_unit_rows(stretched(by), 8)


def test_bad_rows_are_called_by_their_names_and_the_first_five_of_them() -> None:
    with pytest.raises(VectorError, match=r"^k0, k1, k2, k3, k4 and 2 more: length 2 given"):
        check_unit_rows(unit_rows(7, 8, seed=0) * 2, 8, [f"k{i}" for i in range(7)])


@pytest.mark.parametrize(
    "vectors",
    [unit_rows(2, 7, seed=0), unit_rows(2, 8, seed=0)[0], [[1.0, 0.0], [1.0]], [["a"] * 8]],
    ids=["other width", "one vector", "ragged", "words"],
)
def test_what_is_no_matrix_of_that_width_is_refused(vectors: object) -> None:
    with pytest.raises(VectorError, match=r"\(N, 8\)"):
        check_unit_rows(vectors, 8)  # type: ignore[arg-type]


def test_an_empty_answer_has_empty_slots() -> None:
    empty = Neighbors.empty(2, 3)
    assert (empty.ids == NO_ID).all()
    assert np.isneginf(empty.scores).all()
    assert empty.ids.shape == empty.scores.shape == (2, 3)
