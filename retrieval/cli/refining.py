"""The options that narrow and steer a search, and what becomes of them."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from retrieval.answer import Refinements
from retrieval.cli.common import NumberRange
from retrieval.records import Box, read_sides

F = TypeVar("F", bound=Callable[..., Any])
_SCORE = NumberRange(-1, 1)


_OPTIONS = {
    "where": click.option("--where", metavar="CONDITION", help="Such as \"price < 50 and colour in ('red', 'blue')\"."),
    "group_by": click.option("--group-by", metavar="FIELD", help="One hit for each of its values, such as product_id."),
    "offset": click.option(
        "--offset", default=0, type=click.IntRange(0), metavar="N", help="Leave out the best so many."
    ),
    "min_score": click.option("--min-score", type=_SCORE, metavar="S", help="Leave out hits with a lower cosine."),
    "min_probability": click.option(
        "--min-probability",
        type=NumberRange(0, 1),
        metavar="P",
        help="Leave out hits less likely to show the same product; for a calibrated model.",
    ),
    "exclude": click.option("--exclude", multiple=True, metavar="KEY", help="Not to be among the hits. Repeatable."),
    "like": click.option(
        "--like", multiple=True, metavar="KEY", help="Look for what looks like this, too. Repeatable."
    ),
    "unlike": click.option("--unlike", multiple=True, metavar="KEY", help="And not like this. Repeatable."),
    "dedup": click.option(
        "--dedup",
        type=NumberRange(0, 1, min_open=True),
        metavar="S",
        help="Leave out a hit whose cosine to a better one is at least this, such as 0.98.",
    ),
    "expand": click.option(
        "--expand", default=0, type=click.IntRange(0), metavar="N", help="Search again, moved towards the N nearest."
    ),
    "rerank": click.option("--rerank", is_flag=True, help="Order the first 100 by whom they are near to themselves."),
}


def box_of(ctx: click.Context, param: click.Parameter, said: str | None) -> Box | None:
    """The box that an option says, as "left,top,width,height"."""
    if said is None:
        return None
    sides = read_sides(said)
    if sides is None:
        raise click.BadParameter(f"{said!r} is no box; write left,top,width,height in pixels")
    if min(sides[2:]) <= 0:
        raise click.BadParameter(f"{said!r} is empty; width and height must be above 0")
    return Box(*sides)


def refinement_options(function: F) -> F:
    """Add them, and hand over what was said as one argument, `refined`."""

    @wraps(function)
    def with_refinements(**said: Any) -> Any:
        refined = Refinements(**{name: said.pop(name) for name in _OPTIONS})  # type: ignore[typeddict-item]
        return function(refined=refined, **said)

    for option in reversed(_OPTIONS.values()):
        with_refinements = option(with_refinements)
    return with_refinements  # type: ignore[return-value]
