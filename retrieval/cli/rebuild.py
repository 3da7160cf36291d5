"""`retrieve rebuild`: search an index by another recipe."""

from pathlib import Path

import click

from retrieval.cli.common import find_index, index_option, json_option
from retrieval.cli.recipes import recipe_options, tell
from retrieval.engine import SearchEngine


@click.command("rebuild")
@index_option
@recipe_options
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Cores to use. Default: all.")
@json_option
def command(
    index_dir: Path | None,
    recipe: str | None,
    recall: float | None,
    memory: int | None,
    threads: int | None,
    as_json: bool,
) -> None:
    r"""Let an index be searched by another recipe, from its vectors; no picture is looked at.

    What is asked for is kept, for compactions to come. Searches and upserts go on meanwhile.

    \b
    Example:
      retrieve rebuild --recipe auto --recall 0.98
      retrieve rebuild --recipe HNSW32,SQ8
      retrieve rebuild --recipe exact
    """
    if recipe is None and recall is None and memory is None:
        raise click.UsageError("say what is to change: --recipe, --recall or --memory")
    with SearchEngine.open(find_index(index_dir), threads=threads) as engine:
        done = engine.compact(recipe=recipe, recall=recall, memory=memory)
    tell(done, as_json)
