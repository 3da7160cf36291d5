"""`retrieve train`: teach an encoder what "the same product" means in this catalogue."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval.cli.common import NamedPath, json_option, on_one_line, print_json
from retrieval.cli.progress import ProgressLine
from retrieval.cli.stopping import INTERRUPTED, StopRequest
from retrieval.cli.training import training_options, training_settings
from retrieval.encoder.backbones import DEFAULT_MODEL
from retrieval.results import TrainingReport

if TYPE_CHECKING:
    from retrieval.training import TrainProgress

NEWLY_SKIPPED = 3
_SHOWN_SKIPS = 20


@click.command("train")
@click.argument("source", type=NamedPath())
@click.option("--out", required=True, metavar="DIR", help="The model directory to make.")
@click.option(
    "--from",
    "from_model",
    default=DEFAULT_MODEL,
    show_default=True,
    metavar="NAME|DIR",
    help="What to start from; tiny_cnn is trained from scratch.",
)
@click.option(
    "--val",
    "validation",
    default="classes",
    show_default=True,
    metavar="classes|pictures|FILE|none",
    help="What is held out to measure on.",
)
@click.option("--refit/--no-refit", default=True, help="Train afresh on everything in the end.")
@click.option("--patience", type=click.IntRange(0), metavar="N", help="Epochs without improvement.")
@click.option("--allow-unlabelled", is_flag=True, help="Leave out pictures without a label.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished training of the same settings.")
@training_options
@json_option
@click.pass_context
def command(ctx: click.Context, /, resume: bool, as_json: bool, **given: Any) -> int:
    r"""Train an encoder on SOURCE and write it as a model directory that `retrieve index --model DIR` takes.

    SOURCE is a folder with one folder a product, a manifest with product_id or label, or the folder of a published data
    set. Stop it at any moment: the best model so far is kept, and --resume goes on.

    \b
    Example:
      retrieve train ./catalogue --out ./shop-model
      retrieve train products.csv --out ./shop-model --from efficientnet_lite0 --val pictures --epochs 20
      retrieve index ./catalogue --model ./shop-model

    Exit codes: 0 done, 1 failed, 2 usage, 3 done, but pictures were skipped.
    """
    from retrieval.training import TrainConfig, train

    try:
        config = TrainConfig(**training_settings(given))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with StopRequest() as stop, ProgressLine() as line:

        def on_progress(state: "TrainProgress") -> None:
            _show(line, state)
            stop.check()

        try:
            report = train(config, resume=resume, on_progress=on_progress)
        except KeyboardInterrupt:
            line.close()
            kept = f"the best model so far is in {config.out}" if Path(config.out).exists() else "there is no model yet"
            click.echo(f"retrieve: stopped; {kept}. The same command with --resume goes on", err=True)
            ctx.exit(INTERRUPTED)
    _print(report, as_json)
    return NEWLY_SKIPPED if report.skipped else 0


def _print(report: TrainingReport, as_json: bool) -> None:
    for skip in report.skipped[:_SHOWN_SKIPS]:
        click.echo(f"skipped {on_one_line(skip.key)}: {skip.reason}", err=True)
    for note in report.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json(report.to_dict())
        return
    if report.before and report.after:
        click.echo(
            f"Recall@1 {report.before['recall_at_1']:.3f} -> {report.after['recall_at_1']:.3f}, MAP@R "
            f"{report.before['map_at_r']:.3f} -> {report.after['map_at_r']:.3f} on {report.held_out} held-out pictures "
            f"({report.validation})"
        )
    again = ", then afresh on everything" if report.is_refitted else ""
    click.echo(
        f"{report.epochs} epochs on {report.pictures} pictures of {report.classes} classes{again}, "
        f"{report.seconds / 60:.1f} minutes; {report.model} holds the model and its report"
    )


def _show(line: ProgressLine, state: "TrainProgress") -> None:
    found = "" if state.recall_at_1 is None else f", Recall@1 {state.recall_at_1:.3f}"
    active = "" if state.active != state.active else f", active {state.active:.0%}"
    told = (
        f"loss {state.loss:.3f}{active}, {state.images_per_second:.0f} images/s{found}, "
        f"{state.seconds_left / 60:.0f} min left"
    )
    title = f"{'refit ' if state.phase == 'refit' else ''}epoch {state.epoch}/{state.epochs}"
    line.show(title, state.done, state.total, told, line_title=f"{title}: ")
