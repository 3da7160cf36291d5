"""`retrieve backup`: copy an index while it is in use."""

from pathlib import Path

import click

from indexer.backup import backup
from retrieval.cli.common import find_index, human_bytes, index_option, json_option, print_json


@click.command("backup")
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@index_option
@json_option
def command(destination: Path, index_dir: Path | None, as_json: bool) -> None:
    r"""Copy the newest generation of an index into the new folder DEST, while others read and write it.

    The copy is an index of its own: query it with --index DEST.

    \b
    Example:
      retrieve backup /backups/shop-monday
    """
    done = backup(find_index(index_dir).absolute(), destination)
    if as_json:
        print_json(done.to_dict())
    else:
        click.echo(f"{done.images} pictures, generation {done.generation}, {human_bytes(done.size_bytes)}: {done.path}")
