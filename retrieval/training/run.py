"""`train`: a labelled catalogue in, a model directory out; with validation, refit, calibration, card and report."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from indexer.vectors import Vectors
from retrieval.calibration import Matcher, fit_match
from retrieval.encoder.twin import TwinEncoder
from retrieval.errors import TrainingError
from retrieval.results import TrainingReport
from retrieval.threads import thread_budget
from retrieval.training.config import TrainConfig
from retrieval.training.dataset import SPLIT_FILE, TrainingSet, open_training_set
from retrieval.training.folder import run_folder
from retrieval.training.history import Epoch, Measures, best_epoch
from retrieval.training.memory import keep_freed_memory
from retrieval.training.progress import OnProgress
from retrieval.training.publish import Trained, publish
from retrieval.training.trainer import Trainer


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
    with _torch_threads(config), run_folder(config, resume) as folder:
        training_set = open_training_set(config)
        _save_split(training_set, folder)
        search = Trainer(config, training_set, folder / "validation", "validation", config.epochs, None, on_progress)
        twin, refitted = None, list[Epoch]()
        with _best_is_kept(config, search, training_set, started_s):
            found = _Found(search, search.run(), training_set)
            if config.refit and training_set.split.kind in ("classes", "pictures"):  # a file is never trained on
                everything = training_set.everything()
                epochs, factors = found.epochs, [epoch.rate_factor for epoch in search.history]
                refit = Trainer(config, everything, folder / "refit", "refit", epochs, factors, on_progress)
                twin, refitted = refit.run(), refit.history
        report = _finish(config, found, twin, refitted, started_s)
    shutil.rmtree(folder, ignore_errors=True)
    return report


@contextlib.contextmanager
def _torch_threads(config: TrainConfig) -> Iterator[None]:
    """Keep torch to as many cores as the configuration says."""
    former = torch.get_num_threads()
    torch.set_num_threads(thread_budget(config.threads).total)
    try:
        yield
    finally:
        torch.set_num_threads(former)


def _save_split(training_set: TrainingSet, folder: Path) -> None:
    try:
        training_set.split.save(folder / SPLIT_FILE, training_set.pictures)
    except OSError as error:
        raise TrainingError(
            f"{folder} cannot be written ({error.strerror or error}); free some space and run the same command again"
        ) from error


@contextlib.contextmanager
def _best_is_kept(config: TrainConfig, search: Trainer, training_set: TrainingSet, started_s: float) -> Iterator[None]:
    """Write the best model so far where the training is interrupted after an epoch, be it in the refit."""
    try:
        yield
    except KeyboardInterrupt:
        if search.history:
            _finish(config, _Found(search, search.best_network(), training_set), None, [], started_s)
        raise


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
        notes=[*_left_out(training_set), *(note for epoch in history for note in epoch.notes)],
    )
    publish(Trained(config, twin, report, history, training_set, search, vectors, matcher))
    return report


def _left_out(training_set: TrainingSet) -> list[str]:
    """What was asked to be left out, and was."""
    counts = {
        "stand under two labels": training_set.dropped,
        "say nothing of what they show": training_set.pictures.unlabelled,
    }
    return [f"{count} pictures that {what} were left out" for what, count in counts.items() if count]


def _figures(measures: Measures | None) -> dict[str, float] | None:
    return None if measures is None else {"recall_at_1": measures.recall_at_1, "map_at_r": measures.map_at_r}
