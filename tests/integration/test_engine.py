"""What a backend gets from the library: upserts, metadata, removal, search, generations, clear refusals."""

import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from indexer.changes import Committed
from indexer.errors import IndexExists, IndexNotFound, ModelMismatch, VectorError
from indexer.store import IndexStore
from retrieval.engine import SearchEngine
from retrieval.errors import DeviceUnavailable, EngineUnusable, PictureUndecodable, UnknownKey, UnknownModel
from retrieval.records import Box

MODEL = "efficientnet_lite0"
APPLE, CAR = "apple/noto.png", "car/noto.png"


def rgb(path: Path) -> PIL.Image.Image:
    """The picture as it looks on white: what every way of passing it must come to."""
    picture = PIL.Image.open(path).convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


@pytest.mark.parametrize("way", ["path", "string", "bytes", "image", "array"])
def test_every_way_of_passing_a_picture_gives_one_embedding(engine: SearchEngine, gallery: Path, way: str) -> None:
    ways = {
        "path": lambda: gallery / APPLE,
        "string": lambda: str(gallery / APPLE),
        "bytes": lambda: (gallery / APPLE).read_bytes(),
        "image": lambda: rgb(gallery / APPLE),
        "array": lambda: np.asarray(rgb(gallery / APPLE)),
    }
    engine.upsert("one", ways[way]())
    hit = engine.search(gallery / APPLE, k=1).hits[0]
    assert hit.key == "one"
    assert hit.score == pytest.approx(1.0, abs=5e-4)


@pytest.mark.parametrize("way", ["bytes", "array"])
def test_what_exists_nowhere_else_is_kept_in_the_index(engine: SearchEngine, gallery: Path, way: str) -> None:
    image = (gallery / APPLE).read_bytes() if way == "bytes" else np.asarray(rgb(gallery / APPLE))
    engine.upsert("one", image)
    kept = engine.search(gallery / APPLE, k=1).hits[0].path
    assert kept is not None
    assert kept.is_relative_to(engine.index_dir)
    np.testing.assert_array_equal(np.asarray(rgb(kept)), np.asarray(rgb(gallery / APPLE)))


def test_a_file_that_is_upserted_stays_where_it_is(engine: SearchEngine, gallery: Path) -> None:
    engine.upsert("one", gallery / APPLE)
    assert engine.search(gallery / APPLE, k=1).hits[0].path == gallery / APPLE
    assert engine.info().bytes["pictures"] == 0


def test_an_upsert_replaces_what_the_key_held(engine: SearchEngine, gallery: Path) -> None:
    engine.upsert("one", gallery / APPLE, product_id="A", metadata={"price": 1})
    generation = engine.upsert("one", gallery / CAR, product_id="B")
    result = engine.search(gallery / CAR)
    assert [(hit.key, hit.product_id, dict(hit.metadata)) for hit in result.hits] == [("one", "B", {})]
    assert result.generation == generation == engine.generation


def test_an_upsert_that_is_no_picture_changes_nothing(engine: SearchEngine, gallery: Path) -> None:
    engine.upsert("one", gallery / APPLE)
    before = engine.generation
    with pytest.raises(PictureUndecodable):
        engine.upsert("one", b"no picture")
    assert engine.generation == before
    assert engine.search(gallery / APPLE, k=1).hits[0].key == "one"


