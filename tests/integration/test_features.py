"""Features that are kept give a model with another head its vectors, and no picture is looked at again."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.spaces import Space
from indexer.store import IndexStore
from retrieval.encoder.checkpoint import load_checkpoint, save_checkpoint
from retrieval.encoder.features import features_fingerprint, head_of, save_features_model
from retrieval.encoder.runtime import describe_model, open_encoder
from retrieval.engine import SearchEngine
from retrieval.refresh import RefreshConfig, move_to_model, moving, prune, refresh, rollback
from retrieval.refresh.features import features_dim, features_space
from retrieval.training import TrainConfig, train
from vectors import vectors_by_key

DIM = 24


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> tuple[Path, Path]:
    """Two models with one backbone: one whose head was trained for an epoch, one with that head turned around."""
    folder = tmp_path_factory.mktemp("heads")
    config = TrainConfig(
        str(demo_gallery),
        str(folder / "first"),
        from_model="efficientnet_lite0",
        dim=DIM,
        epochs=1,
        classes_per_batch=8,
        pictures_per_class=2,
        validation="none",
        freeze_backbone=True,
        train_px=64,
    )
    train(config)
    settings, state = load_checkpoint(folder / "first")
    turned = {name: value[::-1].copy() if name.startswith("projection") else value for name, value in state.items()}
    save_checkpoint(folder / "second", settings, turned)
    return folder / "first", folder / "second"


@pytest.fixture
def index(engine: SearchEngine, gallery: Path) -> Path:
    engine.sync(gallery)
    return engine.index_dir


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the pictures that were embedded by looking at them."""
    seen: list[str] = []
    real = moving.fill_space

    def fill_space(store: IndexStore, space: Space, *rest: Any, **named: Any) -> Any:
        seen.extend(picture.key for picture in store.pictures_without_vector(space))
        return real(store, space, *rest, **named)

    monkeypatch.setattr(moving, "fill_space", fill_space)
    return seen


def test_models_that_differ_in_their_heads_have_the_same_features(heads: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = heads
    assert describe_model(first).fingerprint != describe_model(second).fingerprint
    assert features_fingerprint(first) == features_fingerprint(second) == save_features_model(first, tmp_path / "f")
    settings, state = load_checkpoint(first)
    state = {name: value + (name == "backbone.conv_stem.weight") for name, value in state.items()}
    save_checkpoint(tmp_path / "other", settings, state)
    assert features_fingerprint(tmp_path / "other") != features_fingerprint(first)


def test_features_times_the_head_are_the_model_s_own_vectors(heads: tuple[Path, Path], tmp_path: Path) -> None:
    first, _ = heads
    save_features_model(first, tmp_path / "features")
    assert features_dim(str(first)) == describe_model(tmp_path / "features").dim == 1281
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 224, 224), dtype=np.uint8)
    with (
        closing(open_encoder(first, precision="f32")) as whole,
        closing(open_encoder(tmp_path / "features", precision="f32")) as features,
    ):
        kept, vectors = features.encode(pixels), whole.encode(pixels)
    assert kept[:, -1].min() > 0
    made = kept @ head_of(first).T
    np.testing.assert_allclose(made / np.linalg.norm(made, axis=1, keepdims=True), vectors, atol=1e-5)


def test_another_head_reads_no_picture_and_gives_the_vectors_of_a_fresh_index(
    index: Path, gallery: Path, heads: tuple[Path, Path], tmp_path: Path, looked_at: list[str]
) -> None:
    assert move_to_model(index, heads[0], keep_features=True).embedded == 12
    assert len(looked_at) == 12
    hidden = gallery.rename(tmp_path / "hidden")  # there is nothing to look at
    moved = move_to_model(index, heads[1])
    assert moved.embedded == 12
    assert len(looked_at) == 12  # no more
    with SearchEngine.create(tmp_path / "fresh", model=heads[1]) as fresh:
        fresh.sync(hidden)
    expected = vectors_by_key(tmp_path / "fresh")
    for key, vector in vectors_by_key(index).items():
        assert float(vector @ expected[key]) > 0.9995  # bfloat16 where the CPU has it


def test_pictures_that_have_come_since_are_looked_at_alone(
    index: Path, gallery: Path, heads: tuple[Path, Path], looked_at: list[str]
) -> None:
    move_to_model(index, heads[0], keep_features=True)
    with SearchEngine.open(index) as engine:
        engine.upsert("new", (gallery / "car" / "noto.png").read_bytes())
    looked_at.clear()
    assert move_to_model(index, heads[1]).embedded == 13
    assert looked_at == ["new"]
    assert vectors_by_key(index).keys() >= {"new"}


@pytest.mark.slow
def test_a_second_refresh_of_the_head_alone_reads_no_picture(tmp_path: Path, demo_gallery: Path) -> None:
    gallery = shutil.copytree(demo_gallery, tmp_path / "gallery")
    with SearchEngine.create(tmp_path / "index", model="efficientnet_lite0") as engine:
        engine.sync(gallery)
    head_alone = {"freeze_backbone": True, "dim": DIM, "epochs": 1, "classes_per_batch": 16, "pictures_per_class": 2}
    config = RefreshConfig(
        tmp_path / "index",
        gate="recall_at_1 >= 0",
        keep_features=True,
        refit=False,
        training=head_alone | {"train_px": 64},
    )
    first = refresh(config)
    shown: list[str] = []
    second = refresh(config, lambda title, done, total: shown.append(title))
    assert first.moved is not None
    assert second.moved is not None
    assert first.moved.model != second.moved.model
    assert not any("embedding" in title for title in shown)
    assert second.moved.former == first.moved.model


def test_without_being_asked_nothing_is_kept(index: Path, heads: tuple[Path, Path], looked_at: list[str]) -> None:
    move_to_model(index, heads[0])
    with closing(IndexStore(index)) as store:
        assert features_space(store, store.space) is None
    move_to_model(index, heads[1])
    assert len(looked_at) == 24


def test_pruning_keeps_the_features_of_the_models_that_stay(index: Path, heads: tuple[Path, Path]) -> None:
    for model in heads:
        move_to_model(index, model, keep_features=True)
    dropped = prune(index, keep=1)
    assert [model.name.rpartition("-")[0] or model.name for model in dropped] == ["efficientnet_lite0", "models/first"]
    with closing(IndexStore(index)) as store:
        assert features_space(store, store.space) is not None
    assert rollback(index).model.name == "efficientnet_lite0"  # the one between has gone
    prune(index, keep=1)
    with closing(IndexStore(index)) as store:
        assert features_space(store, store.space) is None
