"""What is wrong with a training is one line with the remedy, and no good model is ever lost to it."""

import csv
import json
import logging
import math
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import pictures
import retrieval.cli.progress
import retrieval.training.publish
import retrieval.training.run
import retrieval.training.trainer
from commands import RETRIEVE, assert_one_line, retrieve_unprivileged
from full_disk import files_limited_to
from retrieval.cli import main
from retrieval.encoder.checkpoint import load_checkpoint
from retrieval.errors import TrainingDiverged, TrainingError
from retrieval.training import TrainConfig, TrainProgress, train
from training_pictures import quick, things_of, write_views

TINY = ("--from", "tiny_cnn", "--batch", "4", "4", "--no-refit")
ONE_EPOCH = (*TINY, "--epochs", "1")
Train = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No curves and no report in trainings of this process: three quarters of the time of one that takes an epoch."""
    monkeypatch.setattr(retrieval.training.publish, "_draw", lambda trained, out: None)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Train:
    """Run `retrieve train` to its end in this process, as the command does; torch need not be loaded each time.

    A training that takes long says how far it is, which would be further lines.
    """
    monkeypatch.setattr(retrieval.cli.progress, "LINE_EVERY_S", math.inf)
    monkeypatch.setattr(logging.getLogger("retrieval"), "handlers", [])

    def run_train(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["train", *map(str, arguments)])
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, said.out, said.err)

    return run_train


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Path:
    """Eight things, four views each. Read it, do not write to it."""
    return write_views(demo_gallery, tmp_path_factory.mktemp("few") / "few", things_of(demo_gallery)[:8], views=4)


@pytest.fixture
def shop(few: Path, tmp_path: Path) -> Path:
    """A copy of the few, to spoil."""
    return Path(shutil.copytree(few, tmp_path / "shop"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "model"


def assert_refused(done: "subprocess.CompletedProcess[str]", *told: str) -> None:
    """It failed, said so in one line that holds all of `told`, and printed nothing."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert_one_line(done.stderr)
    for part in told:
        assert part in done.stderr, done.stderr


def settings(source: Path, out: Path, **changes: Any) -> TrainConfig:
    return quick(source, out, **{"epochs": 3, "head_rate": 1e-5} | changes)


def losses(model: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (model / "metrics.jsonl").read_text().splitlines()]


# Pictures and labels


def test_a_frozen_model_without_a_head_is_refused(tmp_path: Path, demo_gallery: Path) -> None:
    source = write_views(demo_gallery, tmp_path / "source", things_of(demo_gallery)[:8], views=2)
    with pytest.raises(TrainingError, match="neither pooling nor projection to train; leave out --freeze-backbone"):
        train(quick(source, tmp_path / "model", freeze_backbone=True, validation="none"))


def test_a_class_with_one_picture_is_trained_on(run: Train, shop: Path, out: Path) -> None:
    for view in ("1.png", "2.png", "3.png"):
        (shop / "apple" / view).unlink()
    done = run(shop, "--out", out, *ONE_EPOCH, "--val", "pictures")
    assert (done.returncode, done.stderr) == (0, "")
    assert "apple/0.png" in json.loads((out / "split.json").read_text())["train"]


def test_one_class_only_is_refused(run: Train, shop: Path, out: Path) -> None:
    for thing in shop.iterdir():
        if thing.name != "apple":
            shutil.rmtree(thing)
    assert_refused(run(shop, "--out", out, *ONE_EPOCH, "--val", "none"), '"apple"', "needs at least 2 classes; add")


def test_too_few_classes_to_hold_any_out_are_refused(run: Train, shop: Path, out: Path) -> None:
    for thing in sorted(shop.iterdir())[3:]:
        shutil.rmtree(thing)
    assert_refused(run(shop, "--out", out, *ONE_EPOCH), "3 classes", "--val pictures or --val none")


