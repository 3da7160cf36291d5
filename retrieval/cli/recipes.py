"""The options that say how the vectors of an index are to be searched, and how a compaction is told."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from indexer.compaction import Compaction
from indexer.errors import RecipeError
from indexer.recipe import read_memory
from retrieval.cli.common import NumberRange, human_bytes, print_json

F = TypeVar("F", bound=Callable[..., Any])


def _memory(ctx: click.Context, param: click.Parameter, said: str | None) -> int | None:
    try:
        return None if said is None else read_memory(said)
    except RecipeError as error:
        raise click.BadParameter(str(error)) from error


_OPTIONS = (
    click.option(
        "--recipe",
        metavar="auto|exact|FACTORY",
        help="How vectors are searched: as their number demands, one by one, or as a FAISS factory string says.",
    ),
    click.option(
        "--recall",
        type=NumberRange(0, 1, min_open=True),
        metavar="R",
        help="Of the true ten nearest, the share to find. At first: 0.95.",
    ),
    click.option(
        "--memory", callback=_memory, metavar="SIZE", help="What the first stage of a search may take, such as 4GB."
    ),
)


def recipe_options(function: F) -> F:
    """Add them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def tell(done: Compaction | None, as_json: bool) -> None:
    """Print what a compaction came to."""
    if as_json:
        print_json({"compacted": None if done is None else done.to_dict()})
    elif done is None:
        click.echo("nothing to do: one segment, nothing removed, searched as asked for")
    else:
        click.echo(
            f"{done.images} pictures in one segment, before in {done.segments}, {done.dropped} removed ones dropped in "
            f"{done.seconds:.1f} s\nsearched by {done.recipe}: {done.reason}; {done.ann_recall_at_10:.3f} of the ten "
            f"nearest found, {human_bytes(done.memory_bytes)} of memory"
        )
