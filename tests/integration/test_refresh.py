"""An index moves to another model, back, and lets go of former ones, as a user would have it."""

import os
import shutil
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from commands import assert_one_line, retrieve, retrieve_json
from indexer.errors import IndexBusy
from indexer.integrity import verify
from indexer.store import IndexStore
from retrieval.encoder.checkpoint import save_checkpoint
from retrieval.encoder.weights import load_twin
from retrieval.engine import SearchEngine
from retrieval.errors import RefreshError
from retrieval.refresh import history, move_to_model, prune, rollback

OTHER = "efficientnet_lite2"
APPLE, CAR = "apple/noto.png", "car/noto.png"


@pytest.fixture
def index(engine: SearchEngine, gallery: Path) -> Path:
    """An index of twelve pictures and one that was given as bytes."""
    engine.sync(gallery)
    engine.upsert("bytes", (gallery / CAR).read_bytes(), product_id="car")
    return engine.index_dir


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory."""
    folder, twin = tmp_path_factory.mktemp("models") / "mine", load_twin(OTHER)
    save_checkpoint(folder, twin.config, twin.weights())
    return folder


def answers(index: Path, gallery: Path) -> list[dict[str, Any]]:
    """What is found for every picture of the gallery, generation aside."""
    with SearchEngine.open(index) as engine:
        found = [engine.search(path, k=20).to_dict() for path in sorted(gallery.glob("*/*"))]
    return [{name: value for name, value in answer.items() if name != "generation"} for answer in found]


def test_an_index_moves_and_answers_as_a_fresh_one_by_that_model(index: Path, gallery: Path, tmp_path: Path) -> None:
    with SearchEngine.create(tmp_path / "fresh", model=OTHER) as fresh:
        fresh.sync(gallery)
        fresh.upsert("bytes", (gallery / CAR).read_bytes(), product_id="car")
    seen: list[tuple[int, int]] = []
    report = move_to_model(index, OTHER, on_progress=lambda done, total: seen.append((done, total)))

    assert report.embedded == 13
    assert seen == [(done, 13) for done in range(1, 14)]
    assert (report.former.name, report.model.name) == ("efficientnet_lite0", OTHER)
    for moved, expected in zip(answers(index, gallery), answers(tmp_path / "fresh", gallery), strict=True):
        assert moved["model"] == expected["model"]
        assert {hit["key"]: hit["product_id"] for hit in moved["hits"]} == {
            hit["key"]: hit["product_id"] for hit in expected["hits"]
        }
        assert [hit["score"] for hit in moved["hits"]] == pytest.approx(
            [hit["score"] for hit in expected["hits"]], abs=2e-3
        )
    assert verify(index).is_whole


def test_moving_to_the_same_model_does_nothing(index: Path) -> None:
    with closing(IndexStore(index)) as store:
        before = store.snapshot.generation
    report = move_to_model(index, "efficientnet_lite0")
    assert (report.embedded, report.generation) == (0, before)
    assert report.former == report.model


def test_a_rollback_answers_exactly_as_before_and_embeds_nothing(index: Path, gallery: Path) -> None:
    before = answers(index, gallery)
    move_to_model(index, OTHER)
    after = answers(index, gallery)
    assert after != before

    assert rollback(index).embedded == 0
    assert answers(index, gallery) == before
    assert rollback(index).embedded == 0
    assert answers(index, gallery) == after


def test_a_rollback_embeds_what_has_come_since_and_leaves_out_what_has_gone(
    index: Path, gallery: Path, tmp_path: Path
) -> None:
    move_to_model(index, OTHER)
    with SearchEngine.open(index) as engine:
        engine.upsert("late", gallery / CAR)
        engine.upsert("bytes", (gallery / APPLE).read_bytes())
        engine.remove(APPLE)
    assert rollback(index).embedded == 2

    with SearchEngine.create(tmp_path / "fresh", model="efficientnet_lite0") as fresh:
        fresh.sync(gallery)
        fresh.upsert("late", gallery / CAR)
        fresh.upsert("bytes", (gallery / APPLE).read_bytes())
        fresh.remove(APPLE)
    for found, expected in zip(answers(index, gallery), answers(tmp_path / "fresh", gallery), strict=True):
        assert {hit["key"] for hit in found["hits"]} == {hit["key"] for hit in expected["hits"]}
        assert [hit["score"] for hit in found["hits"]] == pytest.approx(
            [hit["score"] for hit in expected["hits"]], abs=2e-3
        )


def test_what_has_vanished_stops_a_move_and_the_index_stays_as_it_was(index: Path, gallery: Path) -> None:
    before = answers(index, gallery)
    (gallery / CAR).rename(gallery / "car.hidden")
    with pytest.raises(
        RefreshError,
        match=f"^picture {CAR} of 13 cannot be embedded by the other model .no such file., and at most 1% may be left",
    ):
        move_to_model(index, OTHER)
    (gallery / "car.hidden").rename(gallery / CAR)
    assert answers(index, gallery) == before
    assert move_to_model(index, OTHER).embedded == 1  # all others were embedded before


def test_what_has_vanished_is_left_out_where_that_is_allowed_and_found_again_by_a_sync(
    index: Path, gallery: Path
) -> None:
    before = answers(index, gallery)
    hidden = gallery.parent / "hidden.png"
    (gallery / CAR).rename(hidden)
    report = move_to_model(index, OTHER, allow_missing=True)
    assert (report.embedded, report.missing, report.dropped) == (12, [CAR], [])
    assert verify(index).is_whole
    with SearchEngine.open(index) as engine:
        assert engine.info().images == 12
        assert CAR not in {hit.key for hit in engine.search(hidden, k=20).hits}
        hidden.rename(gallery / CAR)
        synced = engine.sync(gallery)
        assert (synced.updated, synced.unchanged) == (1, 11)
        assert engine.search(gallery / CAR, k=2).hits[1].score > 0.999
    assert rollback(index).embedded == 1  # the picture is another row since the sync
    assert [answer["model"] for answer in answers(index, gallery)] == [answer["model"] for answer in before]


def test_the_former_model_still_finds_what_was_left_out(index: Path, gallery: Path) -> None:
    before = answers(index, gallery)
    (gallery / CAR).rename(gallery.parent / "hidden.png")
    move_to_model(index, OTHER, allow_missing=True)
    assert rollback(index).embedded == 0
    (gallery.parent / "hidden.png").rename(gallery / CAR)
    assert answers(index, gallery) == before
    assert rollback(index).embedded == 1  # what was left out is tried again
    with SearchEngine.open(index) as engine:
        assert engine.info().images == 13


def test_what_has_vanished_since_is_dropped_by_a_rollback_only_if_told(index: Path, gallery: Path) -> None:
    before = answers(index, gallery)
    move_to_model(index, OTHER)
    late = gallery.parent / "late.png"
    shutil.copy(gallery / CAR, late)
    with SearchEngine.open(index) as engine:
        engine.upsert("late", late)
    late.unlink()

    with pytest.raises(RefreshError, match=r"^picture late of 14 cannot be embedded"):
        rollback(index)
    assert rollback(index, drop_newer=True).dropped == ["late"]
    assert answers(index, gallery) == before


def test_a_picture_that_comes_at_the_last_moment_and_cannot_be_read_stops_the_move(
    index: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_live = IndexStore.make_live

    def overtaken(store: IndexStore, *given: Any) -> int | None:
        monkeypatch.setattr(IndexStore, "make_live", make_live)
        with SearchEngine.open(index) as engine:
            engine.upsert("late", gallery / APPLE)
        (gallery / APPLE).unlink()
        return make_live(store, *given)

    monkeypatch.setattr(IndexStore, "make_live", overtaken)
    with pytest.raises(RefreshError, match=r"added just now .*noto.png.*; the index stays with its model: run again"):
        move_to_model(index, OTHER)
    with closing(IndexStore(index)) as store:
        assert store.space.model_name == "efficientnet_lite0"


def test_one_model_only_is_nothing_to_go_back_to(index: Path) -> None:
    with pytest.raises(RefreshError, match=r"has had one model only.*there is nothing to go back to"):
        rollback(index)


def test_the_history_names_models_and_times(index: Path) -> None:
    move_to_model(index, OTHER)
    rollback(index)
    first, second, third = history(index)
    assert [one.model.name for one in (first, second, third)] == ["efficientnet_lite0", OTHER, "efficientnet_lite0"]
    assert [one.note for one in (second, third)] == ["refresh", "rollback"]
    assert first.generation < second.generation < third.generation
    assert first.since <= second.since <= third.since
    assert [one.vectors for one in (first, second, third)] == [13, 13, 13]
    assert first.metrics == {}  # nobody has judged it


def test_pruning_keeps_the_present_model_and_as_many_as_are_asked_for(index: Path, gallery: Path) -> None:
    before = answers(index, gallery)
    move_to_model(index, OTHER)
    rollback(index)
    assert prune(index, keep=2) == []
    assert [model.name for model in prune(index, keep=1)] == [OTHER]
    assert prune(index, keep=1) == []
    assert answers(index, gallery) == before
    assert [one.vectors for one in history(index)] == [13, 0, 13]
    assert verify(index).is_whole
    assert rollback(index).embedded == 13  # the way back is as long as the way there
    with pytest.raises(ValueError, match=r"^keep is 0"):
        prune(index, keep=0)


def test_pruning_leaves_readers_of_the_former_model_alone(index: Path, gallery: Path) -> None:
    with SearchEngine.open(index) as reader:
        before = reader.search(gallery / APPLE).to_dict()
        move_to_model(index, OTHER)
        prune(index, keep=1)
        assert reader.search(gallery / APPLE).to_dict() == before
        reader.refresh()
        assert reader.search(gallery / APPLE, k=1).hits[0].key == APPLE


def test_a_model_directory_becomes_the_indexs_own_and_goes_with_the_last_of_its_vectors(
    index: Path, gallery: Path, trained: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(trained, mine)
    move_to_model(index, mine)
    shutil.rmtree(mine)
    assert answers(index, gallery)[0]["hits"][0]["score"] > 0.999
    (kept,) = (index / "models").iterdir()
    assert kept.name.startswith("mine-")

    move_to_model(index, "efficientnet_lite0")
    move_to_model(index, kept)  # by its place in the index
    assert [path.name for path in (index / "models").iterdir()] == [kept.name]
    rollback(index)
    prune(index, keep=1)
    assert list((index / "models").iterdir()) == []


def test_two_jobs_at_once_are_refused_by_name_and_writers_are_not(index: Path, gallery: Path) -> None:
    is_running, may_end = threading.Event(), threading.Event()

    def wait(done: int, total: int) -> None:
        is_running.set()
        may_end.wait(60)

    mover = threading.Thread(target=move_to_model, args=(index, OTHER), kwargs={"on_progress": wait})
    mover.start()
    assert is_running.wait(60)
    for job in (lambda: move_to_model(index, OTHER), lambda: rollback(index), lambda: prune(index, keep=1)):
        with pytest.raises(IndexBusy, match=f"`retrieve refresh` runs as process {os.getpid()}"):
            job()
    with SearchEngine.open(index) as engine:
        engine.upsert("meanwhile", gallery / APPLE, product_id="apple")
        engine.update_metadata("bytes", product_id="changed")
        engine.remove(CAR)
    may_end.set()
    mover.join()
    found = answers(index, gallery)[0]["hits"]
    assert {"meanwhile", CAR} & {hit["key"] for hit in found} == {"meanwhile"}
    assert next(hit for hit in found if hit["key"] == "bytes")["product_id"] == "changed"


def test_the_command_line_does_the_same(index: Path, gallery: Path, tmp_path: Path) -> None:
    moved = retrieve_json("refresh", "--model", OTHER, "--index", index)
    assert (moved["former"]["name"], moved["model"]["name"]) == ("efficientnet_lite0", OTHER)
    assert moved.keys() == {"former", "model", "embedded", "missing", "dropped", "seconds", "generation"}
    told = retrieve("rollback", "--index", index)
    assert "moved from efficientnet_lite2@" in told.stdout
    assert "0 pictures embedded" in told.stdout
    models = retrieve_json("history", "--index", index)["models"]
    assert [one["model"]["name"] for one in models] == ["efficientnet_lite0", OTHER, "efficientnet_lite0"]
    assert models[0].keys() == {"generation", "model", "since", "note", "vectors", "metrics"}
    assert len(retrieve("history", "--index", index).stdout.splitlines()) == 3
    assert retrieve_json("prune", "--keep", "1", "--index", index)["dropped"][0]["name"] == OTHER
    assert "no former model to drop" in retrieve("prune", "--keep", "1", "--index", index).stdout


def test_the_command_line_refuses_on_one_line(index: Path, gallery: Path) -> None:
    alone = retrieve("rollback", "--index", index)
    assert alone.returncode == 1
    assert_one_line(alone.stderr)
    (gallery / CAR).unlink()
    vanished = retrieve("refresh", "--model", OTHER, "--index", index)
    assert vanished.returncode == 1
    assert_one_line(vanished.stderr)
    assert CAR in vanished.stderr


def test_a_reader_in_another_process_never_mixes_models(index: Path, gallery: Path) -> None:
    before = answers(index, gallery)[0]
    move_to_model(index, OTHER)
    after = answers(index, gallery)[0]
    assert before["model"] != after["model"]
    asked = retrieve_json("query", gallery / APPLE, "--index", index)
    assert asked["queries"][0]["model"] == after["model"]
