"""A server's engine follows what others commit, and grows its lists while nobody waits."""

import time
from pathlib import Path

import pytest

import indexer.growth
import indexer.recipe
from indexer.settings import SearchSettings
from indexer.store import IndexStore
from retrieval.engine import SearchEngine
from retrieval.service.following import Follower
from retrieval.service.metrics import Metrics

MODEL = "efficientnet_lite0"


def test_newcomers_of_before_the_start_are_brought_in_without_a_search_that_waits(
    tmp_path: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.growth, "_LEAST_TO_BEGIN", 1)
    monkeypatch.setattr(indexer.recipe, "_POINTS_PER_CENTROID", 2)
    picture = gallery / "apple/noto.png"
    with SearchEngine.create(tmp_path / "index", model=MODEL) as writer:
        writer.sync(gallery)
        store = IndexStore(writer.index_dir)
        with store.job("compact"):
            store.compact(SearchSettings("IVF1,SQ8"))
        store.close()
        writer.upsert("new", picture)
    metrics = Metrics()
    with SearchEngine.open(tmp_path / "index") as engine:
        follower = Follower(engine, metrics)
        follower.catch_up()
        assert not engine.is_growing  # nobody has searched
        engine.search(picture)
        assert engine.is_growing
        follower.catch_up()
        until_s = time.monotonic() + 10
        while engine.is_growing and time.monotonic() < until_s:
            time.sleep(0.01)
        assert not engine.is_growing
        assert {hit.key for hit in engine.search(picture, k=2).hits} == {"apple/noto.png", "new"}
        follower.close()
