"""Whatever a search asks for beyond the nearest, its answer is what a walk down the whole ranking picks."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import indexer.sealing
from indexer.changes import Changes
from indexer.ranking import Wanted, rank
from indexer.snapshot import Snapshot
from indexer.store import IndexStore
from indexer.vectors import NO_ID, Neighbors
from vectors import exact_search, new_store, put, unit_rows

DIM = 16
Held = dict[int, NDArray[np.float32]]


@pytest.fixture(params=["unsealed", "sealed", "both"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexStore]:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", {"unsealed": 10**6, "sealed": 1, "both": 47}[request.param])
    store = new_store(tmp_path / "index", DIM)
    yield store
    store.close()


def fill(store: IndexStore, vectors: NDArray[np.float32], products: list[str | None]) -> None:
    """Commit 30 at a time, key k<number> each."""
    for start in range(0, len(vectors), 30):
        here = range(start, min(start + 30, len(vectors)))
        store.commit(Changes(puts=[put(f"k{i}", vectors[i], product_id=products[i]) for i in here]))


def held_by(snapshot: Snapshot) -> Held:
    ids, vectors = (np.concatenate(parts) for parts in zip(*snapshot.blocks(), strict=True))
    return dict(zip(ids.tolist(), vectors, strict=True))


def slowly_ranked(held: Held, queries: NDArray[np.float32], wanted: Wanted) -> Neighbors:
    """Down the whole ranking, picking what is wanted."""
    everything = exact_search(held, queries, len(held))
    columns = min(wanted.k, max(0, len(held) - wanted.offset))
    answer = Neighbors.empty(len(queries), columns)
    for row in range(len(queries)):
        picked: list[tuple[int, float]] = []
        groups: set[int] = set()
        for id_, score in zip(everything.ids[row].tolist(), everything.scores[row].tolist(), strict=True):
            is_allowed = wanted.allowed is None or wanted.allowed[id_]
            if not is_allowed or id_ in wanted.excluded or score < wanted.min_score:
                continue
            group = -1 if wanted.groups is None else int(wanted.groups[id_])
            if group in groups:
                continue
            groups |= {group} - {-1}
            scores = [float(held[id_] @ held[other]) for other, _ in picked]
            if wanted.duplicate_score is not None and any(one >= wanted.duplicate_score for one in scores):
                continue
            picked.append((id_, score))
        for column, (id_, score) in enumerate(picked[wanted.offset : wanted.offset + wanted.k]):
            answer.ids[row, column], answer.scores[row, column] = id_, score
    return answer


def assert_ranked(store: IndexStore, queries: NDArray[np.float32], wanted: Wanted) -> Neighbors:
    found = rank(store.snapshot, queries, wanted)
    expected = slowly_ranked(held_by(store.snapshot), queries, wanted)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    return found


def clustered(count: int, clusters: int, seed: int, spread: float) -> NDArray[np.float32]:
    """Rows around so many places, unit length."""
    places = unit_rows(clusters, DIM, seed)[np.arange(count) % clusters]
    rows = places + spread * unit_rows(count, DIM, seed + 1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("seed", range(6))
def test_all_wishes_together_on_random_data(store: IndexStore, seed: int) -> None:
    draw = random.Random(seed)
    vectors = clustered(150, 12, seed, draw.choice([0.05, 0.3, 1.0]))
    fill(store, vectors, [draw.choice(["p", "q", "r", None, f"own {i}"]) for i in range(150)])
    store.commit(Changes(removes={f"k{i}": -1 for i in range(0, 150, 7)}))
    queries = unit_rows(3, DIM, seed + 50)
    for share in (0.0, 0.01, 0.1, 0.5, 1.0):
        allowed = store.meeting(store.snapshot, {}) & (np.random.default_rng(seed).random(151) < share)
        for _ in range(6):
            wanted = Wanted(
                draw.choice([1, 3, 10, 200]),
                draw.choice([0, 0, 2, 60]),
                draw.choice([-np.inf, 0.0, 0.3]),
                draw.choice([None, allowed]),
                frozenset(draw.sample(range(1, 151), draw.choice([0, 0, 5]))),
                draw.choice([None, store.groups(store.snapshot, "product_id")]),
                draw.choice([None, None, 0.9, 0.5]),
            )
            assert_ranked(store, queries, wanted)


def test_a_filter_that_few_meet_still_finds_k(store: IndexStore) -> None:
    # DeepImageSearch 3.0.3 finds none here: it looks for 10 and filters afterwards.
    vectors = unit_rows(10_000, DIM, seed=0)
    store.commit(
        Changes(puts=[put(f"k{i}", vector, metadata={"rare": i % 200 == 0}) for i, vector in enumerate(vectors)])
    )
    far = -vectors[:1]  # the fifty are not among the nearest
    allowed = store.meeting(store.snapshot, "rare = true")
    assert np.count_nonzero(allowed) == 50
    found = assert_ranked(store, far, Wanted(10, allowed=allowed))
    assert (found.ids != NO_ID).all()
    np.testing.assert_array_equal(store.search(far, 10, where="rare = true").ids, found.ids)


def test_a_product_of_a_thousand_pictures_does_not_hide_the_others(store: IndexStore) -> None:
    query = unit_rows(1, DIM, seed=0)
    crowd = query + 0.1 * unit_rows(1000, DIM, seed=1)
    crowd /= np.linalg.norm(crowd, axis=1, keepdims=True)
    fill(store, np.concatenate([crowd, -crowd[:4]]).astype(np.float32), ["crowd"] * 1000 + ["a", "b", "c", None])
    groups = store.groups(store.snapshot, "product_id")
    searches: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(store.snapshot, name)

        def search(self, queries: Any, k: int, *rest: Any, **named: Any) -> Neighbors:
            searches.append(k)
            return store.snapshot.search(queries, k, *rest, **named)

    found = rank(Counting(), query, Wanted(5, groups=groups))  # type: ignore[arg-type]
    pictures = store.pictures(store.snapshot, found.ids[0].tolist()).values()
    products = {picture.attributes.product_id for picture in pictures}
    assert products == {"crowd", "a", "b", "c", None}
    assert len(searches) <= 3


def test_equal_groups_of_pictures_without_a_product_are_not_one_product(store: IndexStore) -> None:
    fill(store, unit_rows(9, DIM, seed=0), [None] * 9)
    found = rank(
        store.snapshot, unit_rows(1, DIM, seed=1), Wanted(9, groups=store.groups(store.snapshot, "product_id"))
    )
    assert sorted(found.ids[0].tolist()) == list(range(1, 10))


def test_the_same_picture_many_times_is_found_once(store: IndexStore) -> None:
    vectors = np.repeat(unit_rows(5, DIM, seed=0), 30, axis=0)
    fill(store, vectors, [None] * 150)
    found = assert_ranked(store, unit_rows(2, DIM, seed=1), Wanted(10, duplicate_score=0.99))
    assert (found.ids != NO_ID).sum(axis=1).tolist() == [5, 5]


@pytest.mark.parametrize("k", [10, 10**9])
def test_k_beyond_the_index_costs_no_more_than_the_index(store: IndexStore, k: int) -> None:
    fill(store, unit_rows(7, DIM, seed=0), [None] * 7)
    assert rank(store.snapshot, unit_rows(2, DIM, seed=1), Wanted(k)).ids.shape == (2, 7)
    assert rank(store.snapshot, unit_rows(2, DIM, seed=1), Wanted(k, offset=5)).ids.shape == (2, 2)


def test_nothing_is_found_past_the_end_or_in_an_empty_index(store: IndexStore) -> None:
    query = unit_rows(1, DIM, seed=1)
    assert rank(store.snapshot, query, Wanted(10)).ids.shape == (1, 0)
    assert rank(store.snapshot, query, Wanted(10, allowed=store.meeting(store.snapshot, "a = 1"))).ids.shape == (1, 0)
    fill(store, unit_rows(3, DIM, seed=0), [None] * 3)
    assert rank(store.snapshot, query, Wanted(10, offset=3)).ids.shape == (1, 0)
    assert rank(store.snapshot, query, Wanted(10, offset=10**9)).ids.shape == (1, 0)


def test_vectors_are_given_back_by_id_and_nan_where_there_is_none(store: IndexStore) -> None:
    vectors = unit_rows(60, DIM, seed=0)
    fill(store, vectors, [None] * 60)
    given = store.snapshot.vectors_of(np.array([60, 1, 31, NO_ID, 99]))
    np.testing.assert_allclose(given[:3], vectors[[59, 0, 30]], atol=1e-3)
    assert np.isnan(given[3:]).all()
    store.commit(Changes(removes={"k59": -1, "k0": -1}))
    given = store.snapshot.vectors_of(np.array([60, 1, 31]))
    assert np.isnan(given).all(axis=1).tolist() == [True, True, False]


def test_the_visible_mask_is_of_what_is_not_removed(store: IndexStore) -> None:
    fill(store, unit_rows(60, DIM, seed=0), [None] * 60)
    store.commit(Changes(removes={"k59": -1, "k3": -1}))
    assert set(np.flatnonzero(store.snapshot.visible()).tolist()) == set(range(1, 60)) - {4}
