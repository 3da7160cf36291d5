"""`retrieve remove`: take pictures out of an index."""

from pathlib import Path

import click

from retrieval.cli.common import find_index, index_option, json_option, print_json
from retrieval.engine import SearchEngine


@click.command("remove")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@index_option
@json_option
def command(keys: tuple[str, ...], index_dir: Path | None, as_json: bool) -> None:
    r"""Remove pictures from an index, all or none; their files stay. A sync adds back those still in a gallery.

    \b
    Example:
      retrieve remove shoes/red.jpg shoes/blue.jpg
    """
    with SearchEngine.open(find_index(index_dir)) as engine:
        generation = engine.remove(keys)
    removed = len(set(keys))
    if as_json:
        print_json({"removed": removed, "generation": generation})
    else:
        click.echo(f"{removed} removed; generation {generation}")
