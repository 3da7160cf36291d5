"""`retrieve refresh`: a better model for an index that is in use."""

import os
from pathlib import Path
from typing import Any

import click

from retrieval.cli.common import find_index, index_option, json_option, named, on_one_line, print_json
from retrieval.cli.moving import print_move, show_embedding
from retrieval.cli.progress import ProgressLine
from retrieval.cli.stopping import INTERRUPTED, StopRequest
from retrieval.cli.training import training_options, training_settings
from retrieval.feedback import MOST_PER_SOURCE
from retrieval.index_model import ModelOptions
from retrieval.refresh import RefreshConfig, move_to_model, refresh
from retrieval.refresh.gate import DEFAULT_GATE
from retrieval.results import METRIC_TITLES, RefreshReport

REFUSED = 5
_NICENESS = 10


@click.command("refresh")
@index_option
@click.option("--labels", type=click.Path(path_type=Path), metavar="MANIFEST", help="Columns key and product_id.")
@click.option("--gate", default=DEFAULT_GATE, show_default=True, metavar="CONDITION", help="What it must reach.")
@click.option("--refit/--no-refit", default=True, help="Train afresh on everything, once the candidate has passed.")
@click.option("--allow-missing", is_flag=True, help="Even if more than 1% of the pictures cannot be read any more.")
@click.option(
    "--most-per-source",
    default=MOST_PER_SOURCE,
    show_default=True,
    type=click.IntRange(0),
    metavar="N",
    help="Judgements of one source of feedback that count.",
)
@click.option("--keep-features", is_flag=True, help="So that a refresh with --freeze-backbone reads no picture again.")
@click.option("--dry-run", is_flag=True, help="Train and judge, and leave the index with its model.")
@click.option("--model", metavar="NAME|DIR", help="Move to this model, unjudged, instead of training one.")
@training_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    index_dir: Path | None,
    labels: Path | None,
    gate: str,
    allow_missing: bool,
    most_per_source: int,
    keep_features: bool,
    refit: bool,
    dry_run: bool,
    model: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    r"""Train on what an index is labelled with, and move the index to the result if it is better.

    A part of the labelled pictures is held out, the same at every refresh; on these the candidate must reach what
    --gate says. The index is searched and changed meanwhile as if nothing happened; readers take up the new model at
    their next refresh. Stop it at any moment: the same command goes on. `retrieve rollback` is the way back.

    \b
    Example:
      retrieve refresh
      retrieve refresh --gate "recall_at_1 >= current + 0.01 and map_at_r >= current"
      retrieve refresh --model ./shop-model

    Exit codes: 0 done, 1 failed, 2 usage, 5 the candidate did not pass the gate, and the index stays with its model.
    """
    settings = training_settings(given)
    os.nice(_NICENESS)  # searches go first
    options = ModelOptions(settings["device"], settings.get("threads"), None, settings["limits"])
    folder = find_index(index_dir)
    with StopRequest() as stop, ProgressLine() as line:

        def on_progress(title: str, done: int, total: int) -> None:
            line.show(title, done, total, "the index answers as before", line_title=f"{title}: ")
            stop.check()

        def on_embedding(done: int, total: int) -> None:
            show_embedding(line, done, total)
            stop.check()

        try:
            if model is not None:
                moved = move_to_model(
                    folder,
                    model,
                    allow_missing=allow_missing,
                    keep_features=keep_features,
                    options=options,
                    on_progress=on_embedding,
                )
                print_move(moved, folder, as_json)
                return 0
            report = refresh(
                RefreshConfig(
                    folder,
                    labels=labels,
                    gate=gate,
                    allow_missing=allow_missing,
                    most_per_source=most_per_source,
                    keep_features=keep_features,
                    refit=refit,
                    dry_run=dry_run,
                    training=settings,
                    options=options,
                ),
                on_progress,
            )
        except KeyboardInterrupt:
            line.close()
            click.echo("retrieve: stopped; the index has its former model. The same command goes on", err=True)
            ctx.exit(INTERRUPTED)
    _print(report, folder, as_json)
    return REFUSED if report.unmet else 0


def _print(report: RefreshReport, folder: Path, as_json: bool) -> None:
    for one in report.feedback.contradictions:
        click.echo(f"feedback on {on_one_line(one.query)}: {on_one_line(one.reason)}", err=True)
    for reason in report.unmet:
        click.echo(f"gate: {reason}", err=True)
    if as_json:
        print_json(report.to_dict())
        return
    if report.feedback.judgements:
        use = report.feedback
        click.echo(f"feedback: {use.judgements} judgements, query pictures {use.pictures}, rejections {use.rejections}")
    comparison = report.judged.comparison
    if comparison is not None:
        click.echo(
            f"{report.judged.queries} held-out pictures, {named(report.judged.model)} -> {named(report.candidate)}"
        )
        for name in ("recall_at_1", "map_at_r"):
            before, after = report.judged.figures[name].value, comparison.figures[name].value
            change = comparison.differences[name]
            click.echo(
                f"{METRIC_TITLES[name]:<10} {before:.3f} -> {after:.3f}, difference {change.value:+.3f} "
                f"({change.low:+.3f} to {change.high:+.3f})"
            )
    if report.moved is None:
        click.echo(f"{folder} stays with its model")
    else:
        print_move(report.moved, folder, as_json)