def test_the_file_that_cannot_be_used_is_named(engine: SearchEngine, gallery: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    with pytest.raises(PictureUndecodable, match=r"^.*bad\.jpg: not a picture"):
        engine.search([gallery / APPLE, tmp_path / "bad.jpg"])
    with pytest.raises(PictureUndecodable, match=r"^.*bad\.jpg: not a picture"):
        engine.upsert("one", tmp_path / "bad.jpg")


def test_metadata_changes_without_touching_the_vector(engine: SearchEngine, gallery: Path) -> None:
    engine.upsert("one", gallery / APPLE, product_id="A", label="fruit", metadata={"price": 1})
    before = engine.search(gallery / APPLE).hits[0]
    engine.update_metadata("one", metadata={"price": 2, "in_stock": True})
    after = engine.search(gallery / APPLE).hits[0]
    assert (after.metadata, after.product_id) == ({"price": 2, "in_stock": True}, "A")
    assert after.score == before.score


def test_attributes_that_are_not_named_stay(engine: SearchEngine, gallery: Path) -> None:
    engine.upsert("one", gallery / APPLE, product_id="A", metadata={"price": 1})
    engine.update_metadata("one", product_id=None)
    hit = engine.search(gallery / APPLE).hits[0]
    assert (hit.product_id, hit.metadata) == (None, {"price": 1})


def own_and_another(engine: SearchEngine, gallery: Path, is_shared: bool) -> tuple[SearchEngine, SearchEngine]:
    """An engine twice, or two of one index, which holds "one"."""
    engine.upsert("one", gallery / APPLE, product_id="A", label="-", metadata={"n": -1})
    return engine, engine if is_shared else SearchEngine.open(engine.index_dir)


@pytest.mark.parametrize("is_shared", [True, False], ids=["one engine", "two engines"])
def test_changes_of_different_attributes_at_once_are_all_kept(
    engine: SearchEngine, gallery: Path, is_shared: bool
) -> None:
    here, there = own_and_another(engine, gallery, is_shared)
    lost = []
    for turn in range(15):
        changes: list[Callable[[], int]] = [
            partial(here.update_metadata, "one", product_id=f"P{turn}"),
            partial(there.update_metadata, "one", label=f"L{turn}"),
            partial(here.update_metadata, "one", metadata={"n": turn}),
        ]
        threads = [threading.Thread(target=change) for change in changes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = here.picture("one")
        if (found.product_id, found.label, found.metadata) != (f"P{turn}", f"L{turn}", {"n": turn}):
            lost.append(found)
    there.close()
    assert lost == []


@pytest.mark.parametrize("is_shared", [True, False], ids=["one engine", "two engines"])
def test_a_change_of_one_attribute_beside_an_upsert_brings_no_former_ones_back(
    engine: SearchEngine, gallery: Path, is_shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = own_and_another(engine, gallery, is_shared)
    commit = IndexStore.commit

    def upserted_before(store: IndexStore, *given: Any, **named: Any) -> Committed:
        monkeypatch.setattr(IndexStore, "commit", commit)
        there.upsert("one", gallery / CAR, product_id="B", metadata={"price": 2})
        return commit(store, *given, **named)

    monkeypatch.setattr(IndexStore, "commit", upserted_before)
    here.update_metadata("one", label="new")
    found = here.picture("one")
    there.close()
    assert (found.product_id, found.label, found.metadata) == ("B", "new", {"price": 2})


def test_removal_is_all_or_nothing(engine: SearchEngine, gallery: Path) -> None:
    engine.upsert("one", gallery / APPLE)
    engine.upsert("two", gallery / CAR)
    with pytest.raises(UnknownKey, match=r"three.*nothing was removed"):
        engine.remove(["one", "three"])
    assert engine.info().images == 2
    engine.remove(["one", "two", "one"])
    assert engine.info().images == 0


@pytest.mark.parametrize("call", ["remove", "update_metadata"])
def test_an_unknown_key_is_named(engine: SearchEngine, call: str) -> None:
    with pytest.raises(UnknownKey, match="nobody"):
        engine.remove("nobody") if call == "remove" else engine.update_metadata("nobody", metadata={})


def test_a_batch_of_queries_is_answered_in_its_order(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    queries = [gallery / CAR, gallery / APPLE, gallery / "banana/fluent.webp"]
    results = engine.search(queries, k=1)
    assert [result.hits[0].path for result in results] == queries
    assert [result.query for result in results] == [str(query) for query in queries]


@pytest.mark.parametrize("refined", [{}, {"expand": 3, "rerank": True, "group_by": "product_id", "crops": True}])
def test_an_empty_batch_has_no_answers(engine: SearchEngine, gallery: Path, refined: dict[str, Any]) -> None:
    engine.sync(gallery)
    assert engine.search([], **refined) == []


def test_a_batch_scores_as_single_queries_do(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    queries = sorted(gallery.glob("*/noto.png"))
    batch = engine.search(queries, k=3)
    for query, together in zip(queries, batch, strict=True):
        alone = engine.search(query, k=3)
        assert [hit.key for hit in together.hits] == [hit.key for hit in alone.hits]
        assert [hit.score for hit in together.hits] == pytest.approx([hit.score for hit in alone.hits], abs=2e-3)


def test_hits_below_the_minimum_score_are_left_out(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    every = engine.search(gallery / APPLE, k=12).hits
    bar = every[4].score
    assert engine.search(gallery / APPLE, k=12, min_score=bar).hits == every[:5]


def test_ranks_count_from_one_and_scores_descend(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    hits = engine.search(gallery / APPLE, k=5).hits
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert all(better.score >= worse.score for better, worse in itertools.pairwise(hits))


def test_embeddings_can_be_searched_by(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    vectors = engine.embed([gallery / APPLE, gallery / CAR])
    assert [result.hits[0].key for result in engine.search_vectors(vectors, k=1)] == [APPLE, CAR]


def test_a_box_embeds_that_part_alone(engine: SearchEngine, gallery: Path) -> None:
    left, right = rgb(gallery / APPLE), rgb(gallery / CAR)
    both = PIL.Image.new("RGB", (left.width + right.width, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    engine.upsert("the car", np.asarray(both), box=Box(left.width, 0, right.width, right.height))
    assert engine.search(gallery / CAR).hits[0].score > 0.99
    assert engine.search(gallery / APPLE).hits[0].score < 0.9


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(engine: SearchEngine, gallery: Path, k: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        engine.search(gallery / APPLE, k=k)


def test_vectors_of_another_width_are_refused(engine: SearchEngine) -> None:
    with pytest.raises(VectorError, match=r"\(N, 1280\)"):
        engine.search_vectors(np.ones((1, 3), np.float32))


def test_a_reader_keeps_its_generation_until_it_refreshes(engine: SearchEngine, gallery: Path) -> None:
    engine.upsert("one", gallery / APPLE)
    with SearchEngine.open(engine.index_dir) as reader:
        before = reader.generation
        engine.upsert("two", gallery / CAR)
        assert [hit.key for hit in reader.search(gallery / CAR).hits] == ["one"]
        assert reader.refresh() == engine.generation > before
        assert reader.search(gallery / CAR, k=1).hits[0].key == "two"


def test_threads_may_search_one_engine_while_it_writes(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    errors: list[BaseException] = []
    done = threading.Event()

    def search_on() -> None:
        try:
            while not done.is_set():
                result = engine.search(gallery / APPLE, k=3)
                assert len(result.hits) == 3
                assert result.hits[0].key == APPLE
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(15):
        engine.upsert("moving", gallery / CAR, metadata={"number": number})
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_another_model_is_refused_with_both_names(engine: SearchEngine) -> None:
    with pytest.raises(ModelMismatch, match=r"efficientnet_lite0@.*efficientnet_lite2@"):
        SearchEngine.open(engine.index_dir, model="efficientnet_lite2")


def test_opening_with_the_models_own_name_is_fine(engine: SearchEngine) -> None:
    SearchEngine.open(engine.index_dir, model=MODEL).close()


def test_an_unknown_model_leaves_no_index_behind(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="did you mean efficientnet_lite"):
        SearchEngine.create(tmp_path / "new", model="efficientnet_lite")
    assert not (tmp_path / "new").exists()


def test_an_index_is_not_made_twice(engine: SearchEngine) -> None:
    with pytest.raises(IndexExists):
        SearchEngine.create(engine.index_dir, model=MODEL)


def test_an_index_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFound, match="retrieve index GALLERY"):
        SearchEngine.open(tmp_path / "nowhere")


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has the GPU that must be missing")
def test_a_gpu_that_is_not_there_is_named(engine: SearchEngine, gallery: Path) -> None:
    with (
        SearchEngine.open(engine.index_dir, device="cuda:1") as on_gpu,
        pytest.raises(DeviceUnavailable, match="cuda:1"),
    ):
        on_gpu.search(gallery / APPLE)


def test_a_closed_engine_says_so(engine: SearchEngine, gallery: Path) -> None:
    engine.close()
    engine.close()
    with pytest.raises(EngineUnusable, match="closed"):
        engine.search(gallery / APPLE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python itself warns of forking with threads
def test_an_engine_inherited_through_a_fork_refuses_to_work(engine: SearchEngine, gallery: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def in_child() -> None:
        try:
            engine.search(gallery / APPLE)
        except EngineUnusable as error:
            answers.put(str(error))
        finally:
            os._exit(0)

    child = context.Process(target=in_child)
    child.start()
    child.join()
    assert "fork" in answers.get()
    engine.upsert("still usable here", gallery / APPLE)


def test_a_backup_is_an_index_of_its_own(engine: SearchEngine, gallery: Path, tmp_path: Path) -> None:
    engine.upsert("kept", (gallery / APPLE).read_bytes())
    done = engine.backup(tmp_path / "copy")
    engine.remove("kept")
    with SearchEngine.open(tmp_path / "copy") as copy:
        hit = copy.search(gallery / APPLE).hits[0]
    assert (done.images, hit.key) == (1, "kept")
    assert hit.path is not None
    assert hit.path.is_relative_to(tmp_path / "copy")
    assert hit.path.exists()


def test_the_shapes_are_the_stable_ones(engine: SearchEngine, gallery: Path) -> None:
    report = engine.sync(gallery).to_dict()
    assert list(report) == [
        *("added", "updated", "removed", "unchanged", "skipped", "stale"),
        *("seconds", "images_per_second", "generation"),
    ]
    result = engine.search(gallery / APPLE, k=1).to_dict()
    assert list(result) == ["query", "hits", "generation", "model"]
    assert list(result["hits"][0]) == [
        *("rank", "key", "path", "score", "match_probability", "product_id", "metadata"),
    ]
    info = engine.info().to_dict()
    assert list(info) == [
        "images",
        "products",
        "generation",
        "model",
        "recipe",
        "ann_recall_at_10",
        "segments",
        "bytes",
    ]
    assert list(info["model"]) == ["name", "fingerprint", "dim"]
