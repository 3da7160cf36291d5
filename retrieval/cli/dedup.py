"""`retrieve dedup`: which pictures are nearly the same?"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from retrieval.cli.common import (
    NamedPath,
    NumberRange,
    device_option,
    find_index,
    index_option,
    json_option,
    on_one_line,
    print_json,
    typed,
)
from retrieval.cli.progress import ProgressLine
from retrieval.encoder.backbones import DEFAULT_MODEL
from retrieval.engine import SearchEngine
from retrieval.records import Skipped
from retrieval.results import Duplicate


@click.command("dedup")
@click.argument("gallery", required=False, type=NamedPath(path_type=Path, readable=False))
@index_option
@click.option("--score", default=0.98, show_default=True, type=NumberRange(0, 1), metavar="S", help="Lowest cosine.")
@click.option("--others", is_flag=True, help="Print the paths of all but the first of each group, and nothing else.")
@click.option("-0", "--null", "null_ended", is_flag=True, help="End each path with NUL instead of a line break.")
@click.option("--model", metavar="NAME|DIR", help="What looks at GALLERY. Default: the default model.")
@device_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    gallery: Path | None,
    index_dir: Path | None,
    score: float,
    others: bool,
    null_ended: bool,
    model: str | None,
    device: str,
    as_json: bool,
) -> None:
    r"""List groups of pictures that are nearly the same: of GALLERY, or of an index.

    GALLERY is looked at and forgotten; an index knows its pictures already.

    \b
    Example:
      retrieve dedup
      retrieve dedup ./photos --score 0.95
      retrieve dedup ./photos --others -0 | xargs -0 ls -l
    """
    if others and as_json:
        raise click.UsageError("--others and --json exclude each other")
    if gallery is not None and typed(ctx, "index_dir"):
        raise click.UsageError("GALLERY and --index exclude each other")
    with _opened(gallery, index_dir, model, device) as (engine, skipped):
        groups = engine.duplicates(score)
    if as_json:
        said: dict[str, Any] = {"score": score, "groups": [[one.to_dict() for one in group] for group in groups]}
        print_json(said if gallery is None else said | {"skipped": [skip.to_dict() for skip in skipped]})
        return
    end = "\0" if null_ended else "\n"
    for number, group in enumerate(groups):
        if not others and number:
            click.echo(end, nl=False)
        for one in group[1:] if others else group:
            click.echo(f"{_line(one, others or null_ended)}{end}", nl=False)


def _line(one: Duplicate, only_path: bool) -> str:
    return str(one.path) if only_path else f"{one.score:.3f}  {on_one_line(str(one.path))}"


@contextmanager
def _opened(
    gallery: Path | None, index_dir: Path | None, model: str | None, device: str
) -> Iterator[tuple[SearchEngine, list[Skipped]]]:
    """The index, or one of the gallery that is gone afterwards, with what could not be looked at."""
    if gallery is None:
        with SearchEngine.open(find_index(index_dir), model=model, device=device) as engine:
            yield engine, []
        return
    with (
        tempfile.TemporaryDirectory(prefix="retrieve-dedup-") as folder,
        SearchEngine.create(Path(folder) / "index", model=model or DEFAULT_MODEL, device=device) as engine,
        ProgressLine(shows_time_left=True) as progress,
    ):
        report = engine.sync(gallery, on_progress=lambda state: progress.show("looking", state.done, state.total, ""))
        progress.close()
        for skip in report.skipped:
            click.echo(f"skipped {on_one_line(skip.key)}: {skip.reason}", err=True)
        yield engine, report.skipped
