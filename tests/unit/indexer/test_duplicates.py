"""Pictures that are nearly the same are found together, and no others."""

from itertools import combinations

import numpy as np
import pytest

import indexer.sealing
from indexer.changes import Changes
from indexer.duplicates import find_duplicates
from indexer.store import IndexStore
from vectors import put, unit_rows

DIM = 8


def on_a_circle(*degrees: float) -> np.ndarray:  # type: ignore[type-arg]
    angles = np.radians(degrees)
    rows = np.zeros((len(degrees), DIM), np.float32)
    rows[:, 0], rows[:, 1] = np.cos(angles), np.sin(angles)
    return rows


def commit(store: IndexStore, rows: np.ndarray) -> None:  # type: ignore[type-arg]
    store.commit(Changes(puts=[put(f"k{i}", row) for i, row in enumerate(rows)]))


def test_chains_of_pictures_are_one_group(store: IndexStore) -> None:
    # cos 5 degrees is 0.996, cos 10 is 0.985: with 0.99, those 5 apart are the same, also by way of others.
    commit(store, on_a_circle(0, 90, 5, 10, 180, 95, 300))
    assert find_duplicates(store.snapshot, 0.99) == [[1, 3, 4], [2, 6]]
    assert find_duplicates(store.snapshot, 0.9999) == []


def test_removed_pictures_are_nobodys_duplicates(store: IndexStore) -> None:
    commit(store, on_a_circle(0, 5, 10))
    store.commit(Changes(removes={"k1": -1}))
    assert find_duplicates(store.snapshot, 0.99) == []


def test_an_index_of_one_picture_or_none_has_none(store: IndexStore) -> None:
    assert find_duplicates(store.snapshot, 0.9) == []
    commit(store, on_a_circle(0))
    assert find_duplicates(store.snapshot, 0.9) == []


def test_an_emptied_index_has_none(store: IndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", 2)
    commit(store, on_a_circle(0, 5))
    store.commit(Changes(removes={"k0": -1, "k1": -1}))
    assert find_duplicates(store.snapshot, 0.99) == []
    commit(store, on_a_circle(0, 5))
    assert find_duplicates(store.snapshot, 0.99) == [[3, 4]]


@pytest.mark.parametrize("seal_rows", [40, 10**6])
def test_groups_of_any_size_equal_a_look_at_all_pairs(
    store: IndexStore, seal_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", seal_rows)
    places = unit_rows(6, DIM, seed=0)
    sizes = [1, 1, 2, 5, 40, 100]
    rows = np.concatenate([np.repeat(places[i : i + 1], size, axis=0) for i, size in enumerate(sizes)])
    commit(store, rows[np.random.default_rng(0).permutation(len(rows))])
    found = find_duplicates(store.snapshot, 0.999)
    assert sorted(map(len, found)) == [2, 5, 40, 100]
    vectors = store.snapshot.vectors_of(np.arange(1, len(rows) + 1))
    for group in found:
        assert all(vectors[a - 1] @ vectors[b - 1] > 0.99 for a, b in combinations(group, 2))
        assert group == sorted(group)


@pytest.mark.parametrize("seal_rows", [40, 10**6])
def test_many_copies_do_not_hide_those_that_are_nearly_the_same(
    store: IndexStore, seal_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", seal_rows)
    # cos 5 degrees is 0.996: those next to one another are alike, and the nearest of each are its copies.
    degrees = np.repeat([0, 5, 10, 15, 100, 105, 180], [40, 40, 2, 40, 20, 20, 40])
    order = np.random.default_rng(0).permutation(len(degrees))
    commit(store, on_a_circle(*degrees[order].tolist()))
    found = find_duplicates(store.snapshot, 0.99)
    assert found == sorted(
        sorted((np.flatnonzero((low <= degrees[order]) & (degrees[order] <= high)) + 1).tolist())
        for low, high in [(0, 15), (100, 105), (180, 180)]
    )
