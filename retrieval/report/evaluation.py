"""How good is it, at a glance? An evaluation as one HTML file: figures, curve, classes, and failures as pictures."""

import os
from collections.abc import Sequence
from html import escape

from retrieval.report.page import Span, card, failures_section, save_page, table, whole_page
from retrieval.results import METRIC_TITLES, Comparison, EvaluationReport, Failure, Figure

MOST_CLASSES = 100
MOST_SKIPPED = 50

_PLOT_WIDTH, _PLOT_HEIGHT, _PLOT_MARGIN = 560, 260, 36


def save_report(report: EvaluationReport, path: str | os.PathLike[str]) -> None:
    """Write an evaluation as one self-contained HTML file, which appears whole or not at all.

    Raises:
        RetrievalError: it cannot be written.
    """
    save_page(evaluation_page(report), path)


def evaluation_page(report: EvaluationReport) -> str:
    """The page as text; pictures that cannot be shown any more are replaced by their names and the reason."""
    sections = [
        _headline(report),
        "" if report.comparison is None else _comparison(report, report.comparison),
        _curve(report.precision_at_recall),
        _failures(report.failures),
        _classes(report),
        _skipped(report),
    ]
    return whole_page(f"Evaluation of {report.model.name}", sections)


def _headline(report: EvaluationReport) -> str:
    left_out = report.left_out
    facts = [
        f"{report.queries:,} queries of {len(report.per_class):,} products against {report.gallery:,} pictures",
        f"{report.model.dim} values an embedding, model {report.model.fingerprint[:8]}",
    ]
    facts += [f"{left_out.without_positive:,} queries without another picture of their product"] * bool(
        left_out.without_positive
    )
    facts += [f"{left_out.without_label:,} pictures without a label"] * bool(left_out.without_label)
    facts += [f"{left_out.own_pictures:,} queries are in the gallery themselves, and are no answer there"] * bool(
        left_out.own_pictures
    )
    cards = "".join(_card(METRIC_TITLES[name], figure) for name, figure in report.figures.items())
    return (
        f"<header><h1>{escape(report.model.name)}</h1><p>{escape('; '.join(facts))}</p></header>\n"
        f'<section class="cards">{cards}</section>\n'
        '<p class="note">Bars and ranges: 95% bootstrap intervals over the queries.</p>'
    )


def _card(title: str, figure: Figure) -> str:
    caption = f"{figure.low:.3f} to {figure.high:.3f}"
    return card(title, f"{figure.value:.3f}", [Span(figure.low, figure.high)], caption)


def _comparison(report: EvaluationReport, comparison: Comparison) -> str:
    rows = (
        (
            METRIC_TITLES[name],
            f"{figure.value:.3f}",
            f"{comparison.figures[name].value:.3f}",
            _signed(comparison.differences[name]),
        )
        for name, figure in report.figures.items()
    )
    first, second = escape(report.model.name), escape(comparison.model.name)
    return (
        f"<section><h2>Compared with {second}</h2>"
        + table(("", report.model.name, comparison.model.name, "difference, 95% interval"), rows)
        + f'<p class="note">First hit right with {first} alone: {comparison.only_first:,} queries; with {second} '
        f"alone: {comparison.only_second:,}. McNemar's exact test: p = {comparison.p_value:.3g}.</p></section>"
    )


def _signed(figure: Figure) -> str:
    return f"{figure.value:+.3f} ({figure.low:+.3f} to {figure.high:+.3f})"


def _curve(precision: Sequence[float]) -> str:
    """Precision over recall as SVG; colours come from the page's style."""
    width, height, margin = _PLOT_WIDTH, _PLOT_HEIGHT, _PLOT_MARGIN
    right, bottom = width - 10, height - margin

    def across(share: float) -> float:
        return margin + share * (right - margin)

    def down(share: float) -> float:
        return bottom - share * (bottom - 10)

    last = max(1, len(precision) - 1)
    line = " ".join(f"{across(at / last):.1f},{down(value):.1f}" for at, value in enumerate(precision))
    grid = "".join(
        f'<line x1="{margin}" x2="{right}" y1="{down(share):.1f}" y2="{down(share):.1f}"/>'
        f'<text x="{margin - 6}" y="{down(share) + 4:.1f}" text-anchor="end">{share:g}</text>'
        f'<text x="{across(share):.1f}" y="{bottom + 18}" text-anchor="middle">{share:g}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        "<section><h2>Precision over recall</h2>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="precision over recall">{grid}'
        f'<polygon points="{across(0):.1f},{bottom} {line} {across(1):.1f},{bottom}"/><polyline points="{line}"/></svg>'
        '<p class="note">How many of the pictures shown are right (upwards) when so large a share of the right ones '
        "has been shown (to the right); interpolated, mean over the queries.</p></section>"
    )


def _failures(failures: Sequence[Failure]) -> str:
    if not failures:
        return "<section><h2>Failures</h2><p>The first hit of every query is right.</p></section>"
    return failures_section(failures)


def _classes(report: EvaluationReport) -> str:
    shown = report.per_class[:MOST_CLASSES]
    rows = ((one.label, f"{one.queries:,}", f"{one.recall_at_1:.3f}", f"{one.map_at_r:.3f}") for one in shown)
    more = f", the worst {len(shown)} of {len(report.per_class):,}" if len(shown) < len(report.per_class) else ""
    return (
        f"<section><h2>Products, worst first{more}</h2>"
        + table(("product", "queries", "Recall@1", "MAP@R"), rows)
        + "</section>"
    )


def _skipped(report: EvaluationReport) -> str:
    if not report.skipped:
        return ""
    rows = ((skip.key, skip.reason) for skip in report.skipped[:MOST_SKIPPED])
    return (
        f"<section><h2>{len(report.skipped):,} pictures could not be used</h2>"
        + table(("picture", "reason"), rows, is_text=True)
        + "</section>"
    )
