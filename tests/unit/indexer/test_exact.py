"""Comparing every vector: a whole segment, some of its rows, or candidates that something else has named."""

from pathlib import Path

import numpy as np
import pytest

import indexer.segments
from indexer.exact import nearest_of
from indexer.rescoring import score_again
from indexer.segments import SEGMENTS_FOLDER, Segment, only, write_segment
from indexer.vectors import NO_ID, Vectors, merge_topk

COUNT, DIM = 400, 32
KINDS = 40  # of vectors: each is there ten times, and all of these are equally near


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    (tmp_path / SEGMENTS_FOLDER).mkdir()
    ids = 3 + 2 * np.arange(COUNT, dtype=np.int64)
    return Segment(tmp_path, 1, write_segment(tmp_path, "one.faiss", ids, unit_rows(COUNT)))


def unit_rows(count: int, seed: int = 0) -> Vectors:
    drawn = np.random.default_rng(seed).standard_normal((KINDS, DIM)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)[np.arange(count) % KINDS]


@pytest.mark.parametrize("rows_at_once", [1, 7, 10_000])
@pytest.mark.parametrize("k", [1, 5, 50])
def test_some_rows_are_answered_as_the_whole_segment_is_when_it_passes_over_the_others(
    segment: Segment, k: int, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.segments, "_ROWS_AT_ONCE", rows_at_once)
    queries = unit_rows(9, seed=1)
    rows = np.flatnonzero(np.random.default_rng(2).random(COUNT) < 0.2)
    mask = np.zeros(int(segment.ids[-1]) + 1, np.bool_)
    mask[segment.ids[rows]] = True
    found, expected = segment.search_rows(queries, k, rows), merge_topk([segment.search(queries, k, only(mask))], k)
    assert k < len(rows)
    assert np.array_equal(found.ids, expected.ids)
    assert np.array_equal(found.scores, expected.scores)  # to the last bit


def test_no_more_is_found_than_there_are_rows(segment: Segment) -> None:
    found = segment.search_rows(unit_rows(2), 10, np.array([5, 17, 399]))
    assert found.ids.shape == (2, 10)
    assert set(found.ids[0, :3].tolist()) == {13, 37, 801}
    assert (found.ids[:, 3:] == NO_ID).all()
    assert np.isneginf(found.scores[:, 3:]).all()


def test_of_equally_near_vectors_the_first_are_found() -> None:
    same = np.repeat(unit_rows(1).astype(np.float16), 30, axis=0)
    assert sorted(nearest_of(same, unit_rows(1), 4).ids[0].tolist()) == [0, 1, 2, 3]
    assert sorted(nearest_of(same, unit_rows(1), 99).ids[0].tolist()) == list(range(30))


def test_candidates_are_ordered_by_their_exact_scores(segment: Segment) -> None:
    queries = unit_rows(3, seed=1)
    candidates = np.array([[300, 7, 8, 9, 11], [NO_ID, 20, NO_ID, 2, NO_ID], [NO_ID] * 5])
    best = score_again(segment.stored.__getitem__, queries, candidates, 4)
    scores = queries @ segment.stored.astype(np.float32).T
    expected = sorted(candidates[0], key=lambda row: (-scores[0, row], row))[:4]
    assert best.ids[0].tolist() == expected
    assert best.scores[0] == pytest.approx(scores[0, expected], abs=1e-6)
    assert sorted(best.ids[1].tolist()) == [NO_ID, NO_ID, 2, 20]
    assert best.scores[1, 0] >= best.scores[1, 1] > best.scores[1, 2] == -np.inf
    assert (best.ids[2] == NO_ID).all()


def test_ids_and_vectors_outlive_whoever_opened_them(segment: Segment) -> None:
    ids, stored = segment.ids, segment.stored
    expected = unit_rows(COUNT).astype(np.float16)
    del segment
    assert ids[:2].tolist() == [3, 5]
    assert np.array_equal(stored, expected)
