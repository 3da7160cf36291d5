"""What did a training make of the catalogue, and how? One HTML file: figures, curves, pictures, settings."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.records import Box
from retrieval.report.curves import Epoch, best_epoch, panel_pngs
from retrieval.report.page import Span, captioned, card, chart, failures_section, save_page, table, whole_page
from retrieval.report.sheet import SheetRow, save_sheet
from retrieval.results import METRIC_TITLES, Failure, Figure

MOST_SUSPECTS = 40

AugmentedRow = tuple[str, Sequence[NDArray[np.uint8]]]
"""The path of a picture, and (P, P, 3) uint8 as the network sees it, another time each."""


class Labelled(NamedTuple):
    """A picture, or the part of it that `box` says, and what it is said to show."""

    path: str
    label: str
    box: Box | None = None


Suspect = tuple[Labelled, Labelled, float]
"""Two pictures that look the same, and their score."""


@dataclass(frozen=True)
class TrainingContent:
    """What there is to show of a training; a section of which there is nothing is left out.

    Attributes:
        title: the model's name.
        facts: what was trained on, how it was split, counts, time: in words, in the order in which they are shown.
        settings: as the configuration has them; mappings may be nested.
        history: the epochs, see `draw_curves`; `seconds` and `notes` are shown as well.
        before, after: of the untrained start and of the best epoch, under the names of `METRIC_TITLES`, in [0, 1].
        measured: how those two were measured: on which pictures, against which.
        augmented: pictures and what became of them.
        failures: queries whose first hit is wrong, the worst first.
        suspects: pairs that look the same and are labelled differently, most alike first.
        reliability_png: the diagram of predicted against observed probability.
        notes: what the reader must know, a sentence each.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Epoch] = ()
    before: Mapping[str, Figure | float] = field(default_factory=dict)
    after: Mapping[str, Figure | float] = field(default_factory=dict)
    measured: str = ""
    augmented: Sequence[AugmentedRow] = ()
    failures: Sequence[Failure] = ()
    suspects: Sequence[Suspect] = ()
    reliability_png: bytes | None = None
    notes: Sequence[str] = ()


def save_training_report(path: str | os.PathLike[str], content: TrainingContent) -> None:
    """Write a training as one self-contained HTML file, which appears whole or not at all.

    Raises:
        RetrievalError: it cannot be written.
    """
    save_page(training_page(content), path)


def save_augmented_sheet(rows: Sequence[AugmentedRow], path: str | os.PathLike[str]) -> None:
    """Write a contact sheet: pictures at the left, what the network sees of them at the right.

    Args:
        rows: at least one.
        path: the file; its suffix says the format: .png, .jpg, .jpeg or .webp.

    Raises:
        RetrievalError: as for `save_sheet`.
    """
    save_sheet([_sheet_row(*row) for row in rows], path)


def training_page(content: TrainingContent) -> str:
    """The page as text; pictures that cannot be shown any more are replaced by their names and the reason."""
    sections = [
        _headline(content),
        _notes(content),
        _facts(content.facts),
        _curves(content.history),
        _augmented(content.augmented),
        failures_section(content.failures) if content.failures else "",
        _suspects(content.suspects),
        _reliability(content.reliability_png),
        _settings(content.settings),
    ]
    return whole_page(f"Training of {content.title}", sections)


def _headline(content: TrainingContent) -> str:
    names = [name for name in METRIC_TITLES if name in content.after or name in content.before]
    cards = "".join(_card(METRIC_TITLES[name], content.before.get(name), content.after.get(name)) for name in names)
    figures = f'\n<section class="cards">{cards}</section>' if cards else ""
    measured = f'\n<p class="note">{escape(content.measured)}</p>' if content.measured else ""
    return (
        f"<header><h1>{escape(content.title)}</h1><p>{escape(_course(content.history))}</p></header>{figures}{measured}"
    )


def _course(history: Sequence[Epoch]) -> str:
    """The run in one line: what was tried, what was best, what was kept."""
    validated, refitted = (sum(e["phase"] == phase for e in history) for phase in ("validation", "refit"))
    best = best_epoch(history)
    said = [f"{validated} epochs" + ("" if best is None else f", the best was number {best['epoch']}")] * bool(
        validated
    )
    said += [f"trained afresh on everything for {refitted}"] * bool(refitted)
    return "; ".join(said)


def _card(title: str, before: Figure | float | None, after: Figure | float | None) -> str:
    if before is None or after is None:
        shown, when = (after, "best epoch") if before is None else (before, "before training")
        assert shown is not None
        return card(title, f"{_value(shown):.3f}", [Span(0, _value(shown))], _with_interval(when, shown))
    start, end = _value(before), _value(after)
    low, high = sorted((start, end))
    spans = [Span(0, low, "former"), Span(low, high, "lost" if end < start else "gained")]
    return card(title, f"{end:.3f}", spans, _with_interval(f"before training {start:.3f}, {end - start:+.3f}", after))


