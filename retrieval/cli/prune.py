"""`retrieve prune`: let go of former models, and of what was removed."""

import re
from datetime import timedelta
from pathlib import Path

import click

from retrieval.cli.common import find_index, index_option, json_option, named, print_json
from retrieval.engine import LEAST_AGE, SearchEngine
from retrieval.refresh import prune

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Age(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    """A number of hours, days or weeks."""

    name = "age"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """See `click.ParamType`."""
        found = re.fullmatch(r"(\d{1,5})([hdw])", value)
        age = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
        if age < LEAST_AGE:
            self.fail(f"{value!r} is no age of an hour or more, such as 12h, 30d or 4w", param, ctx)
        return age


@click.command("prune")
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Models, the present one counted.")
@click.option(
    "--removed-for", type=Age(), metavar="AGE", help="Forget what was removed or replaced so long ago: 30d, 12h."
)
@index_option
@json_option
def command(keep: int | None, removed_for: timedelta | None, index_dir: Path | None, as_json: bool) -> None:
    r"""Make an index smaller: drop the vectors of all but its last N models, and what was removed long ago.

    With `--keep 1` there is no way back to a former model. Pictures that are in the index stay as they are.

    \b
    Examples:
      retrieve prune --keep 2
      retrieve prune --removed-for 30d
    """
    if keep is None and removed_for is None:
        raise click.UsageError("say what to let go of: --keep N, --removed-for AGE, or both")
    found = find_index(index_dir)
    dropped = [] if keep is None else prune(found, keep)
    forgotten = None
    if removed_for is not None:
        with SearchEngine.open(found) as engine:
            forgotten = engine.forget_removed(removed_for)
    if as_json:
        said = {} if forgotten is None else {"forgotten": forgotten.to_dict()}
        print_json({"dropped": [model.to_dict() for model in dropped]} | said)
        return
    if keep is not None:
        click.echo(f"dropped {', '.join(map(named, dropped))}" if dropped else "no former model to drop")
    if forgotten is not None:
        click.echo(
            f"forgot {forgotten.pictures} removed pictures, {forgotten.versions} former versions of what was said of "
            f"pictures, {forgotten.generations} generations"
        )
