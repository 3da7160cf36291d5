"""`retrieve train` on turned pictures of the demo gallery: it learns, it says what it did, and a kill costs nothing."""

import contextlib
import csv
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import retrieval.training.publish
from commands import RETRIEVE, retrieve, retrieve_json
from retrieval.encoder import tiny_cnn
from retrieval.encoder.checkpoint import load_checkpoint, read_config
from retrieval.encoder.preprocess import preprocess
from retrieval.encoder.twin import TwinEncoder
from retrieval.evaluation.metrics import score_ranking
from retrieval.images import decode
from retrieval.training import TrainProgress, train
from retrieval.training.distances import distance_matrix
from retrieval.training.losses import triplet_loss
from retrieval.training.miners import mine_all
from training_pictures import quick, things_of, write_views

FILES = {
    "README.md",
    "augmented.png",
    "config.json",
    "curves.png",
    "metrics.jsonl",
    "report.html",
    "split.json",
    "training.json",
    "weights.safetensors",
}
TURNED = ("--augment", "crop_area=0.7", "--augment", "rotation_degrees=180")
SLOWLY = ("--from", "tiny_cnn", "--epochs", "3", "--batch", "4", "4", "--rates", "1e-5", "1e-5", "--seed", "3")
TIMES = ("seconds", "images_per_second")


def of_the_start(seed: int = 0) -> TwinEncoder:
    """The network that a training of `tiny_cnn` starts from."""
    torch.manual_seed(seed)
    return TwinEncoder(tiny_cnn.CONFIG, tiny_cnn.build())


def metrics(model: Path) -> list[dict[str, Any]]:
    """What happened in each epoch, times aside."""
    lines = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def held_out(model: Path) -> list[str]:
    split: dict[str, list[str]] = json.loads((model / "split.json").read_text())
    return split["validation"]


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Path:
    """All fifty things, six views each. Read it, do not write to it."""
    return write_views(demo_gallery, tmp_path_factory.mktemp("catalogue") / "catalogue")


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Path:
    """Eight things, four views each. Read it, do not write to it."""
    return write_views(demo_gallery, tmp_path_factory.mktemp("few") / "few", things_of(demo_gallery)[:8], views=4)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> tuple[Path, dict[str, Any]]:
    """A model that a user has trained, and what the command printed."""
    model = tmp_path_factory.mktemp("trained") / "model"
    report = retrieve_json(
        *("train", catalogue, "--out", model, "--from", "tiny_cnn", "--epochs", "3", "--rates", "1e-3", "1e-3"),
        *(*TURNED, "--no-refit", "--seed", "0"),
    )
    return model, report


@pytest.fixture(scope="session")
def unseen(trained: tuple[Path, dict[str, Any]]) -> list[str]:
    """The things that were held out."""
    return sorted({key.split("/")[0] for key in held_out(trained[0])})


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No curves and no report in trainings of this process: three quarters of the time of one that takes an epoch."""
    monkeypatch.setattr(retrieval.training.publish, "_draw", lambda trained, out: None)


# It learns


def test_classes_never_trained_on_are_told_apart_well_above_the_start(trained: tuple[Path, dict[str, Any]]) -> None:
    before, after = trained[1]["before"], trained[1]["after"]
    assert after["map_at_r"] > before["map_at_r"] + 0.25
    assert after["recall_at_1"] > before["recall_at_1"]
    assert after["recall_at_1"] >= 0.95


def test_fresh_views_of_things_never_trained_on_confirm_it(
    trained: tuple[Path, dict[str, Any]], unseen: list[str], demo_gallery: Path, tmp_path: Path
) -> None:
    """Other pictures than training saw or measured on, and the product's way to measure: OpenVINO, not torch."""
    of_the_start().save(tmp_path / "start")
    queries = write_views(demo_gallery, tmp_path / "queries", unseen, views=4, seed=1)
    gallery = write_views(demo_gallery, tmp_path / "gallery", unseen, views=4, seed=2)
    found = retrieve_json(
        *("evaluate", "--model", trained[0], "--compare", tmp_path / "start"),
        *("--queries", queries, "--gallery", gallery),
    )
    assert found["queries"] == 4 * len(unseen)
    start = found["comparison"]
    assert found["map_at_r"] > start["map_at_r"] + 0.2
    assert start["differences"]["intervals"]["map_at_r"][1] < 0  # all of it: the start is worse


