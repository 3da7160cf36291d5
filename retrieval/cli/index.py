"""`retrieve index`: make an index equal to a gallery."""

from pathlib import Path
from typing import Any

import click

from indexer.catalog import has_catalog
from retrieval.cli.common import (
    DEFAULT_INDEX,
    NamedPath,
    device_option,
    index_option,
    json_option,
    nearest_index,
    on_one_line,
    picture_limit_options,
    print_json,
)
from retrieval.cli.progress import ProgressLine
from retrieval.cli.recipes import recipe_options
from retrieval.cli.stopping import INTERRUPTED, StopRequest
from retrieval.engine import SearchEngine
from retrieval.gallery import read_gallery
from retrieval.images import DecodeLimits
from retrieval.results import IndexReport
from retrieval.sync import Progress
from retrieval.sync.plan import refuse_empty

NEWLY_SKIPPED = 3
_SHOWN_SKIPS = 20


@click.command("index")
@click.argument("gallery", type=NamedPath(path_type=Path, readable=False))
@index_option
@click.option("--model", metavar="NAME|DIR", help="The encoder of a new index; see `retrieve models`.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Cores to use. Default: all.")
@click.option("--batch-size", type=click.IntRange(1, 1024), metavar="N", help="Pictures encoded at once.")
@device_option
@click.option("--allow-removals", is_flag=True, help="Remove what has vanished, even if it is most of the gallery.")
@click.option("--no-remove", is_flag=True, help="Keep pictures that have vanished from the gallery.")
@click.option("--key-prefix", metavar="TEXT", help="What this gallery's keys begin with, if it is one of several.")
@recipe_options
@picture_limit_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    gallery: Path,
    index_dir: Path | None,
    model: str | None,
    threads: int | None,
    batch_size: int | None,
    device: str,
    allow_removals: bool,
    no_remove: bool,
    key_prefix: str | None,
    recipe: str | None,
    recall: float | None,
    memory: int | None,
    max_megapixels: float,
    allow_truncated: bool,
    as_json: bool,
) -> int:
    r"""Make the pictures of GALLERY searchable: a folder, or a manifest (.csv, .jsonl, .parquet).

    Run again, it adds what is new, replaces what has changed, removes what has vanished and leaves the rest alone.

    \b
    Example:
      retrieve index ./gallery
      retrieve index catalogue.csv --index /srv/shop.index

    Exit codes: 0 done, 1 failed, 2 usage, 3 done, but pictures were newly skipped: one that does not decode once, one
    that cannot be read, such as a broken link, at every run until it can or is gone.
    """
    index_dir = index_dir or nearest_index() or Path(DEFAULT_INDEX)
    limits = DecodeLimits(max_megapixels, allow_truncated)
    is_new = not has_catalog(index_dir)
    if is_new:  # before a typing error makes an index
        refuse_empty(read_gallery(gallery, key_prefix=key_prefix or "", exclude=[index_dir]))
    make = SearchEngine.create if is_new else SearchEngine.open
    options = {"model": model} if model else {}
    with (
        StopRequest() as stop,
        make(index_dir, device=device, threads=threads, batch_size=batch_size, limits=limits, **options) as engine,
        ProgressLine(shows_time_left=True) as progress,
    ):
        asked: dict[str, Any] = {"recipe": recipe, "recall": recall, "memory": memory}
        engine.search_settings(**asked)  # refuses what can never be, before hours of work

        def on_progress(state: Progress) -> None:
            progress.show("indexing", state.done, state.total, _speed(state))
            stop.check()

        try:
            report = engine.sync(
                gallery,
                key_prefix=key_prefix,
                remove=not no_remove,
                allow_removals=allow_removals,
                on_progress=on_progress,
            )
        except KeyboardInterrupt:
            progress.close()
            engine.refresh()
            click.echo(
                f"retrieve: stopped; {engine.info().images} pictures are in the index. Run the same command again to "
                "go on",
                err=True,
            )
            ctx.exit(INTERRUPTED)
        if any(value is not None for value in asked.values()):
            engine.compact(**asked)
    _print(report, index_dir, as_json)
    return NEWLY_SKIPPED if report.has_new_skips else 0


def _speed(progress: Progress) -> str:
    speed = progress.done / progress.seconds if progress.seconds else 0.0
    left_s = (progress.total - progress.done) / speed if speed else 0.0
    return f"{speed:.0f} images/s, {left_s:.0f} s left, {progress.skipped} skipped"


def _print(report: IndexReport, index_dir: Path, as_json: bool) -> None:
    new_skips = [skip for skip in report.skipped if not skip.known]
    for skip in new_skips[:_SHOWN_SKIPS]:
        click.echo(f"skipped {on_one_line(skip.key)}: {skip.reason}", err=True)
    if len(new_skips) > _SHOWN_SKIPS:
        click.echo(f"... and {len(new_skips) - _SHOWN_SKIPS} more; --json lists all", err=True)
    for key in report.stale[:_SHOWN_SKIPS]:
        click.echo(f"stale {on_one_line(key)}: keeps its former vector", err=True)
    for key, note in report.notes[:_SHOWN_SKIPS]:
        click.echo(f"note {on_one_line(key)}: {note}", err=True)
    if as_json:
        print_json(report.to_dict())
        return
    counts = f"{report.added} added, {report.updated} updated, {report.removed} removed, {report.unchanged} unchanged"
    skipped = f", {len(report.skipped)} skipped" if report.skipped else ""
    speed = f", {report.images_per_second:.0f} images/s" if report.images_per_second else ""
    click.echo(f"{counts}{skipped} in {report.seconds:.1f} s{speed}; {index_dir} is at generation {report.generation}")
