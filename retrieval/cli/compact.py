"""`retrieve compact`: merge the files of an index, without what was removed."""

from pathlib import Path

import click

from retrieval.cli.common import find_index, index_option, json_option
from retrieval.cli.recipes import tell
from retrieval.engine import SearchEngine


@click.command("compact")
@index_option
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Cores to use. Default: all.")
@json_option
def command(index_dir: Path | None, threads: int | None, as_json: bool) -> None:
    r"""Merge an index's files of vectors into one, without those of removed pictures.

    `retrieve index` does so by itself where it is worth it. Searches and upserts go on meanwhile.

    \b
    Example:
      retrieve compact
    """
    with SearchEngine.open(find_index(index_dir), threads=threads) as engine:
        done = engine.compact()
    tell(done, as_json)
