"""An engine meets a model and vectors that belong together, whoever moves the index to another model meanwhile."""

import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import ModelMismatch
from indexer.store import IndexStore
from retrieval.engine import SearchEngine
from retrieval.errors import UnknownModel
from retrieval.index_model import open_index_model

OTHER = "efficientnet_lite2"  # its embeddings are as long as those of the model that the index is made by
APPLE, CAR = "apple/noto.png", "car/noto.png"


@pytest.fixture
def indexed(engine: SearchEngine, gallery: Path) -> SearchEngine:
    """An engine over twelve pictures, its encoder open."""
    engine.sync(gallery)
    engine.search(gallery / APPLE)
    return engine


def move(index_dir: Path, model: str = OTHER, name: str | None = None) -> int:
    """Do what another process does: embed everything by another model, and make that the index's."""
    from retrieval.encoder.runtime import describe_model

    described = describe_model(model)
    with closing(IndexStore(index_dir)) as store:
        space = store.open_space(model_name=name or model, model_fingerprint=described.fingerprint, dim=described.dim)
        with closing(open_index_model(index_dir, space, moved_to=model).embedder) as embedder:
            pictures = store.pictures_without_vector(space)
            vectors = embedder.embed([picture.path for picture in pictures])
            store.fill(space, {picture.id: vector for picture, vector in zip(pictures, vectors, strict=True)})
        generation = store.make_live(space, "refresh", lambda rest: {})
    assert generation is not None
    return generation


def finds_itself(engine: SearchEngine, picture: Path) -> bool:
    return engine.search(picture, k=1).hits[0].score > 0.999


def test_an_engine_stays_with_its_model_until_it_refreshes(indexed: SearchEngine, gallery: Path) -> None:
    before, former = indexed.search(gallery / APPLE).to_dict(), indexed.model_fingerprint
    generation = move(indexed.index_dir)

    assert indexed.search(gallery / APPLE).to_dict() == before
    assert indexed.refresh() == generation
    assert indexed.model_fingerprint != former
    assert indexed.search(gallery / APPLE).model == indexed.model_fingerprint
    assert finds_itself(indexed, gallery / APPLE)
    assert indexed.info().model.name == OTHER


def test_an_upsert_after_a_move_is_embedded_by_the_new_model(indexed: SearchEngine, gallery: Path) -> None:
    move(indexed.index_dir)
    indexed.remove("car/noto.png")  # needs no model, and takes the engine along
    indexed.upsert("mine", gallery / CAR)
    with SearchEngine.open(indexed.index_dir) as fresh:
        for engine in (indexed, fresh):
            assert engine.search(gallery / CAR, k=1).hits[0].key == "mine"
            assert finds_itself(engine, gallery / CAR)


def test_an_upsert_that_a_move_overtook_is_embedded_again(
    indexed: SearchEngine, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit: Callable[..., object] = IndexStore.commit

    def overtaken(store: IndexStore, *given: object, **named: object) -> object:
        monkeypatch.setattr(IndexStore, "commit", commit)
        move(indexed.index_dir)
        return commit(store, *given, **named)

    monkeypatch.setattr(IndexStore, "commit", overtaken)
    generation = indexed.upsert("mine", (gallery / CAR).read_bytes(), product_id="car")

    hits = indexed.search(gallery / CAR, k=2).hits
    assert {hit.key for hit in hits} == {"mine", CAR}
    assert all(hit.score > 0.999 for hit in hits)
    assert indexed.generation == generation


def test_a_sync_after_a_move_goes_on_with_the_new_model(indexed: SearchEngine, gallery: Path) -> None:
    move(indexed.index_dir)
    (gallery / "apple" / "again.png").write_bytes((gallery / CAR).read_bytes())
    report = indexed.sync(gallery)
    assert (report.added, report.unchanged) == (1, 12)
    assert finds_itself(indexed, gallery / "apple" / "again.png")


def test_answers_are_of_one_model_while_another_thread_refreshes(indexed: SearchEngine, gallery: Path) -> None:
    wrong: list[object] = []
    models: set[str] = set()
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            try:
                result = indexed.search(gallery / APPLE, k=1)
                models.add(result.model)
                if not (result.hits[0].key == APPLE and result.hits[0].score > 0.999):
                    wrong.append(result)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for model in (OTHER, "efficientnet_lite0", OTHER):
        move(indexed.index_dir, model)
        indexed.refresh()
        indexed.search(gallery / CAR)
    is_over.set()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert len(models) == 2


def test_vectors_of_the_former_model_are_refused_by_its_fingerprint(indexed: SearchEngine, gallery: Path) -> None:
    vectors, former = indexed.embed([gallery / APPLE]), indexed.model_fingerprint
    assert indexed.search_vectors(vectors, k=1, model_fingerprint=former)[0].hits[0].key == APPLE
    move(indexed.index_dir)
    indexed.refresh()
    with pytest.raises(ModelMismatch, match=former[:8]):
        indexed.search_vectors(vectors, k=1, model_fingerprint=former)


def test_a_model_that_cannot_be_opened_leaves_the_engine_where_it_was(indexed: SearchEngine, gallery: Path) -> None:
    before = indexed.search(gallery / APPLE).to_dict()
    move(indexed.index_dir, name="/gone/model")

    with pytest.raises(UnknownModel, match="/gone/model"):
        indexed.refresh()

    assert indexed.search(gallery / APPLE).to_dict() == before
    indexed.update_metadata(APPLE, product_id="A")  # is safe, and seen once the model is there
    with closing(IndexStore(indexed.index_dir)) as store:
        picture = store.picture(APPLE)
    assert picture is not None
    assert picture.attributes.product_id == "A"


@pytest.mark.parametrize("way", ["moved", "backed up"])
def test_a_model_inside_the_index_goes_where_the_index_goes(
    indexed: SearchEngine, gallery: Path, tmp_path: Path, way: str
) -> None:
    from retrieval.encoder.checkpoint import save_checkpoint
    from retrieval.encoder.weights import load_twin

    twin = load_twin(OTHER)
    folder = indexed.index_dir / "models" / "other"
    save_checkpoint(folder, twin.config, twin.weights())
    move(indexed.index_dir, str(folder), name="models/other")
    if way == "backed up":
        indexed.backup(tmp_path / "there")
    indexed.close()
    if way == "moved":
        indexed.index_dir.rename(tmp_path / "there")
    shutil.rmtree(indexed.index_dir, ignore_errors=True)

    with SearchEngine.open(tmp_path / "there") as engine:
        assert finds_itself(engine, gallery / APPLE)
        np.testing.assert_allclose(np.linalg.norm(engine.embed([gallery / CAR]), axis=1), 1.0, atol=1e-3)
