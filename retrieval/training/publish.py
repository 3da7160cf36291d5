"""What is in a trained model's directory? Weights, and how they came about: card, settings, split, curves, report."""

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.vectors import Vectors
from retrieval.calibration import Matcher, save_matcher
from retrieval.encoder.twin import TwinEncoder
from retrieval.errors import GalleryError, TrainingError
from retrieval.evaluation.pictures import EmbeddedPictures
from retrieval.evaluation.summary import Evaluated, summarised
from retrieval.results import Failure, ModelInfo, TrainingReport
from retrieval.training.config import TrainConfig
from retrieval.training.dataset import SPLIT_FILE, TrainingSet
from retrieval.training.history import HISTORY_FILE, Epoch, write_history
from retrieval.training.trainer import Trainer

if TYPE_CHECKING:
    from retrieval.report.training import Suspect

CARD_FILE = "README.md"
SETTINGS_FILE = "training.json"
REPORT_FILE = "report.html"
CURVES_FILE = "curves.png"
AUGMENTED_FILE = "augmented.png"
_SHOWN_PICTURES, _SHOWN_TIMES = 6, 6


@dataclass(frozen=True)
class Trained:
    """A training that has come to its end.

    Attributes:
        config: its settings.
        twin: the network to keep.
        report: its figures.
        history: of all its epochs.
        training_set: what it saw and what was held out.
        search: the phase with validation.
        held_out: (V, D) embeddings of the held-out pictures, by that phase's best network.
        matcher: its calibration, or None.
    """

    config: TrainConfig
    twin: TwinEncoder
    report: TrainingReport
    history: list[Epoch]
    training_set: TrainingSet
    search: Trainer
    held_out: Vectors
    matcher: Matcher | None


def publish(trained: Trained) -> None:
    """Write the model directory: the weights whole or not at all, then what describes them.

    Raises:
        TrainingError: there is no space, or no permission.
    """
    out = Path(trained.config.out)
    try:
        trained.twin.save(out)
        if trained.matcher is not None:
            save_matcher(trained.matcher, out, trained.report.fingerprint)
        trained.training_set.split.save(out / SPLIT_FILE, trained.training_set.pictures)
        values = {"settings": trained.config.to_dict(), "report": trained.report.to_dict()}
        (out / SETTINGS_FILE).write_text(json.dumps(values, indent=1) + "\n", "utf-8")
        write_history(trained.history, out / HISTORY_FILE)
        (out / CARD_FILE).write_text(_card(trained), "utf-8")
        _draw(trained, out)
    except OSError as error:
        raise TrainingError(
            f"model {out} cannot be written ({error.strerror or error}); free some space and run the same command with "
            "--resume"
        ) from error


def _card(trained: Trained) -> str:
    """A page for people: what this model is, what it was trained on, how good it was there."""
    config, report = trained.config, trained.report
    lines = [
        f"# {Path(config.out).name}",
        "",
        f"An encoder for `retrieve`, trained from `{config.from_model}` on {time.strftime('%Y-%m-%d')} in "
        f"{report.seconds / 60:.1f} minutes. Fingerprint `{report.fingerprint[:16]}`.",
        "",
        f"* Data: `{Path(config.source).name}`, {report.pictures} pictures of {report.classes} classes, of which "
        f"{report.held_out} pictures were held out ({report.validation}).",
        f"* Loss `{config.loss}`, miner `{config.miner}`, {config.classes_per_batch} classes x "
        f"{config.pictures_per_class} pictures a batch, seed {config.seed}; all settings are in `{SETTINGS_FILE}`.",
    ]
    if report.before is not None and report.after is not None:
        lines += [
            "",
            "| on held-out pictures | Recall@1 | MAP@R |",
            "| --- | --- | --- |",
            f"| before training | {report.before['recall_at_1']:.3f} | {report.before['map_at_r']:.3f} |",
            f"| best epoch, {report.epochs} | {report.after['recall_at_1']:.3f} | {report.after['map_at_r']:.3f} |",
            "",
        ]
        lines.append(
            f"The weights here were then trained afresh on everything for {report.epochs} epochs; nothing is left to "
            "measure them on, and the figures above are those of the run before."
            if report.is_refitted
            else "The weights here are those of the best epoch; the held-out pictures were not trained on."
        )
    if trained.matcher is not None:
        error = trained.matcher.held_out.expected_calibration_error
        lines.append(f"\nProbabilities of a match were calibrated on held-out searches; expected error {error:.3f}.")
    lines += [f"\nNote: {note}." for note in report.notes]
    return "\n".join(lines) + "\n"