# What the model is good for


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory, trained: tuple[Path, dict[str, Any]], demo_gallery: Path) -> Path:
    """An index of one fresh view of each thing, by the trained model."""
    root = tmp_path_factory.mktemp("index")
    gallery = write_views(demo_gallery, root / "gallery", views=1, seed=3)
    done = retrieve("index", gallery, "--index", root / "index", "--model", trained[0])
    assert done.returncode == 0, done.stderr
    return root / "index"


def test_a_query_finds_another_view_of_a_thing_never_trained_on(
    index: Path, unseen: list[str], demo_gallery: Path, tmp_path: Path
) -> None:
    queries = write_views(demo_gallery, tmp_path / "queries", unseen, views=1, seed=4)
    found = retrieve_json("query", queries, "--index", index, "-k", "1")["queries"]
    first = {Path(one["query"]).parent.name: one["hits"][0]["key"].split("/")[0] for one in found}
    right = [thing for thing in unseen if first[thing] == thing]
    assert len(right) >= 0.7 * len(unseen)  # among fifty


def test_the_index_names_the_model(index: Path, trained: tuple[Path, dict[str, Any]]) -> None:
    said = retrieve("info", "--index", index).stdout
    assert f"model@{trained[1]['fingerprint'][:8]}, 128 values" in said


def test_a_match_has_a_probability(trained: tuple[Path, dict[str, Any]], catalogue: Path, unseen: list[str]) -> None:
    first, second = catalogue / unseen[0], catalogue / unseen[1]
    same = retrieve_json("match", first / "0.png", first / "1.png", "--model", trained[0])
    other = retrieve_json("match", first / "0.png", second / "1.png", "--model", trained[0])
    assert 0 <= other["match_probability"] < same["match_probability"] <= 1


def test_too_few_held_out_products_give_no_calibration(few: Path, tmp_path: Path) -> None:
    report = train(quick(few, tmp_path / "model"))
    assert report.expected_calibration_error is None
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES


# What it leaves behind


def test_the_model_directory_holds_what_describes_it_and_nothing_else_is_left(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    model = trained[0]
    assert {path.name for path in model.iterdir()} - {"openvino"} == FILES | {"calibration.json"}
    assert [path.name for path in model.parent.iterdir()] == [model.name]
    assert load_checkpoint(model)[0].name == model.name
    assert read_config(model)[1] == trained[1]["fingerprint"]


def test_the_card_names_data_split_seed_and_figures(trained: tuple[Path, dict[str, Any]], unseen: list[str]) -> None:
    card = (trained[0] / "README.md").read_text()
    assert "Data: `catalogue`, 300 pictures of 50 classes" in card
    assert f"{6 * len(unseen)} pictures were held out (classes)" in card
    assert "seed 0" in card
    for figures in (trained[1]["before"], trained[1]["after"]):
        assert f"| {figures['recall_at_1']:.3f} | {figures['map_at_r']:.3f} |" in card
    assert "the held-out pictures were not trained on" in card


def test_settings_and_epochs_are_kept_for_programs(trained: tuple[Path, dict[str, Any]], catalogue: Path) -> None:
    model, report = trained
    kept = json.loads((model / "training.json").read_text())
    assert kept["report"] == report
    assert kept["settings"]["source"] == str(catalogue)
    assert kept["settings"]["augmentation"]["rotation_degrees"] == 180
    epochs = metrics(model)
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, len(epochs) + 1))
    assert report["epochs"] == max(epoch["epoch"] for epoch in epochs if epoch["is_best"])
    assert epochs[report["epochs"] - 1]["map_at_r"] == report["after"]["map_at_r"]


def test_curves_and_what_the_network_saw_are_pictures(trained: tuple[Path, dict[str, Any]]) -> None:
    for name in ("curves.png", "augmented.png"):
        with Image.open(trained[0] / name) as picture:
            assert min(picture.size) > 100
    assert (trained[0] / "report.html").read_text().startswith("<!doctype html>")


def test_the_printed_report_has_the_stable_shape(trained: tuple[Path, dict[str, Any]]) -> None:
    report = trained[1]
    assert list(report) == [
        *("model", "fingerprint", "epochs", "before", "after", "validation", "is_refitted", "pictures", "classes"),
        *("held_out", "skipped", "suspects", "expected_calibration_error", "seconds", "notes"),
    ]
    assert (report["model"], report["pictures"], report["classes"]) == (str(trained[0]), 300, 50)
    assert list(report["before"]) == list(report["after"]) == ["recall_at_1", "map_at_r"]


