"""`retrieve history`: which models has an index had?"""

from pathlib import Path

import click

from retrieval.cli.common import find_index, index_option, json_option, named, print_json
from retrieval.refresh import history


@click.command("history")
@index_option
@json_option
def command(index_dir: Path | None, as_json: bool) -> None:
    r"""List the models that an index was searched by, and since when; the present one last.

    \b
    Example:
      retrieve history
    """
    reigns = history(find_index(index_dir))
    if as_json:
        print_json({"models": [reign.to_dict() for reign in reigns]})
        return
    for reign in reigns:
        since = reign.since.astimezone()
        found = f"{reign.metrics['recall_at_1']:.3f}" if reign.metrics else "-"
        click.echo(
            f"generation {reign.generation:<7} {since:%Y-%m-%d %H:%M}  {reign.vectors:>9} vectors  "
            f"Recall@1 {found:<5}  {named(reign.model)}"
        )