def test_fewer_classes_than_a_batch_wants_are_refused_with_what_fits(run: Train, few: Path, out: Path) -> None:
    done = run(few, "--out", out, *ONE_EPOCH, "--val", "none", "--batch", "9", "4")
    assert_refused(done, "few has 8 classes to train on, a batch wants 9", "pass --batch 8 4")


def test_a_picture_that_may_not_be_read_is_set_aside(shop: Path, out: Path) -> None:
    (shop / "apple" / "1.png").chmod(0)
    done = retrieve_unprivileged("train", shop, "--out", out, *ONE_EPOCH)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("skipped apple/1.png: permission denied\n")
    assert json.loads((out / "training.json").read_text())["report"]["pictures"] == 31


def test_a_picture_that_does_not_decode_is_set_aside(run: Train, shop: Path, out: Path) -> None:
    (shop / "apple" / "1.png").write_bytes(pictures.broken()["truncated.png"])
    done = run(shop, "--out", out, *ONE_EPOCH, "--json")
    assert done.returncode == 3
    assert_one_line(done.stderr)
    assert done.stderr.startswith("skipped apple/1.png: ")
    report = json.loads(done.stdout)
    assert ([skip["key"] for skip in report["skipped"]], report["pictures"]) == (["apple/1.png"], 31)


@pytest.fixture
def half_labelled(few: Path, tmp_path: Path) -> Path:
    """A manifest in which every other view has no product_id."""
    path = tmp_path / "half.csv"
    views = sorted(few.glob("*/*.png"))
    with path.open("w", newline="") as file:
        rows = [(view, view.parent.name if int(view.stem) % 2 else "") for view in views]
        csv.writer(file).writerows([("path", "product_id"), *rows])
    return path


def test_labels_missing_from_half_of_a_manifest_are_refused(run: Train, half_labelled: Path, out: Path) -> None:
    done = run(half_labelled, "--out", out, *ONE_EPOCH)
    assert_refused(done, "half.csv: 16 of 32 pictures have no product_id", "--allow-unlabelled")


def test_pictures_without_a_label_are_left_out_on_request_and_that_is_said(
    run: Train, half_labelled: Path, out: Path
) -> None:
    done = run(half_labelled, "--out", out, *ONE_EPOCH, "--allow-unlabelled", "--json")
    assert (done.returncode, json.loads(done.stdout)["pictures"]) == (0, 16)
    assert done.stderr == "note: 16 pictures that say nothing of what they show were left out\n"


def test_the_same_bytes_under_two_labels_are_refused(run: Train, shop: Path, out: Path) -> None:
    shutil.copy(shop / "apple" / "0.png", shop / "banana" / "copy.png")
    done = run(shop, "--out", out, *ONE_EPOCH)
    assert_refused(done, 'apple/0.png ("apple") and banana/copy.png ("banana")', "--drop-conflicts")


def test_both_are_left_out_on_request_and_that_is_said(run: Train, shop: Path, out: Path) -> None:
    shutil.copy(shop / "apple" / "0.png", shop / "banana" / "copy.png")
    done = run(shop, "--out", out, *ONE_EPOCH, "--drop-conflicts", "--json")
    assert (done.returncode, json.loads(done.stdout)["pictures"]) == (0, 31)
    assert done.stderr == "note: 2 pictures that stand under two labels were left out\n"


def test_a_picture_that_is_deleted_in_mid_training_is_named(shop: Path, out: Path) -> None:
    def delete_one(state: TrainProgress) -> None:
        if state.epoch == 2 and state.done < state.total:
            for view in shop.glob("*/0.png"):
                view.unlink()

    with pytest.raises(TrainingError, match=r"picture \S+/0\.png cannot be read any more: .* put it back and --resume"):
        train(settings(shop, out), on_progress=delete_one)
    assert not out.exists()


# What was asked for


def test_a_source_that_is_not_there_leaves_nothing_behind(run: Train, tmp_path: Path, out: Path) -> None:
    assert_refused(run(tmp_path / "no-such-shop", "--out", out, *ONE_EPOCH), "no-such-shop: no such file")
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_nobody_knows_is_refused_with_close_ones(run: Train, few: Path, out: Path) -> None:
    assert_refused(run(few, "--out", out, *ONE_EPOCH, "--loss", "TripletMarginLos"), "TripletMarginLoss")