# The same again


@pytest.mark.usefixtures("undrawn")
def test_the_same_seed_gives_the_same_model_and_another_seed_another(few: Path, tmp_path: Path) -> None:
    one, same, other = (
        train(quick(few, tmp_path / name, seed=seed)) for name, seed in (("one", 0), ("same", 0), ("other", 1))
    )
    assert one.fingerprint == same.fingerprint
    assert metrics(tmp_path / "one") == metrics(tmp_path / "same")
    assert one.fingerprint != other.fingerprint


@pytest.mark.usefixtures("undrawn")
def test_a_second_training_on_the_grown_catalogue_holds_out_the_same_classes(
    demo_gallery: Path, tmp_path: Path
) -> None:
    things = things_of(demo_gallery)
    write_views(demo_gallery, tmp_path / "catalogue", things[:30], views=2)
    train(quick(tmp_path / "catalogue", tmp_path / "first"))
    write_views(demo_gallery, tmp_path / "catalogue", things[30:], views=2)
    train(quick(tmp_path / "catalogue", tmp_path / "second"))
    first, second = set(held_out(tmp_path / "first")), set(held_out(tmp_path / "second"))
    assert first < second
    assert {key.split("/")[0] for key in second - first} <= set(things[30:])


# What is held out


def test_held_out_pictures_are_searched_for_among_those_trained_on(few: Path, tmp_path: Path) -> None:
    report = train(quick(few, tmp_path / "model", validation="pictures"))
    assert report.validation == "pictures"
    assert len(held_out(tmp_path / "model")) == report.held_out
    assert 0 < report.held_out < 16
    assert report.after is not None


def test_a_file_is_measured_on_and_all_of_the_source_is_trained_on(
    few: Path, demo_gallery: Path, tmp_path: Path
) -> None:
    views = write_views(demo_gallery, tmp_path / "asked", things_of(demo_gallery)[:8], views=1, seed=5)
    with (tmp_path / "asked.csv").open("w", newline="") as file:
        rows = [(view, view.parent.name) for view in sorted(views.glob("*/*.png"))]
        csv.writer(file).writerows([("path", "product_id"), *rows])
    report = train(quick(few, tmp_path / "model", validation=str(tmp_path / "asked.csv"), refit=True))
    assert (report.validation, report.held_out, report.pictures) == ("file", 8, 40)
    assert report.after is not None
    assert not report.is_refitted  # there is nothing more to train on
    assert {line["phase"] for line in metrics(tmp_path / "model")} == {"validation"}


def test_without_validation_the_last_epoch_is_kept_and_no_figure_is_claimed(few: Path, tmp_path: Path) -> None:
    report = train(quick(few, tmp_path / "model", validation="none", refit=True, epochs=2))
    assert (report.before, report.after, report.held_out, report.epochs) == (None, None, 0, 2)
    assert not report.is_refitted
    assert "Recall@1" not in (tmp_path / "model" / "README.md").read_text()
    assert held_out(tmp_path / "model") == []


def test_a_refit_trains_afresh_on_everything_for_as_many_epochs_as_were_best(few: Path, tmp_path: Path) -> None:
    report = train(quick(few, tmp_path / "model", refit=True, epochs=2))
    alone = train(quick(few, tmp_path / "alone", epochs=2))
    refits = [line for line in metrics(tmp_path / "model") if line["phase"] == "refit"]
    assert report.is_refitted
    assert len(refits) == report.epochs
    assert report.after == alone.after  # of the run before
    assert report.fingerprint != alone.fingerprint
    assert "trained afresh on everything" in (tmp_path / "model" / "README.md").read_text()


