"""`retrieve evaluate`: how good is a model or an index, and is another model better?"""

import sys
import time
from pathlib import Path

import click

from retrieval.cli.common import (
    NamedPath,
    device_option,
    json_option,
    on_one_line,
    output_file,
    picture_limit_options,
    print_json,
)
from retrieval.evaluation.pictures import EvaluationProgress
from retrieval.evaluation.protocol import EvaluationOptions, evaluate
from retrieval.images import DecodeLimits
from retrieval.results import METRIC_TITLES, Comparison, EvaluationReport, Figure

SKIPPED = 3
_SHOWN_SKIPS = 20
_LINE_EVERY_S = 5.0
_REDRAW_EVERY_S = 0.1


@click.command("evaluate")
@click.option("--queries", required=True, type=NamedPath(), metavar="Q", help="Labelled pictures to search for.")
@click.option("--index", "index_dir", metavar="DIR", help="The index to search in, with its own model.")
@click.option("--model", metavar="NAME|DIR", help="The encoder, instead of an index; see `retrieve models`.")
@click.option(
    "--gallery", type=NamedPath(), metavar="G", help="With --model: labelled pictures to search in; may be Q itself."
)
@click.option("--compare", metavar="NAME|DIR", help="A second encoder on the same pictures, with a paired test.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=output_file,
    metavar="FILE.html",
    help="Write a report.",
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Cores to use. Default: all.")
@device_option
@picture_limit_options
@json_option
def command(
    queries: str,
    index_dir: str | None,
    model: str | None,
    gallery: str | None,
    compare: str | None,
    report: Path | None,
    threads: int | None,
    device: str,
    max_megapixels: float,
    allow_truncated: bool,
    as_json: bool,
) -> int:
    r"""Say how good a model or an index is at finding other pictures of the same product.

    Q and G are folders with one folder a product, or manifests with product_id or label. A picture is no answer to
    itself: its own bytes in the gallery are left out of its ranking.

    \b
    Example:
      retrieve evaluate --index .retrieve --queries photos.csv --report evaluation.html
      retrieve evaluate --model ./my-model --queries ./test --gallery ./test --compare efficientnet_lite0

    Exit codes: 0 done, 1 failed, 2 usage, 3 done, but pictures were skipped.
    """
    _check_usage(index_dir, model, gallery)
    options = EvaluationOptions(device, threads, DecodeLimits(max_megapixels, allow_truncated))
    with _Counter() as counter:
        found = evaluate(
            queries,
            gallery,
            model=model,
            index=index_dir,
            compare=compare,
            options=options,
            on_progress=counter.show,
        )
    for skip in found.skipped[:_SHOWN_SKIPS]:
        click.echo(f"skipped {on_one_line(skip.key)}: {skip.reason}", err=True)
    if len(found.skipped) > _SHOWN_SKIPS:
        click.echo(f"... and {len(found.skipped) - _SHOWN_SKIPS} more; --json lists all", err=True)
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found)
    if report is not None:
        from retrieval.report.evaluation import save_report

        save_report(found, report)
    return SKIPPED if found.skipped else 0


def _check_usage(index_dir: str | None, model: str | None, gallery: str | None) -> None:
    """Refuse what cannot be meant, before minutes are spent on it."""
    if index_dir is not None and model is not None:
        raise click.UsageError("--index and --model exclude each other; --compare names a second model")
    if index_dir is not None and gallery is not None:
        raise click.UsageError("--index and --gallery exclude each other: an index is its own gallery")
    if index_dir is None and model is None:
        raise click.UsageError("name an index with --index, or a model and a gallery with --model and --gallery")
    if model is not None and gallery is None:
        raise click.UsageError("--model needs --gallery, the pictures to search in; it may be the same as --queries")


def _print(report: EvaluationReport) -> None:
    click.echo(f"{'':<10} {on_one_line(report.model.name)}, 95% interval")
    for name, figure in report.figures.items():
        click.echo(f"{METRIC_TITLES[name]:<10} {figure.value:.3f}   {figure.low:.3f} to {figure.high:.3f}")
    click.echo(f"{report.queries} queries of {len(report.per_class)} products against {report.gallery} pictures")
    left_out = report.left_out
    for count, what in (
        (left_out.without_positive, "queries left out: no other picture of their product in the gallery"),
        (left_out.without_label, "pictures left out: nothing says what they show"),
        (left_out.own_pictures, "queries are in the gallery themselves; they are no answer to themselves"),
    ):
        if count:
            click.echo(f"{count} {what}")
    if report.comparison is not None:
        _print_comparison(report, report.comparison)


def _print_comparison(report: EvaluationReport, comparison: Comparison) -> None:
    click.echo(f"\n{'':<10} {on_one_line(comparison.model.name)}, difference, 95% interval of the difference")
    for name, figure in comparison.figures.items():
        difference = comparison.differences[name]
        click.echo(f"{METRIC_TITLES[name]:<10} {figure.value:.3f}   {_signed(difference)}")
    click.echo(
        f"first hit right with {on_one_line(report.model.name)} alone: {comparison.only_first} queries, with "
        f"{on_one_line(comparison.model.name)} alone: {comparison.only_second}; McNemar's exact test: "
        f"p = {comparison.p_value:.3g}"
    )


def _signed(figure: Figure) -> str:
    return f"{figure.value:+.3f}   {figure.low:+.3f} to {figure.high:+.3f}"


class _Counter:
    """Shows how far the embedding is on standard error: one line that changes on a terminal, else a line at times."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._shown_s = time.monotonic()

    def show(self, progress: EvaluationProgress) -> None:
        """Show the state, as often as is of use to the reader."""
        now_s = time.monotonic()
        if now_s - self._shown_s < (_REDRAW_EVERY_S if self._is_terminal else _LINE_EVERY_S):
            return
        self._shown_s = now_s
        speed = progress.done / progress.seconds if progress.seconds else 0.0
        line = f"{progress.side}: {progress.done}/{progress.total} pictures, {speed:.0f} images/s"
        click.echo(f"\r{line}\x1b[K" if self._is_terminal else line, nl=not self._is_terminal, err=True)

    def __enter__(self) -> "_Counter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)