def _draw(trained: Trained, out: Path) -> None:
    """Curves, what the network saw, and the report that shows all of it."""
    from retrieval.report.curves import save_curves
    from retrieval.report.training import TrainingContent, save_augmented_sheet, save_training_report

    history = [epoch.to_dict() for epoch in trained.history]
    augmented = _augmented(trained)
    if history:
        save_curves(history, out / CURVES_FILE)
    save_augmented_sheet(augmented, out / AUGMENTED_FILE)
    report = trained.report
    content = TrainingContent(
        title=out.name,
        facts=_facts(trained),
        settings=trained.config.to_dict(),
        history=history,
        before=report.before or {},
        after=report.after or {},
        measured=f"on {report.held_out} held-out pictures ({report.validation})" if report.held_out else "",
        augmented=augmented,
        failures=_failures(trained),
        suspects=_suspects(trained),
        reliability_png=_reliability(trained.matcher),
        notes=report.notes,
    )
    save_training_report(out / REPORT_FILE, content)


def _facts(trained: Trained) -> Mapping[str, str]:
    report = trained.report
    return {
        "trained from": trained.config.from_model,
        "pictures": f"{report.pictures} of {report.classes} classes",
        "held out": f"{report.held_out} ({report.validation})",
        "epochs": f"{report.epochs}{', then afresh on everything' if report.is_refitted else ''}",
        "set aside": str(len(report.skipped)),
        "probable label errors": str(report.suspects),
        "time": f"{report.seconds / 60:.1f} minutes",
        "fingerprint": report.fingerprint[:16],
    }


def _augmented(trained: Trained) -> list[tuple[str, list[NDArray[np.uint8]]]]:
    """Some pictures, and what the network was shown of them."""
    rows = trained.training_set.split.train_rows
    some = np.random.default_rng(trained.config.seed).permutation(rows)[:_SHOWN_PICTURES]
    batches = [np.repeat(row, _SHOWN_TIMES) for row in some]
    shown = trained.search.loader.training_batches(batches, [trained.config.seed])
    records = trained.training_set.pictures.records
    return [(records[row].path, list(pixels.transpose(0, 2, 3, 1))) for row, pixels in zip(some, shown, strict=True)]


def _failures(trained: Trained) -> list[Failure]:
    """The hardest held-out pictures, each searched for among the others."""
    if not len(trained.held_out):
        return []
    pictures = trained.training_set.pictures.subset(trained.training_set.split.validation_rows)
    held_out = EmbeddedPictures(pictures, trained.held_out, [record.key for record in pictures.records])
    model = ModelInfo(trained.twin.config.name, trained.report.fingerprint, trained.twin.config.dim)
    with contextlib.suppress(GalleryError):  # no two held-out pictures show the same
        return list(summarised(Evaluated(model, held_out, held_out)).failures)
    return []


def _suspects(trained: Trained) -> list["Suspect"]:
    """Probable label errors as pictures, most alike first."""
    from retrieval.report.training import Labelled

    pictures, rows = trained.training_set.pictures, trained.training_set.split.train_rows

    def labelled(row: int) -> Labelled:
        record = pictures.records[rows[row]]
        return Labelled(record.path, pictures.label(rows[row]), record.box)

    return [(labelled(one.row), labelled(one.other), one.score) for one in trained.search.suspects]


def _reliability(matcher: Matcher | None) -> bytes | None:
    if matcher is None:
        return None
    from retrieval.report.reliability import draw_reliability, reliability_png

    bins = matcher.held_out.reliability
    diagram = draw_reliability(
        [one.predicted for one in bins],
        [one.observed for one in bins],
        [one.pairs for one in bins],
        expected_calibration_error=matcher.held_out.expected_calibration_error,
    )
    return reliability_png(diagram)
