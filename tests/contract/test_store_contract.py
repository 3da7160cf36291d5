"""What every store promises, held against the slow exact search: in the catalog, sealed, and both mixed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import indexer.sealing
from indexer.changes import Changes
from indexer.errors import VectorError
from indexer.store import IndexStore
from vectors import exact_search, put, unit_rows

DIM = 32


@pytest.fixture(params=["unsealed", "sealed", "both"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexStore]:
    seal_rows = {"unsealed": 10**6, "sealed": 1, "both": 7}[request.param]
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", seal_rows)
    store = IndexStore.create(tmp_path / "index", model_name="m", model_fingerprint="f", dim=DIM)
    yield store
    store.close()


def fill(store: IndexStore, vectors: NDArray[np.float32], each: int = 5) -> dict[int, NDArray[np.float32]]:
    """Commit `vectors` some at a time; returns what the store holds, by id."""
    for start in range(0, len(vectors), each):
        rows = [put(f"k{start + i}", vector) for i, vector in enumerate(vectors[start : start + each])]
        store.commit(Changes(puts=rows))
    pictures = store.pictures(store.snapshot, list(range(1, len(vectors) + 1)))
    return {id_: vectors[int(picture.key[1:])] for id_, picture in pictures.items()}


def assert_equal_search(
    store: IndexStore, held: dict[int, NDArray[np.float32]], queries: NDArray[np.float32], k: int
) -> None:
    found, expected = store.search(queries, k), exact_search(held, queries, k)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    for row in range(len(queries)):  # neighbours whose scores differ by rounding alone may swap places
        differing = found.ids[row] != expected.ids[row]
        for column in np.flatnonzero(differing):
            here = np.abs(expected.scores[row] - expected.scores[row, column]) < 1e-5
            assert found.ids[row, column] in expected.ids[row, here] or column == k - 1


def test_search_equals_the_exact_one(store: IndexStore) -> None:
    held = fill(store, unit_rows(60, DIM, seed=0))
    assert_equal_search(store, held, unit_rows(9, DIM, seed=1), k=10)


def test_k_beyond_the_number_of_pictures_leaves_empty_slots(store: IndexStore) -> None:
    held = fill(store, unit_rows(3, DIM, seed=0))
    found = store.search(unit_rows(2, DIM, seed=1), k=8)
    assert found.ids.shape == found.scores.shape == (2, 8)
    assert (found.ids[:, 3:] == -1).all()
    assert np.isneginf(found.scores[:, 3:]).all()
    assert_equal_search(store, held, unit_rows(2, DIM, seed=1), k=8)


def test_an_empty_index_finds_nothing(store: IndexStore) -> None:
    found = store.search(unit_rows(2, DIM, seed=1), k=3)
    assert (found.ids == -1).all()


def test_no_queries_get_no_answers(store: IndexStore) -> None:
    fill(store, unit_rows(10, DIM, seed=0))
    assert store.search(np.empty((0, DIM), np.float32), k=3).ids.shape == (0, 3)


def test_equal_scores_come_in_the_order_of_their_ids(store: IndexStore) -> None:
    fill(store, np.repeat(unit_rows(1, DIM, seed=0), 24, axis=0))
    found = store.search(unit_rows(1, DIM, seed=0), k=24)
    by_score = found.scores[0].round(5)
    assert (by_score == by_score[0]).all()
    assert sorted(found.ids[0]) == list(range(1, 25))
    exactly_equal = found.scores[0][1:] == found.scores[0][:-1]
    assert (np.diff(found.ids[0])[exactly_equal] > 0).all()


@pytest.mark.parametrize("where", [None, {"is_odd": True}])
def test_pages_with_equal_scores_repeat_and_lose_nothing(store: IndexStore, where: dict[str, bool] | None) -> None:
    better, same, worse = unit_rows(3, DIM, seed=0)
    rows = [same] * 12 + [better] * 8 + list(unit_rows(30, DIM, seed=1)) + [same] * 9 + [worse] * 20
    store.commit(Changes(puts=[put(f"k{i}", row, metadata={"is_odd": i % 2 == 1}) for i, row in enumerate(rows)]))
    store.commit(Changes(puts=[put("k79", same, metadata={"is_odd": True})]))
    queries = np.stack([better + same, same, unit_rows(1, DIM, seed=2)[0]])
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    every = store.search(queries, k=80, where=where)
    for k in range(1, 50):
        first = store.search(queries, k, where=where)
        np.testing.assert_array_equal(first.ids, every.ids[:, :k])
        np.testing.assert_array_equal(first.scores, every.scores[:, :k])


def test_scores_are_cosines_and_descend(store: IndexStore) -> None:
    vectors = unit_rows(30, DIM, seed=0)
    fill(store, vectors)
    found = store.search(vectors[:1], k=30)
    assert found.scores[0, 0] == pytest.approx(1.0, abs=1e-3)
    assert (np.diff(found.scores[0]) <= 0).all()


def test_a_removed_picture_is_found_no_more(store: IndexStore) -> None:
    vectors = unit_rows(30, DIM, seed=0)
    held = fill(store, vectors)
    store.commit(Changes(removes={"k3": -1, "k17": -1}))
    del held[4], held[18]
    assert_equal_search(store, held, vectors[[3, 17, 5]], k=28)


def test_a_replaced_picture_is_found_by_its_new_vector_alone(store: IndexStore) -> None:
    vectors = unit_rows(31, DIM, seed=0)
    held = fill(store, vectors[:30])
    store.commit(Changes(puts=[put("k3", vectors[30])]))
    del held[4]
    held[31] = vectors[30]
    assert_equal_search(store, held, vectors[[3, 30]], k=30)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda rows: rows * 2, "row 0"),
        (lambda rows: np.where(np.arange(len(rows))[:, None] == 1, np.nan, rows), "row 1"),
        (lambda rows: rows[:, :-1], "(2, 31)"),
        (lambda rows: rows[0], "(32,)"),
    ],
    ids=["not unit", "not finite", "wrong width", "one vector"],
)
def test_a_bad_query_is_refused_by_name(
    store: IndexStore, spoil: Callable[[NDArray[np.float32]], NDArray[np.float32]], named: str
) -> None:
    with pytest.raises(VectorError, match=named.replace("(", r"\(").replace(")", r"\)")):
        store.search(spoil(unit_rows(2, DIM, seed=0)), k=1)


def test_a_bad_vector_is_refused_by_its_key_and_nothing_is_committed(store: IndexStore) -> None:
    good = unit_rows(1, DIM, seed=0)[0]
    with pytest.raises(VectorError, match="spoilt"):
        store.commit(Changes(puts=[put("fine", good), put("spoilt", good * 0)]))
    assert store.snapshot.images == 0


def test_reopened_it_answers_the_same(store: IndexStore) -> None:
    vectors = unit_rows(40, DIM, seed=0)
    fill(store, vectors)
    store.commit(Changes(removes={"k3": -1}))
    before = store.search(vectors[:5], k=6)
    reopened = IndexStore(store.index_dir)
    after = reopened.search(vectors[:5], k=6)
    reopened.close()
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_allclose(before.scores, after.scores, atol=1e-6)
