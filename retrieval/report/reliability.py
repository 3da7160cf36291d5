"""Are the probabilities right? A reliability diagram: predicted probability against observed frequency, with counts."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrieval.report.chart import BLUE, INK, PALE_INK, RULE, new_figure, png_of, tidy
from retrieval.report.writing import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE_INCHES = (5.0, 5.6)


def draw_reliability(
    predicted: Sequence[float],
    observed: Sequence[float],
    pairs: Sequence[int],
    *,
    expected_calibration_error: float,
    title: str = "Is a match as probable as predicted?",
) -> "Figure":
    """Draw bins of pairs: above, observed against predicted, on the diagonal where right; below, how many pairs.

    Args:
        predicted: (B,) mean probability of each bin's pairs.
        observed: (B,) share of them that match.
        pairs: (B,) how many there are.
        expected_calibration_error: written into the diagram.
        title: above it.

    Raises:
        ValueError: the three disagree on B.
    """
    if not len(predicted) == len(observed) == len(pairs):
        raise ValueError(f"{len(predicted)} predicted, {len(observed)} observed and {len(pairs)} counts; must be alike")
    figure = new_figure(SIZE_INCHES)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color=RULE, linewidth=1.5, linestyle="--")
    upper.plot(predicted, observed, color=BLUE, linewidth=1.5, marker="o", markersize=5)
    upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share that match")
    upper.set_title(title, color=INK, loc="left", fontsize=11)
    note = f"expected calibration error {expected_calibration_error:.3f}\n{sum(pairs):,} held-out pairs"
    upper.text(0.02, 0.97, note, transform=upper.transAxes, va="top", color=PALE_INK, fontsize=9)
    lower.bar(predicted, pairs, width=0.03, color=BLUE)
    lower.set(xlabel="predicted probability of a match", ylabel="pairs")
    lower.set_yscale("symlog", linthresh=1)  # the first bin often holds most of them
    for axes in (upper, lower):
        tidy(axes)
    return figure


def reliability_png(figure: "Figure") -> bytes:
    """The diagram as a PNG, for a page that holds its own pictures."""
    return png_of(figure)


def save_reliability(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write the diagram as a PNG, which appears whole or not at all.

    Raises:
        RetrievalError: it cannot be written.
    """
    with written_whole(path, "the reliability diagram") as aside:
        aside.write_bytes(reliability_png(figure))
