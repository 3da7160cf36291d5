"""`retrieve feedback`: clicks and rejections from a backend's logs, for the next refresh."""

from pathlib import Path

import click

from retrieval.cli.common import find_index, index_option, json_option, on_one_line, picture_limit_options, print_json
from retrieval.feedback import record_file
from retrieval.images import DecodeLimits

SKIPPED = 3


@click.command("feedback")
@click.argument("file", type=click.Path(path_type=Path))
@index_option
@picture_limit_options
@json_option
def command(file: Path, index_dir: Path | None, max_megapixels: float, allow_truncated: bool, as_json: bool) -> int:
    r"""Write down which hits people chose or rejected; the next `retrieve refresh` learns from it.

    FILE holds one JSON object a line: query (a picture's path), key (of a picture of the index), relevant (true or
    false), and if they are known source (who says so) and box (the part that was searched with, in pixels).

    \b
    Example:
      retrieve feedback clicks.jsonl

    Exit codes: 0 done, 1 failed, 2 usage, 3 some lines were set aside, the rest is recorded.
    """
    report = record_file(find_index(index_dir), file, limits=DecodeLimits(max_megapixels, allow_truncated))
    for skip in report.skipped:
        click.echo(f"skipped {on_one_line(skip.key)}: {on_one_line(skip.reason)}", err=True)
    if as_json:
        print_json(report.to_dict())
    else:
        aside = f", {len(report.skipped)} set aside" if report.skipped else ""
        click.echo(f"{report.recorded} judgements recorded{aside}; `retrieve refresh` learns from them")
    return SKIPPED if report.skipped else 0
