"""The options of a training: what `train` and `refresh` share, and what becomes of them."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from retrieval.cli.common import device_option, picture_limit_options
from retrieval.images import DecodeLimits

F = TypeVar("F", bound=Callable[..., Any])

_STRENGTHS = "crop_area, crop_aspect, rotation_degrees, brightness, contrast, saturation, hue_degrees, flip"

_OPTIONS = (
    click.option(
        "--loss",
        metavar="NAME",
        help="proxy (default), tuplet, triplet, soft_triplet, contrastive, pair, or one of pytorch-metric-learning.",
    ),
    click.option("--miner", help="curriculum (default), index, all, semi_hard, hard or distance_weighted."),
    click.option("--distance", help="squared_euclidean (default), euclidean or cosine."),
    click.option("--margin", type=float, help="Of the loss, in units of the distance."),
    click.option("--dim", type=click.IntRange(2), metavar="D", help="Length of an embedding. Default: 256."),
    click.option("--pooling", type=click.Choice(["average", "gem"]), help="Default: the model's own."),
    click.option("--epochs", type=click.IntRange(1), metavar="N", help="At most."),
    click.option("--batch", nargs=2, type=click.IntRange(2), metavar="P K", help="P classes, K pictures of each."),
    click.option("--rates", nargs=2, type=float, metavar="BACKBONE HEAD", help="Learning rates."),
    click.option("--schedule", type=click.Choice(["plateau", "cosine"]), help="Of the learning rates."),
    click.option(
        "--start-share", type=float, metavar="SHARE", help="Of the weights it started from in those kept, 0 to 1."
    ),
    click.option("--clip", type=float, metavar="NORM", help="Largest norm of the gradient."),
    click.option("--embed-px", type=click.IntRange(16), metavar="P", help="Side of pictures that the model will take."),
    click.option(
        "--train-px", type=click.IntRange(16), metavar="P", help="Side of training pictures; smaller is faster."
    ),
    click.option(
        "--freeze-batch-norm/--no-freeze-batch-norm", default=True, help="Keep the backbone's batch statistics."
    ),
    click.option("--freeze-backbone", is_flag=True, default=None, help="Train pooling and projection alone."),
    click.option("--augment", multiple=True, metavar="NAME=VALUE", help=f"Strengths: {_STRENGTHS}; or 'none'."),
    click.option("--drop-conflicts", is_flag=True, help="Leave out pictures that stand under two labels."),
    click.option(
        "--seed", default=0, show_default=True, type=click.IntRange(0), metavar="N", help="Of all that is drawn."
    ),
    click.option("--threads", type=click.IntRange(1), metavar="N", help="Cores to use. Default: all."),
    device_option,
    picture_limit_options,
)


def training_options(function: F) -> F:
    """Add them, in this order."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def training_settings(given: dict[str, Any]) -> dict[str, Any]:
    """What was given, by the names of `TrainConfig`; what was not is left out.

    Raises:
        click.UsageError: a strength is none.
    """
    values = dict(given)
    for option, names in (
        ("batch", ("classes_per_batch", "pictures_per_class")),
        ("rates", ("backbone_rate", "head_rate")),
    ):
        if (pair := values.pop(option)) is not None:
            values |= dict(zip(names, pair, strict=True))
    augmentation = _augmentation(values.pop("augment"))
    limits = DecodeLimits(values.pop("max_megapixels"), values.pop("allow_truncated"))
    return {name: value for name, value in values.items() if value is not None} | {
        "augmentation": augmentation,
        "limits": limits,
    }


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
    try:
        return Augmentation(**values)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
