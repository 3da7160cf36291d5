"""A whole refresh: an index learns from its own labels, is judged on what the candidate did not see, and moves."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import RETRIEVE, assert_one_line, retrieve
from indexer.errors import DiskFull, IndexBusy
from indexer.integrity import verify
from indexer.store import IndexStore
from retrieval.encoder.runtime import describe_model
from retrieval.engine import SearchEngine
from retrieval.errors import GalleryError, LabelsMissing, RefreshError, TrainingError
from retrieval.index_model import model_address
from retrieval.refresh import RefreshConfig, history, prune, refresh, rollback, run
from retrieval.refresh.models import stand_in
from retrieval.training import Augmentation, train
from training_pictures import quick, things_of, write_views
from vectors import vectors_by_key

QUICKLY: dict[str, Any] = {
    "epochs": 3,
    "classes_per_batch": 8,
    "pictures_per_class": 4,
    "backbone_rate": 1e-3,
    "head_rate": 1e-3,
    "augmentation": Augmentation(crop_area=0.7, rotation_degrees=180),
}
AS_OPTIONS = ("--no-refit", "--epochs", "3", "--batch", "8", "4", "--rates", "1e-3", "1e-3")
ANY = "recall_at_1 >= 0"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Path:
    """A network that has learned next to nothing."""
    folder = tmp_path_factory.mktemp("start")
    source = write_views(demo_gallery, folder / "source", things_of(demo_gallery)[:8], views=4)
    train(quick(source, folder / "model", head_rate=1e-6, backbone_rate=1e-6, validation="none"))
    return folder / "model"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path, start: Path) -> Path:
    """A folder with a gallery of 30 things, six views each, and an index of it by that network; to be copied."""
    folder = tmp_path_factory.mktemp("made")
    gallery = write_views(demo_gallery, folder / "gallery", things_of(demo_gallery)[10:40], views=6)
    with SearchEngine.create(folder / "index", model=start) as engine:
        engine.sync(gallery)
    return folder


@pytest.fixture
def index(made: Path, tmp_path: Path) -> Path:
    """The index; the gallery is shared and must not be changed."""
    return Path(shutil.copytree(made / "index", tmp_path / "index"))


def config(index: Path, **changes: Any) -> RefreshConfig:
    return dataclasses.replace(RefreshConfig(index, training=QUICKLY), **changes)


def answers(index: Path, gallery: Path) -> list[dict[str, Any]]:
    with SearchEngine.open(index) as engine:
        found = [engine.search(path, k=50).to_dict() for path in sorted(gallery.glob("*/0.png"))]
    return [{name: value for name, value in answer.items() if name != "generation"} for answer in found]


def test_a_refresh_makes_the_index_better_and_a_rollback_takes_it_back(index: Path, made: Path) -> None:
    before = answers(index, made / "gallery")
    told: list[str] = []
    report = refresh(config(index, gate="map_at_r >= current + 0.02"), lambda title, done, total: told.append(title))

    assert report.unmet == []
    assert report.moved is not None
    assert report.moved.embedded == 180
    comparison = report.judged.comparison
    assert comparison is not None
    assert comparison.figures["map_at_r"].value > report.judged.figures["map_at_r"].value + 0.02
    assert list(dict.fromkeys(told))[:3] == [f"candidate, epoch {epoch}/3" for epoch in (1, 2, 3)]
    assert "refit, epoch 3/3" in told
    with closing(IndexStore(index)) as store:
        assert store.space.model_fingerprint == report.moved.model.fingerprint != report.candidate.fingerprint
        assert stand_in(store, store.space).model_fingerprint == report.candidate.fingerprint
        (kept,) = (path for path in (index / "models").iterdir() if path.name in store.space.model_name)
    assert describe_model(kept).fingerprint == report.moved.model.fingerprint
    assert not (index / "refresh").exists()
    assert verify(index).is_whole
    first, second = history(index)
    assert first.metrics["map_at_r"] == report.judged.figures["map_at_r"].value
    assert second.metrics["map_at_r"] == comparison.figures["map_at_r"].value
    assert second.metrics["queries"] == report.judged.queries
    rollback(index)
    assert answers(index, made / "gallery") == before


@pytest.mark.slow
def test_what_is_held_out_is_trained_on_by_the_refit_alone(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[str]] = {}

    def keep(settings: dict[str, Any], **named: Any) -> None:
        source = Path(settings["source"])
        seen[Path(settings["out"]).parent.name] = {
            json.loads(line)["key"] for line in source.read_text("utf-8").splitlines()
        }
        real(settings, **named)

    real = run.train_apart
    monkeypatch.setattr(run, "train_apart", keep)
    report = refresh(config(index, gate=ANY))
    assert len(seen["refit"]) == 180
    held_out = seen["refit"] - seen["candidate"]
    assert report.judged.queries == len(held_out)
    assert 0.15 < len(held_out) / 180 < 0.45
    things = {key.split("/")[0] for key in held_out}
    whole = [thing for thing in things if sum(key.startswith(f"{thing}/") for key in held_out) == 6]
    assert whole


@pytest.mark.slow
def test_without_a_refit_the_candidate_itself_goes_live(index: Path) -> None:
    report = refresh(config(index, gate=ANY, refit=False))
    assert report.moved is not None
    assert report.moved.model.fingerprint == report.candidate.fingerprint


@pytest.mark.slow
def test_the_successor_is_trained_from_and_judged_against_the_stand_in(index: Path) -> None:
    first = refresh(config(index, gate=ANY))
    second = refresh(config(index, gate=ANY))
    assert second.judged.model.fingerprint == first.candidate.fingerprint
    assert second.moved is not None
    assert first.moved is not None
    assert second.moved.former.fingerprint == first.moved.model.fingerprint
    names = {model.fingerprint for model in prune(index, keep=1)}
    assert names >= {first.candidate.fingerprint, first.moved.model.fingerprint}
    assert second.candidate.fingerprint not in names  # the next one is judged against it
    third = refresh(config(index, gate=ANY))
    assert third.judged.model.fingerprint == second.candidate.fingerprint


@pytest.mark.slow
def test_a_candidate_that_does_not_pass_leaves_the_index_as_it_was(index: Path, made: Path) -> None:
    before, files = answers(index, made / "gallery"), bytes_of_live_pair(index)
    report = refresh(config(index, gate="recall_at_1 > 1"))
    assert report.moved is None
    assert report.judged.comparison is not None
    reached = report.judged.comparison.figures["recall_at_1"].value
    assert report.unmet == [f"recall_at_1 is {reached:.4f}, > 1.0000 is asked for"]
    assert answers(index, made / "gallery") == before
    assert bytes_of_live_pair(index) == files
    assert len(history(index)) == 1


def bytes_of_live_pair(index: Path) -> dict[str, bytes]:
    """The files of the live model, its segments, and its vectors that lie in the catalog."""
    with closing(IndexStore(index)) as store:
        model = Path(model_address(index, store.space))
        parts = [path for path in model.rglob("*") if path.is_file()]
        parts += [one.segment.path for one in store.snapshot.segments]
        tail = store.snapshot.tail
        found = {"tail": tail.ids.tobytes() + tail.vectors.tobytes()}
    return found | {str(path): path.read_bytes() for path in parts}


@pytest.mark.slow
def test_a_dry_run_judges_and_moves_to_nothing(index: Path, made: Path) -> None:
    before = answers(index, made / "gallery")
    report = refresh(config(index, gate=ANY, dry_run=True))
    assert (report.unmet, report.moved) == ([], None)
    assert answers(index, made / "gallery") == before


@pytest.mark.slow
def test_what_comes_and_goes_meanwhile_is_there_or_gone_afterwards(index: Path, made: Path, tmp_path: Path) -> None:
    picture = sorted((made / "gallery").glob("*/1.png"))
    gone = "/".join(picture[3].parts[-2:])
    with SearchEngine.open(index) as engine:

        def meddle(title: str, done: int, total: int) -> None:
            if title == "refit, epoch 1/3" and not engine.info().products:
                engine.upsert("late", picture[0].read_bytes(), product_id="late")
            if title == "embedding" and done == 50 and engine.info().images == 181:
                engine.upsert("later", picture[1], product_id="later")
                engine.remove(gone)

        report = refresh(config(index, gate=ANY), meddle)
        assert report.moved is not None
        engine.refresh()
        assert engine.search(picture[0], k=2).hits[-1].score > 0.999
        assert engine.info().images == 181
        with SearchEngine.create(tmp_path / "fresh", model=index / report.moved.model.name) as fresh:
            fresh.sync(made / "gallery")
            fresh.upsert("late", picture[0].read_bytes(), product_id="late")
            fresh.upsert("later", picture[1], product_id="later")
            fresh.remove(gone)
        for found, expected in zip(
            answers(index, made / "gallery"), answers(tmp_path / "fresh", made / "gallery"), strict=True
        ):
            assert [hit["score"] for hit in found["hits"]] == pytest.approx(
                [hit["score"] for hit in expected["hits"]], abs=2e-3
            )
    assert verify(index).is_whole


LATER = ("embedding for the judgement", "refit, epoch 3/3", "embedding")


@pytest.mark.slow
def test_a_thousand_pictures_that_come_two_hundred_that_change_and_two_hundred_that_go_meanwhile(
    index: Path, made: Path, tmp_path: Path
) -> None:
    """Some changes at every step of the refresh, so that all its phases see some; then the final gallery anew."""
    pictures = {"/".join(path.parts[-2:]): path for path in sorted((made / "gallery").rglob("*.png"))}
    views, random = list(pictures.values()), np.random.default_rng(0)
    with SearchEngine.open(index) as engine:
        for number in range(300):
            pictures[f"there/{number}"] = views[number % len(views)]
            engine.upsert(f"there/{number}", pictures[f"there/{number}"])
    keys = [key for key in pictures if key.startswith("there/")] + [key for key in pictures if key.endswith("/5.png")]
    chosen = [keys[at] for at in random.permutation(len(keys))]
    changed, gone = chosen[:130], chosen[130:330]
    changed += [f"new/{number}" for number in range(70)]  # some of those that came meanwhile
    waiting: list[tuple[str, str]] = [("put", f"new/{number}") for number in range(70)]
    rest = [("put", f"new/{number}") for number in range(70, 1000)]
    rest += [("put", key) for key in changed] + [("remove", key) for key in gone]
    waiting += [rest[at] for at in random.permutation(len(rest))]
    assert len(waiting) == 1400
    quotas = {"candidate": 250, "embedding for the judgement": 400, "refit": 250, "embedding": 500}

    with SearchEngine.open(index) as engine:

        def meddle(title: str, done: int, total: int) -> None:
            phase = title.split(",")[0]
            pace = min(20, quotas[phase])
            quotas[phase] -= pace
            for verb, key in waiting[:pace]:
                if verb == "remove":
                    engine.remove(key)
                    del pictures[key]
                else:
                    pictures[key] = views[int(random.integers(len(views)))]
                    engine.upsert(key, pictures[key].read_bytes())
            del waiting[:pace]

        report = refresh(config(index, gate=ANY), meddle)
    assert waiting == []
    assert set(quotas.values()) == {0}
    assert report.moved is not None
    with SearchEngine.create(tmp_path / "fresh", model=index / report.moved.model.name) as fresh:
        for key, path in pictures.items():
            fresh.upsert(key, path)
    found, expected = vectors_by_key(index), vectors_by_key(tmp_path / "fresh")
    assert found.keys() == expected.keys() == pictures.keys()
    assert min(float(found[key] @ expected[key]) for key in found) > 0.999
    assert verify(index).is_whole


@pytest.mark.parametrize(
    "title", ["candidate, epoch 2/3", *(pytest.param(one, marks=pytest.mark.slow) for one in LATER)]
)
def test_a_refresh_that_was_stopped_goes_on(index: Path, made: Path, title: str) -> None:
    before, asked = answers(index, made / "gallery"), config(index, gate=ANY, refit="candidate" not in title)

    def stop(now: str, done: int, total: int) -> None:
        if now == title and done >= total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refresh(asked, stop)
    assert answers(index, made / "gallery") == before

    told: list[str] = []
    report = refresh(asked, lambda now, done, total: told.append(now))
    assert report.moved is not None
    assert "candidate, epoch 1/3" not in told
    if title == "embedding":
        assert not any(now.startswith(("candidate", "refit")) for now in told)
        assert report.moved.embedded < 180


def kill_at(index: Path, moment_s: float) -> bool:
    """Run `retrieve refresh` and kill it, with all it has started, after a while; False where it had ended by then."""
    command = [*RETRIEVE, "refresh", "--index", str(index), "--gate", ANY, *AS_OPTIONS]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(moment_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


@pytest.mark.parametrize(
    "moment_s", [8.0, *(pytest.param(one, marks=pytest.mark.slow) for one in np.linspace(0.5, 25.0, 30).tolist())]
)
def test_a_killed_refresh_leaves_the_index_answering_and_goes_on(index: Path, made: Path, moment_s: float) -> None:
    before = answers(index, made / "gallery")
    was_killed = kill_at(index, moment_s)
    is_moved = len(history(index)) == 2
    assert is_moved or was_killed
    if not is_moved:
        assert answers(index, made / "gallery") == before
    done = retrieve("refresh", "--index", index, "--gate", ANY, *AS_OPTIONS)
    assert done.returncode == 0, done.stderr
    for said in ("held-out pictures", "Recall@1", "moved from"):
        assert said in done.stdout
    assert verify(index).is_whole
    assert len(history(index)) == 2 + is_moved


def test_the_command_line_refuses_with_exit_code_5(index: Path) -> None:
    shortly = ("--no-refit", "--epochs", "1", "--batch", "8", "4")
    done = retrieve("refresh", "--index", index, "--gate", "recall_at_1 > 1", "--json", *shortly)
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1].startswith("gate: recall_at_1 is ")
    said = json.loads(done.stdout)
    assert said["moved"] is None
    assert said.keys() == {"candidate", "judged", "gate", "unmet", "moved", "feedback", "seconds"}


# What cannot be


def test_an_index_without_labels_is_refused(tmp_path: Path, demo_gallery: Path, start: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(demo_gallery.glob("*/noto.png"))[:4]):
        shutil.copy(path, flat / f"{number}.png")
    with SearchEngine.create(tmp_path / "index", model=start) as engine:
        engine.sync(flat)
    with pytest.raises(LabelsMissing, match="none of its 4 pictures has a product_id or a label"):
        refresh(config(tmp_path / "index"))


def test_too_few_products_are_refused_with_the_remedy(index: Path) -> None:
    wide = {**QUICKLY, "classes_per_batch": 64}
    with pytest.raises(TrainingError, match="classes to train on, a batch wants 64; pass --batch"):
        refresh(config(index, training=wide))


def test_a_file_of_labels_goes_before_what_the_index_says(index: Path, made: Path, tmp_path: Path) -> None:
    keys = [path.relative_to(made / "gallery").as_posix() for path in sorted((made / "gallery").glob("*/*"))]
    labels = tmp_path / "labels.csv"
    labels.write_text("key,product_id\n" + "".join(f"{key},{'B' if key < keys[90] else 'C'}\n" for key in keys))
    with pytest.raises(TrainingError, match="has 2 classes to train on, a batch wants 8"):
        refresh(config(index, labels=labels))


def test_labels_of_pictures_that_are_not_there_are_refused(index: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("key,product_id\nnobody.png,A\nno-one.png,A\n")
    with pytest.raises(GalleryError, match=r"holds no picture 'nobody.png' and 1 more, of which the labels say"):
        refresh(config(index, labels=labels))


def test_too_small_a_disk_is_said_before_anything_is_trained(small_disk: Path, start: Path) -> None:
    SearchEngine.create(small_disk / "index", model=start).close()
    with pytest.raises(
        DiskFull, match=r"a refresh writes some 0\.5 GB, 0\.0 GB are free on that disk; free some space"
    ):
        refresh(config(small_disk / "index"))


def test_nothing_to_hold_out_is_refused(tmp_path: Path, demo_gallery: Path, start: Path) -> None:
    few = write_views(demo_gallery, tmp_path / "few", things_of(demo_gallery)[:2], views=2)
    with SearchEngine.create(tmp_path / "index", model=start) as engine:
        engine.sync(few)
    with pytest.raises(TrainingError, match="of 4 labelled pictures none can be held out"):
        refresh(config(tmp_path / "index"))


def test_a_setting_that_is_none_is_one_line(index: Path) -> None:
    done = retrieve("refresh", "--index", index, "--loss", "triplet", "--miner", "hardest", *AS_OPTIONS)
    assert done.returncode == 1
    assert_one_line(done.stderr)
    assert "hardest" in done.stderr


def test_a_gate_that_is_none_is_refused_before_anything_is_trained(index: Path) -> None:
    with pytest.raises(RefreshError, match="is no condition"):
        refresh(config(index, gate="better"))
    assert not (index / "refresh").exists()


def test_two_refreshes_at_once_are_refused_by_name(index: Path) -> None:
    def second(title: str, done: int, total: int) -> None:
        with pytest.raises(IndexBusy, match=f"`retrieve refresh` runs as process {os.getpid()}"):
            refresh(config(index))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refresh(config(index), second)
