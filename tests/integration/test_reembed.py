"""Every picture of an index is embedded by another model, once, while the index is read and written."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer.spaces import Space
from indexer.store import IndexStore
from retrieval.encoder.runtime import Encoder, describe_model, open_encoder
from retrieval.engine import SearchEngine
from retrieval.records import Box
from retrieval.refresh import reembed
from retrieval.refresh.reembed import fill_space

OTHER = "efficientnet_lite2"
APPLE, CAR = "apple/noto.png", "car/noto.png"


@pytest.fixture(scope="module")
def encoder(_models_are_prepared: None) -> Iterator[Encoder]:
    """The other model."""
    with closing(open_encoder(OTHER)) as encoder:
        yield encoder


@pytest.fixture
def store(engine: SearchEngine, gallery: Path) -> Iterator[IndexStore]:
    """An index of twelve pictures, one that was given as bytes, and a part of one."""
    engine.sync(gallery)
    engine.upsert("bytes", (gallery / CAR).read_bytes())
    engine.upsert("part", gallery / APPLE, box=Box(0.0, 0.0, 0.5, 0.5, is_relative=True))
    with closing(IndexStore(engine.index_dir)) as store:
        yield store


def other_space(store: IndexStore) -> Space:
    described = describe_model(OTHER)
    return store.open_space(model_name=OTHER, model_fingerprint=described.fingerprint, dim=described.dim)


def vectors_of(store: IndexStore) -> dict[str, list[float]]:
    """What is found under each key, in the live space."""
    ids, rows = [], []
    for block_ids, block in store.snapshot.blocks():
        ids += block_ids.tolist()
        rows += block.tolist()
    pictures = store.pictures(store.snapshot, ids)
    return {pictures[id_].key: row for id_, row in zip(ids, rows, strict=True)}


def test_it_equals_a_fresh_index_by_that_model(
    store: IndexStore, gallery: Path, encoder: Encoder, tmp_path: Path
) -> None:
    space = other_space(store)
    done = fill_space(store, space, encoder)
    assert (done.embedded, done.skipped) == (14, {})
    store.make_live(space, "refresh", lambda rest: {})

    with SearchEngine.create(tmp_path / "fresh", model=OTHER) as fresh:
        fresh.sync(gallery)
        fresh.upsert("bytes", (gallery / CAR).read_bytes())
        fresh.upsert("part", gallery / APPLE, box=Box(0.0, 0.0, 0.5, 0.5, is_relative=True))
        with closing(IndexStore(fresh.index_dir)) as expected:
            assert vectors_of(store).keys() == vectors_of(expected).keys()
            for key, vector in vectors_of(expected).items():
                assert vectors_of(store)[key] == pytest.approx(vector, abs=1e-3), key


def test_a_run_that_was_stopped_is_gone_on_with(
    store: IndexStore, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembed, "COMMIT_ROWS", 4)
    space = other_space(store)

    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_space(store, space, encoder, on_progress=stop)
    assert len(store.pictures_without_vector(space)) == 14 - 6

    assert fill_space(store, space, encoder).embedded == 14 - 6
    assert fill_space(store, space, encoder).embedded == 0


def test_pictures_that_come_meanwhile_are_embedded_too(
    store: IndexStore, engine: SearchEngine, gallery: Path, encoder: Encoder
) -> None:
    space = other_space(store)

    def write(done: int, total: int) -> None:
        if done == 3:
            engine.upsert("late", gallery / CAR)
            engine.remove("car/fluent.webp")

    fill_space(store, space, encoder, on_progress=write)
    assert fill_space(store, space, encoder).embedded <= 1  # it may have come behind the last look
    store.make_live(space, "refresh", lambda rest: {})
    assert "late" in vectors_of(store)
    assert "car/fluent.webp" not in vectors_of(store)


def test_pictures_that_have_vanished_are_named_and_the_others_embedded(
    store: IndexStore, gallery: Path, encoder: Encoder
) -> None:
    shutil.rmtree(gallery / "banana")
    (gallery / "camera" / "noto.png").write_bytes(b"no picture any more")
    space = other_space(store)

    done = fill_space(store, space, encoder)

    reasons = {skip.key: skip.reason for skip in done.skipped.values()}
    assert reasons.keys() == {"banana/noto.png", "banana/fluent.webp", "camera/noto.png"}
    assert reasons["banana/noto.png"] == "no such file"
    assert done.embedded == 11


def test_the_live_index_answers_as_before(
    store: IndexStore, engine: SearchEngine, gallery: Path, encoder: Encoder
) -> None:
    before = engine.search(gallery / APPLE).to_dict()
    fill_space(store, other_space(store), encoder)
    engine.refresh()
    assert engine.search(gallery / APPLE).to_dict() == before
