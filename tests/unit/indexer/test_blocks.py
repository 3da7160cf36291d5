"""Every vector of a generation can be read, a block at a time, wherever it lies."""

import numpy as np
import pytest
from numpy.typing import NDArray

import indexer.sealing
from indexer.changes import Changes
from indexer.store import IndexStore
from vectors import pictures_found, put, unit_rows

ROWS = unit_rows(21, 8, seed=0)


def read(store: IndexStore, rows: int) -> dict[int, NDArray[np.float32]]:
    found: dict[int, NDArray[np.float32]] = {}
    for ids, vectors in store.snapshot.blocks(rows):
        assert len(ids) == len(vectors) <= rows
        assert not found.keys() & set(ids.tolist()), "each once"
        found.update(zip(ids.tolist(), vectors, strict=True))
    return found


@pytest.mark.parametrize("rows", [1, 3, 4096])
def test_blocks_hold_every_visible_vector_once(store: IndexStore, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", 8)
    for start, stop in ((0, 8), (8, 16), (16, 21)):  # two segments and five unsealed rows
        store.commit(Changes(puts=[put(f"k{row}", ROWS[row]) for row in range(start, stop)]))
    store.commit(Changes(removes={"k3": -1, "k15": -1, "k17": -1}))
    assert len(store.snapshot.segments) == 2
    found = read(store, rows)
    pictures = pictures_found(store)
    assert found.keys() == {picture.id for picture in pictures.values()}
    assert len(found) == 18
    for key, picture in pictures.items():
        np.testing.assert_array_equal(found[picture.id], ROWS[int(key[1:])].astype(np.float16).astype(np.float32))


def test_an_empty_index_has_no_vectors(store: IndexStore) -> None:
    assert read(store, 4096) == {}