# What is learned from


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("loss", ["tuplet", "soft_triplet", "triplet", "contrastive", "pair", "MultiSimilarityLoss"])
def test_every_loss_trains(few: Path, tmp_path: Path, loss: str) -> None:
    report = train(quick(few, tmp_path / "model", loss=loss, miner="all"))
    assert report.fingerprint != of_the_start().fingerprint()
    assert metrics(tmp_path / "model")[0]["loss"] > 0


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("miner", ["curriculum", "index", "all", "semi_hard", "hard", "distance_weighted"])
def test_every_miner_trains(few: Path, tmp_path: Path, miner: str) -> None:
    report = train(quick(few, tmp_path / "model", loss="triplet", miner=miner, epochs=2, mine_every=1))
    assert report.fingerprint != of_the_start().fingerprint()
    assert [line["active"] > 0 for line in metrics(tmp_path / "model")] == [True, True]


@pytest.mark.usefixtures("undrawn")
def test_training_goes_on_from_a_model_directory_and_keeps_its_head(few: Path, tmp_path: Path) -> None:
    """The third training starts as good as the second ended, which only the head of the second can be."""
    train(quick(few, tmp_path / "first"))
    second = train(quick(few, tmp_path / "second", from_model=str(tmp_path / "first"), dim=16))
    third = train(quick(few, tmp_path / "third", from_model=str(tmp_path / "second"), dim=16))
    assert second.after == third.before
    assert load_checkpoint(tmp_path / "third")[0].projection_dim == 16
    assert third.fingerprint != second.fingerprint


# Kills and Ctrl-C


