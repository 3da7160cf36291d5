"""`retrieve rollback`: go back to the model that an index had before."""

from pathlib import Path

import click

from retrieval.cli.common import device_option, find_index, index_option, json_option
from retrieval.cli.moving import print_move, show_embedding
from retrieval.cli.progress import ProgressLine
from retrieval.index_model import ModelOptions
from retrieval.refresh import rollback


@click.command("rollback")
@index_option
@click.option("--drop-newer", is_flag=True, help="Remove pictures that have come since and cannot be read any more.")
@device_option
@json_option
def command(index_dir: Path | None, drop_newer: bool, device: str, as_json: bool) -> None:
    r"""Go back to the model that the index had before; once more, and it is the present one again.

    Its vectors are still there. Pictures that have come since are embedded by it first.

    \b
    Example:
      retrieve rollback
    """
    folder = find_index(index_dir)
    with ProgressLine() as line:
        report = rollback(
            folder,
            drop_newer=drop_newer,
            options=ModelOptions(device),
            on_progress=lambda done, total: show_embedding(line, done, total),
        )
    print_move(report, folder, as_json)
