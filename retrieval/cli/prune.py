"""`retrieve prune`: let go of former models."""

from pathlib import Path

import click

from retrieval.cli.common import find_index, index_option, json_option, named, print_json
from retrieval.refresh import prune


@click.command("prune")
@click.option("--keep", required=True, type=click.IntRange(1), metavar="N", help="Models, the present one counted.")
@index_option
@json_option
def command(keep: int, index_dir: Path | None, as_json: bool) -> None:
    r"""Drop the vectors of all but the last N models of an index; with 1 there is no way back.

    \b
    Example:
      retrieve prune --keep 2
    """
    dropped = prune(find_index(index_dir), keep)
    if as_json:
        print_json({"dropped": [model.to_dict() for model in dropped]})
        return
    click.echo(f"dropped {', '.join(map(named, dropped))}" if dropped else "nothing to drop")
