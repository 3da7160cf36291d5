"""`retrieve train`: teach an encoder what "the same product" means in this catalogue."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval.cli.common import device_option, json_option, on_one_line, picture_limit_options, print_json
from retrieval.cli.progress import ProgressLine
from retrieval.cli.stopping import INTERRUPTED, StopRequest
from retrieval.encoder.backbones import DEFAULT_MODEL
from retrieval.images import DecodeLimits
from retrieval.results import TrainingReport

if TYPE_CHECKING:
    from retrieval.training import TrainProgress

NEWLY_SKIPPED = 3
_SHOWN_SKIPS = 20
_STRENGTHS = "crop_area, crop_aspect, rotation_degrees, brightness, contrast, saturation, hue_degrees, flip"


@click.command("train")
@click.argument("source")
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
    "--loss",
    metavar="NAME",
    help="proxy (default), tuplet, triplet, soft_triplet, contrastive, pair, or a loss of pytorch-metric-learning.",
)
@click.option("--miner", help="curriculum (default), index, all, semi_hard, hard or distance_weighted.")
@click.option("--distance", help="squared_euclidean (default), euclidean or cosine.")
@click.option("--margin", type=float, help="Of the loss, in units of the distance.")
@click.option("--dim", type=click.IntRange(2), metavar="D", help="Length of an embedding. Default: 256.")
@click.option("--pooling", type=click.Choice(["average", "gem"]), help="Default: the model's own.")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="At most.")
@click.option("--batch", nargs=2, type=click.IntRange(2), metavar="P K", help="P classes, K pictures of each.")
@click.option(
    "--val",
    "validation",
    default="classes",
    show_default=True,
    metavar="classes|pictures|FILE|none",
    help="What is held out to measure on.",
)
@click.option("--refit/--no-refit", default=True, help="Train afresh on everything in the end.")
@click.option("--rates", nargs=2, type=float, metavar="BACKBONE HEAD", help="Learning rates.")
@click.option("--schedule", type=click.Choice(["plateau", "cosine"]), help="Of the learning rates.")
@click.option("--patience", type=click.IntRange(0), metavar="N", help="Epochs without improvement.")
@click.option(
    "--start-share", type=float, metavar="SHARE", help="Of the weights it started from in those that are kept, 0 to 1."
)
@click.option("--clip", type=float, metavar="NORM", help="Largest norm of the gradient.")
@click.option("--embed-px", type=click.IntRange(16), metavar="P", help="Side of pictures that the model will take.")
@click.option("--train-px", type=click.IntRange(16), metavar="P", help="Side of training pictures; smaller is faster.")
@click.option("--freeze-batch-norm/--no-freeze-batch-norm", default=True, help="Keep the backbone's batch statistics.")
@click.option("--augment", multiple=True, metavar="NAME=VALUE", help=f"Strengths: {_STRENGTHS}; or 'none'.")
@click.option("--drop-conflicts", is_flag=True, help="Leave out pictures that stand under two labels.")
@click.option("--allow-unlabelled", is_flag=True, help="Leave out pictures without a label.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished training of the same settings.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), metavar="N", help="Of all that is drawn.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Cores to use. Default: all.")
@device_option
@picture_limit_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    batch: tuple[int, int] | None,
    rates: tuple[float, float] | None,
    augment: tuple[str, ...],
    max_megapixels: float,
    allow_truncated: bool,
    resume: bool,
    as_json: bool,
    **settings: Any,
) -> int:
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

    if batch is not None:
        settings |= dict(zip(("classes_per_batch", "pictures_per_class"), batch, strict=True))
    if rates is not None:
        settings |= dict(zip(("backbone_rate", "head_rate"), rates, strict=True))
    given = {name: value for name, value in settings.items() if value is not None}
    try:
        config = TrainConfig(
            **given, augmentation=_augmentation(augment), limits=DecodeLimits(max_megapixels, allow_truncated)
        )
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


def _augmentation(given: tuple[str, ...]) -> Any:
    """The strengths that were named over the default ones, or over none at all."""
    from retrieval.training.augment import NO_AUGMENTATION, Augmentation

    start = NO_AUGMENTATION if "none" in given else Augmentation()
    values = {one.name: getattr(start, one.name) for one in fields(Augmentation)}
    for text in given:
        name, _, value = text.partition("=")
        if text == "none":
            continue
        if name not in values:
            raise click.UsageError(f"--augment {text}: there is no strength {name!r}; there are {_STRENGTHS}")
        try:
            values[name] = float(value)
        except ValueError:
            raise click.UsageError(f"--augment {text}: {value!r} is no number; write for instance {name}=0.2") from None
    return Augmentation(**values)


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
