"""`train`: a labelled catalogue in, a model directory out; with validation, refit, calibration, card and report."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.vectors import Vectors
from retrieval.calibration import Matcher, fit_match, save_matcher
from retrieval.encoder.checkpoint import CONFIG_FILE
from retrieval.encoder.twin import TwinEncoder
from retrieval.errors import TrainingError
from retrieval.results import TrainingReport
from retrieval.training.config import TrainConfig
from retrieval.training.dataset import SPLIT_FILE, TrainingSet, open_training_set
from retrieval.training.history import Epoch, Measures, best_epoch, write_history
from retrieval.training.memory import keep_freed_memory
from retrieval.training.progress import OnProgress
from retrieval.training.publish import Trained, publish
from retrieval.training.trainer import Trainer

_CONFIG_FILE = "config.json"
# What may differ between a run and its resumption: none of them changes what is computed, but for rounding.
_FREE_TO_CHANGE = ("threads", "device", "limits", "out")


def train(config: TrainConfig, *, resume: bool = False, on_progress: OnProgress | None = None) -> TrainingReport:
    """Train an encoder on a labelled catalogue and write it as a model directory.

    First with part of the pictures held out, until validation no longer improves; then, unless `config.refit` is off,
    afresh on everything for as many epochs as were best. State is kept in `config.run_dir` after every epoch and
    removed at the end.

    Args:
        config: the settings.
        resume: go on where an unfinished run of the same settings was.
        on_progress: called after every step. A KeyboardInterrupt from it, or from the keyboard, ends the training: the
            best model so far is written before it is raised again, and `resume` goes on.

    Returns:
        What came of it; the same figures are in the model card.

    Raises:
        GalleryError, LabelsMissing, ManifestError: the source cannot be used.
        LabelConflict: the same picture stands under two labels, or on both sides of the split.
        UnknownModel, WeightsUnavailable, ModelDamaged: there is nothing to start from.
        TrainingDiverged, TrainingCollapsed: with the cause and the remedy; nothing was overwritten.
        TrainingError: there are too few classes, the place is taken, there is nothing to resume or no space left.
    """
    started_s = time.perf_counter()
    keep_freed_memory()
    with _run_folder(config, resume) as folder:
        training_set = open_training_set(config)
        training_set.split.save(folder / SPLIT_FILE, training_set.pictures)
        search = Trainer(config, training_set, folder / "validation", "validation", config.epochs, None, on_progress)
        try:
            found = _Found(search, search.run(), training_set)
        except KeyboardInterrupt:
            if best_epoch(search.history) is not None:
                _finish(config, _Found(search, search.best_network(), training_set), None, [], started_s)
            raise
        twin, refitted = None, list[Epoch]()
        if config.refit and training_set.is_measured:
            everything = training_set.everything()
            epochs, factors = found.epochs, [epoch.rate_factor for epoch in search.history]
            refit = Trainer(config, everything, folder / "refit", "refit", epochs, factors, on_progress)
            twin, refitted = refit.run(), refit.history
        report = _finish(config, found, twin, refitted, started_s)
    shutil.rmtree(folder, ignore_errors=True)
    return report


@dataclass
class _Found:
    """What the phase with validation came to."""

    search: Trainer
    twin: TwinEncoder
    training_set: TrainingSet

    @property
    def epochs(self) -> int:
        """How many were best."""
        best = best_epoch(self.search.history)
        return len(self.search.history) if best is None else best.epoch

    @property
    def measures(self) -> Measures | None:
        """Of the best epoch."""
        best = best_epoch(self.search.history)
        return None if best is None else best.measures


def _finish(
    config: TrainConfig, found: _Found, refitted: TwinEncoder | None, more: list[Epoch], started_s: float
) -> TrainingReport:
    """Calibrate on the held-out pictures, write the model directory and say what is in it."""
    search, training_set = found.search, found.training_set
    vectors: Vectors = np.empty((0, found.twin.config.dim), np.float32)
    matcher: Matcher | None = None
    if training_set.is_measured:
        vectors = search.held_out.embed(found.twin)
        labels = training_set.pictures.labels[training_set.split.validation_rows]
        matcher = fit_match(vectors, labels, seed=config.seed)
    twin = refitted or found.twin
    twin.config = dataclasses.replace(twin.config, name=Path(config.out).name)
    history = [*search.history, *more]
    report = TrainingReport(
        model=str(Path(config.out).absolute()),
        fingerprint=twin.fingerprint(),
        epochs=found.epochs,
        before=_figures(search.start),
        after=_figures(found.measures),
        validation=training_set.split.kind,
        is_refitted=refitted is not None,
        pictures=len(training_set.pictures),
        classes=int(np.count_nonzero(training_set.pictures.counts())),
        held_out=len(training_set.split.validation_rows),
        skipped=training_set.skipped,
        suspects=len(search.suspects),
        expected_calibration_error=None if matcher is None else matcher.held_out.expected_calibration_error,
        seconds=time.perf_counter() - started_s,
        notes=[note for epoch in history for note in epoch.notes],
    )
    publish(Trained(config, twin, report, history, training_set, search, vectors, matcher))
    write_history(history, Path(config.out) / "metrics.jsonl")
    if matcher is not None:
        save_matcher(matcher, Path(config.out), report.fingerprint)
    return report


def _figures(measures: Measures | None) -> dict[str, float] | None:
    return None if measures is None else {"recall_at_1": measures.recall_at_1, "map_at_r": measures.map_at_r}


@contextlib.contextmanager
def _run_folder(config: TrainConfig, resume: bool) -> Iterator[Path]:
    """The folder of an unfinished run, for this process alone.

    Raises:
        TrainingError: the model exists already, another run is unfinished or at work there, or there is none to resume.
    """
    out, folder = Path(config.out), config.run_dir
    is_begun = (folder / _CONFIG_FILE).is_file()
    if resume and not is_begun:
        raise TrainingError(f"there is no unfinished training at {folder}; run without --resume")
    if is_begun and not resume:
        raise TrainingError(f"{folder} holds an unfinished training; go on with --resume, or delete it")
    if out.exists() and not resume:
        what = "a model" if (out / CONFIG_FILE).is_file() else "other files"
        raise TrainingError(f"{out} holds {what} already; choose another --out, or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrainingError(f"another process trains at {folder}; wait for it, or choose another --out") from None
        if is_begun:
            _check_same(config, folder)
        else:
            (folder / _CONFIG_FILE).write_text(json.dumps(config.to_dict(), indent=1) + "\n", "utf-8")
        yield folder
    finally:
        os.close(lock)


def _check_same(config: TrainConfig, folder: Path) -> None:
    """Refuse to go on with other settings: the result would be neither run's."""
    try:
        former = json.loads((folder / _CONFIG_FILE).read_bytes())
    except ValueError as error:
        raise TrainingError(
            f"{folder / _CONFIG_FILE} cannot be read ({error}); delete {folder} and train afresh"
        ) from error
    now = json.loads(json.dumps(config.to_dict()))
    for name in now:
        if name not in _FREE_TO_CHANGE and former.get(name) != now[name]:
            raise TrainingError(
                f"the unfinished training at {folder} has {name} {former.get(name)!r}, this command {now[name]!r}; "
                "repeat the former settings, or delete the folder"
            )
