"""Every recipe under conditions of every selectivity, with groups and removed pictures, against an exact search."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.changes import Changes
from indexer.ranking import Wanted, rank
from indexer.settings import SearchSettings
from indexer.store import IndexStore
from vectors import clustered_rows, new_store, put

DIM = 32
COUNT = 5000
RECALL = 0.9
TWO_ERRORS = 0.04  # of a mean over forty queries
K = 10
QUERIES = clustered_rows(40, DIM, seed=100)
SELECTIVITIES = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 1.0)
RECIPES = ("exact", "SQ8", "IVF32,SQ8", "RR32,IVF16,PQ16x4fs", "PCA16,IVF16,SQ8", "HNSW16,SQ8")


class Shop:
    """An index of pictures with a number between 0 and 1 each, three of a product, a tenth of them removed."""

    def __init__(self, store: IndexStore) -> None:
        self.store = store
        rows = clustered_rows(COUNT, DIM, seed=0)
        lots = np.random.default_rng(1).random(COUNT)
        for start in range(0, COUNT, 1000):
            store.commit(
                Changes(
                    puts=[
                        put(f"{row}", rows[row], product_id=f"p{row // 3}", metadata={"lot": float(lots[row])})
                        for row in range(start, start + 1000)
                    ]
                )
            )
        removed = np.random.default_rng(2).random(COUNT) < 0.1
        self.vectors = rows.astype(np.float16).astype(np.float32)
        self.lots, self.is_there = lots, ~removed
        self.removes = Changes(removes={f"{row}": -1 for row in np.flatnonzero(removed)})

    def scores(self, share: float) -> NDArray[np.float32]:
        """(Q, COUNT) of what meets the condition, -inf of all others; picture row + 1 is row's id."""
        scores = QUERIES @ self.vectors.T
        scores[:, ~(self.is_there & (self.lots < share))] = -np.inf
        return scores


@pytest.fixture(scope="module", params=RECIPES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    store = new_store(tmp_path_factory.mktemp("shop") / "index", DIM)
    shop = Shop(store)
    with store.job("compact"):
        done = store.compact(SearchSettings(request.param, RECALL))
    assert store.recipe()[0] == request.param
    assert done is None or done.ann_recall_at_10 >= RECALL
    store.commit(shop.removes)  # after the compaction: they are passed over, not gone
    yield shop
    store.close()


def assert_nearly(shop: Shop, found: NDArray[np.float32], true: NDArray[np.float32]) -> None:
    """As many as exist, and of these the share that was asked for; exact ones are the same."""
    exist = np.isfinite(true)
    np.testing.assert_array_equal(np.isfinite(found), exist)
    if shop.store.recipe()[0] == "exact":
        np.testing.assert_allclose(found[exist], true[exist], atol=1e-5)
    elif exist.any():
        least = np.where(exist, true, np.inf).min(axis=1, keepdims=True)
        assert np.mean(found[exist] >= np.broadcast_to(least, true.shape)[exist] - 1e-5) >= RECALL - TWO_ERRORS


@pytest.mark.parametrize("k", [1, K, 300])
@pytest.mark.parametrize("share", SELECTIVITIES)
def test_k_are_found_wherever_k_exist(shop: Shop, share: float, k: int) -> None:
    found = shop.store.search(QUERIES, k, where=f"lot < {share}")
    true = -np.sort(-shop.scores(share), axis=1)[:, :k]
    assert_nearly(shop, found.scores, true)
    allowed = np.append(False, shop.is_there & (shop.lots < share))
    assert allowed[found.ids[found.ids >= 0]].all()
    for row, ids in enumerate(found.ids):
        kept = ids[ids >= 0]
        assert len(set(kept.tolist())) == len(kept)
        np.testing.assert_allclose(found.scores[row, : len(kept)], shop.vectors[kept - 1] @ QUERIES[row], atol=2e-3)


@pytest.mark.parametrize("share", SELECTIVITIES)
def test_k_products_are_found_wherever_k_exist(shop: Shop, share: float) -> None:
    store = shop.store
    wanted = Wanted(
        K,
        allowed=store.meeting(store.snapshot, f"lot < {share}"),
        groups=store.groups(store.snapshot, "product_id"),
    )
    found = rank(store.snapshot, QUERIES, wanted)
    by_product = np.pad(shop.scores(share), ((0, 0), (0, -COUNT % 3)), constant_values=-np.inf)
    best = by_product.reshape(len(QUERIES), -1, 3).max(axis=2)
    assert_nearly(shop, found.scores, -np.sort(-best, axis=1)[:, :K])
    for ids in found.ids:
        products = (ids[ids >= 0] - 1) // 3
        assert len(set(products.tolist())) == len(products)


def test_without_a_condition_the_recall_is_what_was_asked_for(shop: Shop) -> None:
    found = shop.store.search(QUERIES, K)
    assert_nearly(shop, found.scores, -np.sort(-shop.scores(2.0), axis=1)[:, :K])
