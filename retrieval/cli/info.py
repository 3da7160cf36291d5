"""`retrieve info`: what does an index hold?"""

from pathlib import Path

import click

from retrieval.cli.common import find_index, human_bytes, index_option, json_option, named, print_json
from retrieval.engine import SearchEngine


@click.command("info")
@index_option
@json_option
def command(index_dir: Path | None, as_json: bool) -> None:
    r"""Say what an index holds: pictures, products, generation, model, recipe, sizes.

    \b
    Example:
      retrieve info --json
    """
    with SearchEngine.open(find_index(index_dir)) as engine:
        info = engine.info()
        folder = engine.index_dir
    if as_json:
        print_json(info.to_dict())
        return
    sizes = ", ".join(f"{name} {human_bytes(size_bytes)}" for name, size_bytes in info.bytes.items())
    for name, value in (
        ("index", folder),
        ("images", info.images),
        ("products", info.products),
        ("generation", info.generation),
        ("model", f"{named(info.model)}, {info.model.dim} values"),
        ("searched", f"{info.recipe}, {info.ann_recall_at_10:.3f} of the ten nearest found, {info.segments} segments"),
        ("on disk", sizes),
    ):
        click.echo(f"{name:<12}{value}")