@contextlib.contextmanager
def training(few: Path, out: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A training in a process of its own, which does not outlive the test."""
    command = [*RETRIEVE, "train", str(few), "--out", str(out), *SLOWLY, *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(is_there: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    while not is_there():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, few: Path) -> tuple[list[dict[str, Any]], str]:
    """Epochs and fingerprint of the run that others are interrupted in."""
    model = tmp_path_factory.mktemp("uninterrupted") / "model"
    report = retrieve_json("train", few, "--out", model, *SLOWLY)
    assert report["is_refitted"]
    return metrics(model), report["fingerprint"]


def test_a_run_killed_in_both_phases_resumes_to_the_numbers_of_an_uninterrupted_one(
    few: Path, tmp_path: Path, uninterrupted: tuple[list[dict[str, Any]], str]
) -> None:
    model = tmp_path / "model"
    for phase, options in (("validation", []), ("refit", ["--resume"])):
        with training(few, model, *options) as process:
            wait_for((tmp_path / "model.run" / phase / "state.json").is_file, process)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        assert not model.exists()
    report = retrieve_json("train", few, "--out", model, *SLOWLY, "--resume")
    assert (metrics(model), report["fingerprint"]) == uninterrupted
    assert not (tmp_path / "model.run").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_at_random_moments_end_as_an_uninterrupted_run(
    few: Path, tmp_path: Path, uninterrupted: tuple[list[dict[str, Any]], str]
) -> None:
    moments = random.Random(0)
    model, kills, runs = tmp_path / "model", 0, 0
    while kills < 10:
        is_begun = (tmp_path / f"model-{runs}.run" / "config.json").is_file()
        model = tmp_path / f"model-{runs}"
        with training(few, model, *(["--resume"] if is_begun else [])) as process:
            wait_for(lambda at=tmp_path / f"model-{runs}.run" / "split.json": at.is_file(), process)  # type: ignore[misc]
            try:
                process.wait(moments.uniform(0, 3))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += process.wait() == -signal.SIGKILL
        if not (tmp_path / f"model-{runs}.run").exists():
            assert metrics(model) == uninterrupted[0]
            runs += 1
    is_begun = (tmp_path / f"model-{runs}.run").exists()
    model = tmp_path / f"model-{runs}"
    report = retrieve_json("train", few, "--out", model, *SLOWLY, *(["--resume"] if is_begun else []))
    assert (metrics(model), report["fingerprint"]) == uninterrupted


def test_ctrl_c_keeps_the_best_model_so_far_and_resume_finishes(
    few: Path, tmp_path: Path, uninterrupted: tuple[list[dict[str, Any]], str]
) -> None:
    model = tmp_path / "model"
    with training(few, model) as process:
        wait_for((tmp_path / "model.run" / "validation" / "state.json").is_file, process)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1].decode()
        assert process.returncode == 130
    last = said.splitlines()[-1]
    assert last == f"retrieve: stopped; the best model so far is in {model}. The same command with --resume goes on"
    kept = metrics(model)
    assert kept == uninterrupted[0][: len(kept)]
    assert load_checkpoint(model)[0].name == "model"
    assert json.loads((model / "training.json").read_text())["report"]["is_refitted"] is False

    report = retrieve_json("train", few, "--out", model, *SLOWLY, "--resume")
    assert (metrics(model), report["fingerprint"]) == uninterrupted


def test_ctrl_c_before_the_first_epoch_leaves_no_model(few: Path, tmp_path: Path) -> None:
    with training(few, tmp_path / "model") as process:
        wait_for((tmp_path / "model.run" / "split.json").is_file, process)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1].decode()
        assert process.returncode == 130
    assert said == "retrieve: stopped; there is no model yet. The same command with --resume goes on\n"
    assert not (tmp_path / "model").exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_was_stopped_before_its_first_epoch_can_be_started_again_either_way(
    few: Path, tmp_path: Path, resume: bool
) -> None:
    config = quick(few, tmp_path / "model")
    with pytest.raises(KeyboardInterrupt):
        train(config, on_progress=stop_at("validation", 1))
    assert train(config, resume=resume).epochs == 1


def stop_at(phase: str, epoch: int) -> Callable[[TrainProgress], None]:
    def on_progress(state: TrainProgress) -> None:
        if (state.phase, state.epoch) == (phase, epoch):
            raise KeyboardInterrupt

    return on_progress


@pytest.mark.usefixtures("undrawn")
def test_ctrl_c_in_the_refit_keeps_the_best_model_of_the_run_before(few: Path, tmp_path: Path) -> None:
    config = quick(few, tmp_path / "model", refit=True)
    alone = train(quick(few, tmp_path / "alone"))
    with pytest.raises(KeyboardInterrupt):
        train(config, on_progress=stop_at("refit", 1))
    assert read_config(tmp_path / "model")[1] == alone.fingerprint
    report = train(config, resume=True)
    assert report.is_refitted
    assert read_config(tmp_path / "model")[1] == report.fingerprint != alone.fingerprint


@pytest.mark.usefixtures("undrawn")
def test_ctrl_c_keeps_a_model_that_nothing_was_held_out_for(few: Path, tmp_path: Path) -> None:
    config = quick(few, tmp_path / "model", validation="none", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train(config, on_progress=stop_at("validation", 2))
    assert len(metrics(tmp_path / "model")) == 1
    load_checkpoint(tmp_path / "model")


# Parts in somebody else's loop


def test_losses_miners_and_metrics_serve_a_loop_of_ones_own(few: Path) -> None:
    paths = sorted(few.glob("*/*.png"))
    labels = np.array([sorted(path.name for path in few.iterdir()).index(path.parent.name) for path in paths])
    pixels = torch.from_numpy(np.stack([preprocess(decode(path), tiny_cnn.CONFIG.preprocessing) for path in paths]))

    twin = of_the_start()
    optimiser = torch.optim.AdamW(twin.parameters(), lr=1e-4)
    losses = []
    for _ in range(8):
        embeddings = torch.nn.functional.normalize(twin(pixels), dim=1)
        apart = distance_matrix(embeddings, embeddings, "euclidean")
        chosen = mine_all(torch.from_numpy(labels))
        loss = triplet_loss(
            apart[chosen.anchors, chosen.positives], apart[chosen.anchors, chosen.negatives], margin=0.5
        ).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())

    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        found = torch.nn.functional.normalize(twin(pixels), dim=1).numpy()
    scores = score_ranking(found, labels, found, labels, own_rows=np.arange(len(found)))
    assert scores.recall_at(1) > 0.9


def test_metrics_are_imported_without_torch() -> None:
    code = "import sys, retrieval.evaluation.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=os.environ).returncode == 0


@pytest.mark.usefixtures("undrawn")
def test_a_run_moved_to_another_place_resumes_there(few: Path, tmp_path: Path) -> None:
    config = quick(few, tmp_path / "model", epochs=2)
    with pytest.raises(RuntimeError, match="the power is gone"):
        train(config, on_progress=fail_at(2))
    shutil.move(tmp_path / "model.run", tmp_path / "moved.run")
    report = train(dataclasses.replace(config, out=str(tmp_path / "moved")), resume=True)
    assert report.fingerprint == train(config).fingerprint


def fail_at(epoch: int) -> Callable[[TrainProgress], None]:
    def on_progress(state: TrainProgress) -> None:
        if state.epoch == epoch:
            raise RuntimeError("the power is gone")

    return on_progress
