"""How a move to another model is shown; what `refresh` and `rollback` share."""

from pathlib import Path

import click

from retrieval.cli.common import named, on_one_line, print_json
from retrieval.cli.progress import ProgressLine
from retrieval.results import MoveReport


def show_embedding(line: ProgressLine, done: int, total: int) -> None:
    """How many pictures are embedded."""
    line.show("embedding", done, total, "the index answers as before")


def print_move(report: MoveReport, index_dir: Path, as_json: bool) -> None:
    """What was done, for people or programs."""
    for key in report.missing:
        click.echo(
            f"missing {on_one_line(key)}: it cannot be read any more, and is not found until a sync finds it", err=True
        )
    for key in report.dropped:
        click.echo(f"dropped {on_one_line(key)}: it cannot be read any more", err=True)
    if as_json:
        print_json(report.to_dict())
        return
    is_same = report.former == report.model
    moved = f"has {named(report.model)} already" if is_same else f"moved from {named(report.former)}"
    towards = "" if is_same else f" to {named(report.model)}"
    click.echo(
        f"{index_dir} {moved}{towards}: {report.embedded} pictures embedded in {report.seconds:.1f} s, "
        f"generation {report.generation}"
    )
