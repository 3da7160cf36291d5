"""How did the training go? Loss, triplets, validation, spread, rate and speed over the epochs, as charts."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from retrieval.report.chart import BLUE, GREEN, INK, ORANGE, PALE_INK, PURPLE, new_figure, png_of, tidy
from retrieval.report.writing import written_whole
from retrieval.results import METRIC_TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PHASES = ("validation", "refit")
PANEL_INCHES = (4.2, 2.5)
MOST_COLUMNS = 3

_COLOURS = ({"validation": BLUE, "refit": ORANGE}, {"validation": GREEN, "refit": PURPLE})  # of a panel's series
_LINES: dict[str, dict[str, Any]] = {  # what was measured is drawn through, the repetition on everything dashed
    "validation": {"linestyle": "-", "marker": "o"},
    "refit": {"linestyle": (0, (4, 2)), "marker": "D", "markerfacecolor": "white"},
}

Epoch = Mapping[str, Any]


class _Panel(NamedTuple):
    title: str
    series: dict[str, str]  # name in an epoch -> in the legend
    bottom: float | None = None  # of the vertical axis; None follows the values
    top: float | None = None


_PANELS = (
    _Panel("Validation", {name: METRIC_TITLES[name] for name in ("recall_at_1", "map_at_r")}),
    _Panel("Loss", {"loss": "loss"}),
    _Panel("Share of active triplets", {"active": "active"}, 0.0, 1.1),
    _Panel("Spread", {"variance": "variance", "random_distance": "random pairs"}, 0.0),
    _Panel("Learning-rate factor", {"rate_factor": "factor"}, 0.0),
    _Panel("Images a second", {"images_per_second": "images"}, 0.0),
)


def draw_curves(history: Sequence[Epoch]) -> "Figure":
    """Draw a training, a panel for each measure that has values, on white.

    Args:
        history: an epoch each, at least one. `phase` is "validation" (trained on a part, measured on the rest) or
            "refit" (trained afresh on everything), `epoch` counts from 1 in each; `loss`, `active`, `recall_at_1`,
            `map_at_r`, `variance`, `random_distance`, `rate_factor` and `images_per_second` are numbers, or None where
            not measured; `is_best` marks the best so far.

    Raises:
        ValueError: there is no epoch, or one of an unknown phase.
    """
    return _drawn(history, _filled_panels(history))


def curves_png(history: Sequence[Epoch]) -> bytes:
    """What `draw_curves` draws, as one PNG.

    Raises:
        ValueError: as for `draw_curves`.
    """
    return png_of(draw_curves(history))


def panel_pngs(history: Sequence[Epoch]) -> dict[str, bytes]:
    """The same as a PNG for each panel, under its title: for pages that arrange them by their width.

    Raises:
        ValueError: as for `draw_curves`.
    """
    return {panel.title: png_of(_drawn(history, [panel])) for panel in _filled_panels(history)}


def save_curves(history: Sequence[Epoch], path: str | os.PathLike[str]) -> None:
    """Write what `curves_png` draws; the file appears whole or not at all.

    Raises:
        RetrievalError: it cannot be written.
        ValueError: as for `draw_curves`.
    """
    png = curves_png(history)
    with written_whole(path, "the curves") as aside:
        aside.write_bytes(png)


def best_epoch(history: Sequence[Epoch]) -> Epoch | None:
    """The last of the validation phase that was the best so far; None where nothing was validated."""
    best = [entry for entry in history if entry["phase"] == "validation" and entry.get("is_best")]
    return best[-1] if best else None


def _filled_panels(history: Sequence[Epoch]) -> list[_Panel]:
    if not history:
        raise ValueError("curves need at least one epoch, there are none")
    for entry in history:
        if entry["phase"] not in PHASES:
            raise ValueError(f'an epoch is of phase "{entry["phase"]}"; it must be one of {", ".join(PHASES)}')
    return [
        panel for panel in _PANELS if any(entry.get(name) is not None for entry in history for name in panel.series)
    ]


def _drawn(history: Sequence[Epoch], panels: Sequence[_Panel]) -> "Figure":
    columns = max(1, min(MOST_COLUMNS, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = new_figure((PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows))
    for number, panel in enumerate(panels, start=1):
        _draw_panel(figure.add_subplot(rows, columns, number), panel, history)
    return figure


def _draw_panel(axes: "Axes", panel: _Panel, history: Sequence[Epoch]) -> None:
    from matplotlib.ticker import MaxNLocator

    best = best_epoch(history)
    if best is not None:
        axes.axvline(best["epoch"], color=PALE_INK, linewidth=1, linestyle=":", zorder=1)
    for colours, (name, label) in zip(_COLOURS, panel.series.items(), strict=False):
        for phase in PHASES:
            points = [(e["epoch"], e[name]) for e in history if e["phase"] == phase and e.get(name) is not None]
            if points:
                line: dict[str, Any] = _LINES[phase] | {"color": colours[phase], "label": _legend(panel, label, phase)}
                axes.plot(*zip(*points, strict=True), linewidth=1.6, markersize=4, **line)
        if best is not None and best.get(name) is not None:
            ring: dict[str, Any] = {"color": colours["validation"], "markerfacecolor": "none", "markeredgewidth": 1.4}
            axes.plot(best["epoch"], best[name], "o", markersize=9, **ring)
    axes.set_title(panel.title, color=INK, loc="left", fontsize=10)
    axes.set_xlabel("epoch" if best is None else f"epoch, {best['epoch']} the best", color=PALE_INK, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if panel.bottom is not None:
        axes.update_datalim([(1, panel.bottom)])
    axes.margins(y=0.12)  # the ring stays whole
    axes.set(xlim=(0.5, max(entry["epoch"] for entry in history) + 0.5))
    axes.set_ylim(panel.bottom, panel.top)
    _add_legend(axes)
    tidy(axes)


def _add_legend(axes: "Axes") -> None:
    if len(axes.get_legend_handles_labels()[1]) > 1:
        layout: dict[str, Any] = {
            "loc": "lower right",
            "bbox_to_anchor": (1, 1),
            "ncols": 2,
            "borderaxespad": 0.2,
            "columnspacing": 1,
        }
        axes.legend(frameon=False, fontsize=8, labelcolor=PALE_INK, handlelength=1.8, **layout)


def _legend(panel: _Panel, label: str, phase: str) -> str:
    if len(panel.series) == 1:
        return phase
    return label if phase == "validation" else f"{label}, {phase}"