def _value(figure: Figure | float) -> float:
    return figure.value if isinstance(figure, Figure) else figure


def _with_interval(text: str, figure: Figure | float) -> str:
    return f"{text}; 95%: {figure.low:.3f} to {figure.high:.3f}" if isinstance(figure, Figure) else text


def _notes(content: TrainingContent) -> str:
    said = [*content.notes]
    for entry in content.history:
        said += [f"{entry['phase'].capitalize()} epoch {entry['epoch']}: {note}" for note in entry.get("notes", ())]
    if not said:
        return ""
    return (
        "<section><h2>Worth knowing</h2><ul>" + "".join(f"<li>{escape(one)}</li>" for one in said) + "</ul></section>"
    )


def _facts(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>" for name, fact in facts.items())
    return f"<section><h2>Pictures, split and time</h2><dl>{shown}</dl></section>"


def _curves(history: Sequence[Epoch]) -> str:
    if not history:
        return ""
    charts = "".join(chart(png, f"{title} over the epochs") for title, png in panel_pngs(history).items())
    return (
        f'<section><h2>Epoch by epoch</h2><div class="charts">{charts}</div>'
        f"<details><summary>The same as a table</summary>{_epochs(history)}</details></section>"
    )


def _epochs(history: Sequence[Epoch]) -> str:
    columns = {
        "loss": ("loss", ".4f"), "active triplets": ("active", ".3f"), "Recall@1": ("recall_at_1", ".3f"),
        "MAP@R": ("map_at_r", ".3f"), "variance": ("variance", ".3f"), "random pairs": ("random_distance", ".3f"),
        "rate": ("rate_factor", ".3g"), "images/s": ("images_per_second", ",.0f"), "seconds": ("seconds", ",.0f"),
    }  # fmt: skip
    best = best_epoch(history)
    rows = (
        [f"{entry['phase']} {entry['epoch']}" + ", best" * (entry is best)]
        + [_number(entry.get(name), form) for name, form in columns.values()]
        for entry in history
    )
    return table(("epoch", *columns), rows)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _augmented(rows: Sequence[AugmentedRow]) -> str:
    if not rows:
        return ""
    return (
        '<section><h2>What the network sees</h2><p class="note">Each picture at the left, and how it looked in '
        'training: cut, turned, mirrored and coloured anew every time.</p><div class="augmented">'
        + "".join(_augmented_row(*row) for row in rows)
        + "</div></section>"
    )


def _augmented_row(path: str, seen: Sequence[NDArray[np.uint8]]) -> str:
    changed = "".join(captioned("", pixels, "", "", name=f"{_short(path)}, augmented") for pixels in seen)
    return (
        f'<div class="row">{captioned("query", path, _short(path), "original")}<div class="seen">{changed}</div></div>'
    )


def _suspects(suspects: Sequence[Suspect]) -> str:
    if not suspects:
        return ""
    shown = suspects[:MOST_SUSPECTS]
    more = f" The first {len(shown)} of {len(suspects):,}." if len(shown) < len(suspects) else ""
    return (
        '<section><h2>Probable label errors</h2><p class="note">Pictures that look the same and are labelled '
        f'differently, most alike first.{more}</p><div class="pairs">'
        + "".join(_suspect(*suspect) for suspect in shown)
        + "</div></section>"
    )


def _suspect(one: Labelled, other: Labelled, score: float) -> str:
    pictures = (captioned("", each.path, each.label, _short(each.path), box=each.box) for each in (one, other))
    return f'<div class="pair">{"".join(pictures)}<p>score {score:.3f}</p></div>'


def _reliability(png: bytes | None) -> str:
    if png is None:
        return ""
    return (
        '<section><h2>Are the probabilities right?</h2><div class="beside">'
        + chart(png, "reliability diagram: observed against predicted share of matches, and the expected error")
        + '<p class="note">Held-out pairs by the probability that the model gives them, and the share that really '
        "match. On the dashed line the probabilities are right, below it they promise too much, above it too little. "
        "The expected calibration error is the mean distance from the line, every pair counted alike; the bars are "
        "how many pairs there are, on a logarithmic scale.</p></div></section>"
    )


def _settings(settings: Mapping[str, Any]) -> str:
    if not settings:
        return ""
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in _flat(settings))
    return f'<section><h2>Settings</h2><dl class="settings">{shown}</dl></section>'


def _flat(settings: Mapping[str, Any], within: str = "") -> Iterable[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", _setting(value)


def _setting(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_setting, value))
    return str(value)


def _sheet_row(path: str, seen: Sequence[NDArray[np.uint8]]) -> SheetRow:
    return SheetRow(path, [(Image.fromarray(pixels), "") for pixels in seen], f"{_short(path)}\noriginal")


def _short(path: str) -> str:
    """The folder and the file: class folders hold files of one name."""
    return "/".join(Path(path).parts[-2:])
