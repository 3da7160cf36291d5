"""`retrieve query`: which indexed pictures look like these?"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval.answer import Refinements
from retrieval.cli.common import (
    NamedPath,
    device_option,
    find_index,
    index_option,
    json_option,
    on_one_line,
    output_file,
    picture_limit_options,
    print_json,
    typed,
)
from retrieval.cli.refining import box_of, refinement_options
from retrieval.engine import SearchEngine
from retrieval.errors import GalleryError, PictureError, RetrievalError
from retrieval.images import DecodeLimits
from retrieval.records import Box
from retrieval.results import SearchResult

if TYPE_CHECKING:
    from retrieval.client import Client
    from retrieval.report.sheet import SheetRow

NO_MATCH = 4
FAILED = 1
STANDARD_INPUT = "-"
_ITS_OWN = ("index_dir", "model", "crops", "device", "max_megapixels", "allow_truncated")


def _sheet_file(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    if path is not None:
        from retrieval.report.sheet import sheet_format

        try:
            sheet_format(path)
        except RetrievalError as error:
            raise click.BadParameter(str(error)) from error
    return output_file(ctx, param, path)


@click.command("query")
@click.argument("images", metavar="[IMAGE...]", nargs=-1, type=NamedPath())
@index_option
@click.option("-k", default=10, show_default=True, type=click.IntRange(1), help="Hits a query, at most.")
@refinement_options
@click.option("--crops", is_flag=True, help="Look at several parts of each IMAGE, besides all of it.")
@click.option("--box", callback=box_of, metavar="X,Y,W,H", help="Search with this part of each IMAGE, in its pixels.")
@click.option("--paths", "only_paths", is_flag=True, help="Print the hits' paths alone.")
@click.option("-0", "--null", "null_ended", is_flag=True, help="End each path with NUL instead of a line break.")
@click.option("--show", is_flag=True, help="Draw queries and hits in the terminal, if it can (kitty, iTerm2, Sixel).")
@click.option(
    "--sheet",
    type=NamedPath(path_type=Path),
    callback=_sheet_file,
    metavar="FILE",
    help="Write queries and hits as a picture.",
)
@click.option(
    "--html",
    type=NamedPath(path_type=Path),
    callback=output_file,
    metavar="FILE",
    help="Write them as a page with its pictures.",
)
@click.option("--url", metavar="URL", help="Ask the server there (`retrieve serve`), in place of an index here.")
@click.option("--api-key", envvar="RETRIEVE_API_KEY", metavar="KEY", help="That server's. Default: $RETRIEVE_API_KEY.")
@click.option("--model", metavar="DIR", help="Where the model of the index is now, if its folder has moved.")
@device_option
@picture_limit_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    images: tuple[str, ...],
    index_dir: Path | None,
    k: int,
    refined: Refinements,
    box: Box | None,
    crops: bool,
    only_paths: bool,
    null_ended: bool,
    show: bool,
    sheet: Path | None,
    html: Path | None,
    url: str | None,
    api_key: str | None,
    model: str | None,
    device: str,
    max_megapixels: float,
    allow_truncated: bool,
    as_json: bool,
) -> int:
    r"""Find the indexed pictures that look like each IMAGE: a file, a folder of them, or - for standard input.

    Without IMAGE, --like names indexed pictures to look for the like of.

    \b
    Example:
      retrieve query photo.jpg
      retrieve query *.jpg -k 3 --json
      retrieve query photo.jpg --where "price < 50 and in_stock = true" --group-by product_id
      retrieve query --like shoes/7.jpg --unlike shoes/9.jpg
      curl -s https://example.org/a.jpg | retrieve query - --paths

    Exit codes: 0 done, 1 failed, 2 usage, 4 nothing meets --min-score, --min-probability or --where.
    """
    _check_usage(ctx)
    if show:
        from retrieval.report.terminal import check_terminal

        check_terminal()
    wishes: dict[str, Any] = {"k": k, "box": box, **({"crops": True} if crops else {}), **refined}
    names = list(_each_query(images))
    results: list[SearchResult] = []
    contents: dict[str, bytes] = {}  # of standard input, by its name
    failed = False
    with _asked(url, api_key, index_dir, model, device, DecodeLimits(max_megapixels, allow_truncated)) as asked:
        if not names:
            results.append(asked.search(**wishes))
        for name in names:
            try:
                if name == STANDARD_INPUT:
                    contents[name] = sys.stdin.buffer.read()
                found = asked.search(contents.get(name, name), **wishes)
                results.append(replace(found, query=name))
            except PictureError as error:
                unnamed = "standard input: " if name == STANDARD_INPUT else ""
                click.echo(f"retrieve: {unnamed}{on_one_line(str(error))}", err=True)
                failed = True
    if as_json:
        print_json({"queries": [result.to_dict() for result in results]})
    else:
        end = "\0" if null_ended else "\n"
        _print(results, only_paths or null_ended, end, show, is_one=len(names) <= 1)
    if sheet is not None and results:
        from retrieval.report.sheet import save_sheet

        save_sheet([_row(result, contents) for result in results], sheet)
    if html is not None and results:
        from retrieval.report.answers import save_answers

        save_answers(results, html, contents)
    if failed:
        return FAILED
    is_narrowed = any(refined.get(name) is not None for name in ("min_score", "min_probability", "where"))
    return NO_MATCH if is_narrowed and not any(result.hits for result in results) else 0


def _check_usage(ctx: click.Context) -> None:
    """Refuse what cannot be meant, and what would be ignored."""
    given = ctx.params
    if not given["images"]:
        if not given["like"]:
            raise click.UsageError("nothing to look for; name an IMAGE, or with --like the key of an indexed picture")
        if given["sheet"] is not None or given["show"]:
            raise click.UsageError("--sheet and --show have hits beside what was searched with; name an IMAGE")
        if given["box"] is not None or given["crops"]:
            raise click.UsageError("--box and --crops are of the picture that is searched with; name an IMAGE")
    if (given["only_paths"] or given["null_ended"]) + given["as_json"] + given["show"] > 1:
        raise click.UsageError("--paths, --json and --show exclude each other")
    if given["crops"] and given["box"] is not None:
        raise click.UsageError("--crops and --box exclude each other")
    if given["url"] is None:
        if typed(ctx, "api_key"):
            raise click.UsageError("--api-key is for a server; name it with --url")
        return
    if not given["url"].strip():
        raise click.UsageError("--url is empty; name the server, such as http://127.0.0.1:8000")
    if typed(ctx, *_ITS_OWN):
        raise click.UsageError(
            "--url excludes --index, --model, --crops, --device, --max-megapixels and --allow-truncated: "
            "the server has its own"
        )


def _asked(
    url: str | None, api_key: str | None, index_dir: Path | None, model: str | None, device: str, limits: DecodeLimits
) -> "SearchEngine | Client":
    if url is None:
        return SearchEngine.open(find_index(index_dir), model=model, device=device, limits=limits)
    from retrieval.client import Client

    return Client(url, api_key)


def _each_query(names: Sequence[str]) -> Iterator[str]:
    """The names, with folders replaced by the pictures in them."""
    for name in names:
        if name == STANDARD_INPUT or not Path(name).is_dir():
            yield name
            continue
        from retrieval.gallery import scan_folder

        records = scan_folder(name).records
        if not records:
            raise GalleryError(f"folder {name} holds no pictures; check the path")
        yield from (record.path for record in records)


def _print(results: Sequence[SearchResult], only_paths: bool, end: str, show: bool, is_one: bool) -> None:
    """Print hits, behind the name of their query unless one alone was asked for."""
    for number, result in enumerate(results):
        if only_paths:
            for hit in result.hits:
                click.echo(f"{hit.path}{end}", nl=False)
            continue
        if not is_one:
            click.echo(("\n" if number else "") + on_one_line(f"{result.query}:"))
        if show:
            from retrieval.report import terminal

            terminal.show(_row(result, {}))
        for hit in result.hits:
            click.echo(f"{hit.score:.3f}  {on_one_line(str(hit.path))}")


def _row(result: SearchResult, contents: Mapping[str, bytes]) -> "SheetRow":
    from retrieval.report.sheet import SheetRow

    name = str(result.query)
    hits = [(hit.path, f"{hit.score:.3f}\n{hit.key}") for hit in result.hits]
    return SheetRow(contents.get(name, name), hits, "standard input" if name in contents else None)