def test_a_model_that_nobody_knows_is_refused(run: Train, few: Path, out: Path) -> None:
    assert_refused(run(few, "--out", out, *ONE_EPOCH, "--from", "no_such_net"), "no_such_net")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--miner", "lucky"], 'miner is "lucky"; it must be one of curriculum'),
        (["--loss", "contrastive", "--miner", "hard"], "miner hard chooses triplets"),
        (["--augment", "sharpness=1"], "there is no strength 'sharpness'; there are crop_area"),
        (["--augment", "crop_area=half"], "'half' is no number"),
        (["--augment", "crop_area=3"], "augmentation crop_area is 3.0; it must be 0.01 to 1"),
        (["--rates", "0", "1e-3"], "backbone_rate is 0.0; it must be above 0"),
        (["--batch", "1", "4"], "--batch"),
        (["--epochs", "0"], "--epochs"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    run: Train, few: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = run(few, "--out", tmp_path / "model", *ONE_EPOCH, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# The place of the model


def test_a_model_that_is_there_is_not_trained_over(run: Train, few: Path, out: Path) -> None:
    assert run(few, "--out", out, *ONE_EPOCH).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert_refused(run(few, "--out", out, *ONE_EPOCH), f"{out} holds a model already; choose another --out")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in out.parent.iterdir()] == ["model"]


def test_other_files_are_not_trained_over(run: Train, few: Path, out: Path) -> None:
    out.mkdir()
    (out / "holiday.txt").write_text("sun")
    assert_refused(run(few, "--out", out, *ONE_EPOCH), f"{out} holds other files already")
    assert [path.name for path in out.iterdir()] == ["holiday.txt"]


def test_a_place_that_cannot_be_written_is_named(run: Train, few: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    done = run(few, "--out", tmp_path / "file" / "model", *ONE_EPOCH)
    assert_refused(done, f"{tmp_path}/file/model.run cannot be written (Not a directory)", "choose another --out")


# Unfinished runs


@pytest.fixture(scope="session")
def killed(tmp_path_factory: pytest.TempPathFactory, few: Path) -> Path:
    """What is left of `retrieve train ... TINY --epochs 40` that was killed after an epoch. Copy it before use."""
    folder = tmp_path_factory.mktemp("killed")
    command = [*RETRIEVE, "train", str(few), "--out", str(folder / "model"), *TINY, "--epochs", "40"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while not (folder / "model.run" / "validation" / "state.json").is_file():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    return folder / "model.run"


@pytest.fixture
def unfinished(killed: Path, out: Path) -> Path:
    """A copy, as the unfinished run of `out`."""
    return Path(shutil.copytree(killed, f"{out}.run"))


@pytest.fixture
def again(run: Train, few: Path, out: Path, unfinished: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """The command of the unfinished run, with further options."""
    return lambda *options: run(few, "--out", out, *TINY, "--epochs", "40", *options)


def test_an_unfinished_run_is_not_started_over_unasked(again: Train, unfinished: Path) -> None:
    assert_refused(again(), f"{unfinished} holds an unfinished training; go on with --resume, or delete it")
    assert (unfinished / "validation" / "state.json").is_file()


def test_there_must_be_something_to_resume(run: Train, few: Path, out: Path) -> None:
    done = run(few, "--out", out, *ONE_EPOCH, "--resume")
    assert_refused(done, f"there is no unfinished training at {out}.run; run without --resume")


def test_other_settings_do_not_resume_a_run(again: Train, unfinished: Path) -> None:
    done = again("--resume", "--margin", "0.5")
    assert_refused(done, str(unfinished), "has margin 0.0, this command 0.5", "repeat the former settings")


def test_other_pictures_do_not_resume_a_run(run: Train, shop: Path, tmp_path: Path, unfinished: Path) -> None:
    config = json.loads((unfinished / "config.json").read_text())
    (unfinished / "config.json").write_text(json.dumps(config | {"source": str(shop)}))
    (shop / "apple" / "0.png").unlink()
    done = run(shop, "--out", tmp_path / "model", *TINY, "--epochs", "40", "--resume")
    assert_refused(done, "is a split of other pictures", "apple/0.png", "bring the former pictures back")


def test_settings_that_cannot_be_read_are_refused(again: Train, unfinished: Path) -> None:
    (unfinished / "config.json").write_text("[")
    assert_refused(again("--resume"), f"{unfinished}/config.json cannot be read", "train afresh")


def test_a_flipped_byte_in_a_checkpoint_is_refused(again: Train, unfinished: Path, out: Path) -> None:
    (path,) = (unfinished / "validation").glob("state-*.safetensors")
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    assert_refused(again("--resume"), f"{path} is damaged", f"delete {unfinished} and train afresh")
    assert not out.exists()


def test_a_checkpoint_of_a_newer_version_is_refused(again: Train, unfinished: Path) -> None:
    path = unfinished / "validation" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    assert_refused(again("--resume"), "has format 99, this version reads 1", "upgrade retrieval-engine")


def test_a_checkpoint_of_another_architecture_is_refused(run: Train, few: Path, tmp_path: Path) -> None:
    """The model that the run started from was replaced by one of another kind under the same name."""
    start, out = tmp_path / "start", tmp_path / "model"
    train(settings(few, start, epochs=1))
    again = (few, "--out", out, "--from", start, "--dim", "8", "--batch", "4", "4", "--no-refit", "--epochs", "3")
    with _killed_at(2):
        run(*again)
    shutil.rmtree(start)
    _lite0().save(start)
    done = run(*again, "--resume")
    assert_refused(done, f"{out}.run/validation is of retrieve/tiny_cnn with 8 values", "timm/", f"delete {out}.run")


def test_two_processes_do_not_train_at_one_place(run: Train, few: Path, out: Path) -> None:
    seen = []

    def second(state: TrainProgress) -> None:
        if not seen:
            seen.append(run(few, "--out", out, *ONE_EPOCH))

    train(settings(few, out, epochs=1), on_progress=second)
    assert_refused(seen[0], f"another process trains at {out}.run; wait for it")


@contextmanager
def _killed_at(epoch: int) -> Iterator[None]:
    """Trainings of this process end there as a crash would end them."""

    class Crash(Exception):
        pass

    def crash(trainer: Any, tally: Any) -> None:
        if len(trainer.history) + 1 == epoch:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval.training.run.Trainer, "_tell", crash)
        yield


def _lite0() -> Any:
    from retrieval.encoder.weights import load_twin

    return load_twin("efficientnet_lite0")


# No space left


@pytest.mark.parametrize("size_bytes", [1_000_000, 60_000_000], ids=["best model", "state"])
def test_no_space_at_the_first_checkpoint_is_one_line(run: Train, few: Path, out: Path, size_bytes: int) -> None:
    with files_limited_to(size_bytes):
        done = run(few, "--out", out, *ONE_EPOCH)
    assert_refused(done, f"{out}.run/validation cannot be written (File too large)", "free some space", "--resume")
    assert not out.exists()


@pytest.mark.parametrize("size_bytes", [1_000_000, 60_000_000], ids=["best model", "state"])
def test_no_space_at_a_later_checkpoint_costs_that_epoch_alone(few: Path, tmp_path: Path, size_bytes: int) -> None:
    """The run goes on where there is space again, to the numbers of one that always had enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(state: TrainProgress) -> None:
        if state.epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))

    config = settings(few, tmp_path / "model")
    try:
        with pytest.raises(TrainingError, match=r"cannot be written.*the one before it is whole: free some space"):
            train(config, on_progress=fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    state = json.loads((tmp_path / "model.run" / "validation" / "state.json").read_text())
    assert len(state["values"]["history"]) == 1
    resumed = train(config, resume=True)
    assert resumed.fingerprint == train(settings(few, tmp_path / "other")).fingerprint
    assert losses(tmp_path / "model") == losses(tmp_path / "other")


def test_no_space_for_the_model_costs_no_epoch(few: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = retrieval.training.run.publish

    def publish_on_a_full_disk(trained: Any) -> None:
        with files_limited_to(1_000_000):
            publish(trained)

    monkeypatch.setattr(retrieval.training.run, "publish", publish_on_a_full_disk)
    with pytest.raises(TrainingError, match=f"model {out} cannot be written .* free some space .* --resume"):
        train(settings(few, out))
    assert [path.name for path in out.parent.iterdir()] == ["model.run"]
    monkeypatch.setattr(retrieval.training.run, "publish", publish)
    seen: list[TrainProgress] = []
    train(settings(few, out), resume=True, on_progress=seen.append)
    assert seen == []
    load_checkpoint(out)


# Numbers that are none, and collapse


@pytest.mark.parametrize(
    "options",
    [[], ["--val", "none", "--batch", "8", "4"], ["--val", "pictures", "--batch", "8", "4"]],
    ids=["in an epoch", "at its last step, unmeasured", "at its last step, measured"],
)
def test_a_loss_that_is_no_number_is_one_line_and_no_model(
    run: Train, few: Path, out: Path, options: list[str]
) -> None:
    done = run(few, "--out", out, *ONE_EPOCH, *options, "--rates", "1e30", "1e30")
    assert_refused(done, "rates", "--clip", "what was saved before is untouched")
    assert not out.exists()


def test_lower_rates_start_afresh_after_a_run_without_an_epoch(run: Train, few: Path, out: Path) -> None:
    assert run(few, "--out", out, *ONE_EPOCH, "--rates", "1e30", "1e30").returncode == 1
    assert run(few, "--out", out, *ONE_EPOCH, "--rates", "1e-5", "1e-5").returncode == 0


def test_a_run_that_diverges_leaves_its_last_checkpoint_and_model_whole(
    few: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(few, out, head_rate=1e-5)
    with pytest.raises(KeyboardInterrupt):
        train(config, on_progress=_stop_at_epoch_2)
    before = load_checkpoint(out)[1]
    state = (out.parent / "model.run" / "validation" / "state.json").read_bytes()
    monkeypatch.setattr(retrieval.training.trainer, "set_factor", _set_huge_rates)
    with pytest.raises(TrainingDiverged, match="the loss is nan in epoch 2"):
        train(config, resume=True)
    monkeypatch.undo()
    assert all((before[name] == tensor).all() for name, tensor in load_checkpoint(out)[1].items())
    assert (out.parent / "model.run" / "validation" / "state.json").read_bytes() == state
    assert train(config, resume=True).epochs >= 1


def _stop_at_epoch_2(state: TrainProgress) -> None:
    if state.epoch == 2:
        raise KeyboardInterrupt


def _set_huge_rates(optimiser: Any, factor: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = 1e30


@pytest.fixture
def nonsense(few: Path, tmp_path: Path) -> Path:
    """Labels that mean nothing: each of the eight classes has pictures of four things."""
    for number, view in enumerate(sorted(few.glob("*/*.png"))):
        folder = tmp_path / "nonsense" / f"class-{number % 8}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(view, folder / f"{number}.png")
    return tmp_path / "nonsense"


def test_a_collapse_stops_the_run_with_the_remedy(run: Train, nonsense: Path, out: Path) -> None:
    """The hardest triplets of labels that mean nothing are best satisfied by embedding everything at one place."""
    done = run(
        *(nonsense, "--out", out, "--from", "tiny_cnn", "--epochs", "20", "--batch", "8", "4", "--val", "none"),
        *("--loss", "triplet", "--miner", "hard", "--rates", "0.1", "0.1"),
    )
    assert_refused(done, "the embeddings collapsed in epoch", "with miner hard; use --miner semi_hard or all")
    assert not out.exists()
