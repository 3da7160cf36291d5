"""`retrieve refresh`: move an index to another model while it is in use."""

import os
from pathlib import Path

import click

from retrieval.cli.common import device_option, find_index, index_option, json_option, picture_limit_options
from retrieval.cli.moving import print_move, show_embedding
from retrieval.cli.progress import ProgressLine
from retrieval.cli.stopping import INTERRUPTED, StopRequest
from retrieval.images import DecodeLimits
from retrieval.index_model import ModelOptions
from retrieval.refresh import move_to_model

_NICENESS = 10


@click.command("refresh")
@click.option("--model", required=True, metavar="NAME|DIR", help="The model that the index is to have.")
@index_option
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Cores to use. Default: all.")
@device_option
@picture_limit_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    index_dir: Path | None,
    threads: int | None,
    device: str,
    max_megapixels: float,
    allow_truncated: bool,
    as_json: bool,
) -> None:
    r"""Embed every picture of an index by another model, then make that the index's in one step.

    The index is searched and changed meanwhile as if nothing happened; readers take up the new model at their next
    refresh. Stop it at any moment: run again, it goes on. `retrieve rollback` is the way back.

    \b
    Example:
      retrieve train ./catalogue --out ./shop-model
      retrieve refresh --model ./shop-model
    """
    os.nice(_NICENESS)  # searches go first
    options = ModelOptions(device, threads, None, DecodeLimits(max_megapixels, allow_truncated))
    folder = find_index(index_dir)
    with StopRequest() as stop, ProgressLine() as line:

        def on_progress(done: int, total: int) -> None:
            show_embedding(line, done, total)
            stop.check()

        try:
            report = move_to_model(folder, model, options=options, on_progress=on_progress)
        except KeyboardInterrupt:
            line.close()
            click.echo("retrieve: stopped; the index has its former model. The same command goes on", err=True)
            ctx.exit(INTERRUPTED)
    print_move(report, folder, as_json)
