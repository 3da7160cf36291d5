"""`retrieve verify`: is an index whole, and if not, what can be saved?"""

from pathlib import Path

import click

from indexer.integrity import Integrity, verify
from retrieval.cli.common import find_index, index_option, json_option, on_one_line, print_json

DAMAGED = 1


@click.command("verify")
@index_option
@click.option("--repair", "mend", is_flag=True, help="Keep what is intact, embed the rest again from its pictures.")
@json_option
def command(index_dir: Path | None, mend: bool, as_json: bool) -> int:
    r"""Check that an index is whole, and mend it.

    Checked are the structure of the catalog, by SQLite itself; the checksums of vectors, segments, approximations and
    kept pictures; and that each picture has its vector. What the catalog says of pictures, such as keys and metadata,
    has no checksum. Files that a killed run left behind are harmless and only reported.

    \b
    Example:
      retrieve verify
      retrieve verify --repair

    Exit codes: 0 whole, 1 damaged.
    """
    folder = find_index(index_dir).absolute()
    found = verify(folder)
    if mend and not found.is_whole:
        _mend(folder, found)
        found = verify(folder)
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found, is_mended=mend)
    return 0 if found.is_whole else DAMAGED


def _mend(folder: Path, found: Integrity) -> None:
    from retrieval.repair import repair

    for problem in found.problems:
        click.echo(f"damaged: {problem}", err=True)
    mended = repair(folder)
    for key in mended.dropped:
        click.echo(f"dropped {on_one_line(key)}: its vector is lost and its picture cannot be read", err=True)
    click.echo(f"{len(mended.embedded)} pictures embedded again, {len(mended.dropped)} dropped", err=True)


def _print(found: Integrity, *, is_mended: bool) -> None:
    for orphan in found.orphans:
        click.echo(f"left over: {orphan} (harmless; the next `retrieve index` removes it)")
    for problem in found.problems:
        click.echo(f"damaged: {problem}")
    if found.is_whole:
        click.echo(f"ok: {found.images} pictures, generation {found.generation}")
    elif not is_mended:
        click.echo("run `retrieve verify --repair`, or restore the index from a `retrieve backup`", err=True)
