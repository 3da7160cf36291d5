"""`retrieve serve`: an index behind HTTP."""

from contextlib import nullcontext
from pathlib import Path

import click

from indexer.errors import RecipeError
from indexer.recipe import read_memory
from retrieval.cli.common import device_option, find_index, index_option, picture_limit_options
from retrieval.engine import SearchEngine
from retrieval.images import DecodeLimits


def _size(context: click.Context, parameter: click.Parameter, said: str) -> int:
    try:
        size = read_memory(said)
    except RecipeError:
        size = 0
    if not size:
        raise click.BadParameter(f"{said!r} is no size; write it as 500KB or 20MB")
    return size


@click.command("serve")
@index_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="The port.")
@click.option("--threads", type=click.IntRange(1), help="Cores to use. Default: all that this process may.")
@click.option(
    "--api-key-file",
    metavar="FILE",
    help="Who may come: a line for each key, `read` or `write` and the key's sha256.",
)
@click.option("--anybody", is_flag=True, help="Let whoever reaches HOST read and write, without any key.")
@click.option("--read-only", is_flag=True, help="Take no writes. Several may serve an index so.")
@click.option(
    "--max-upload", default="20MB", show_default=True, callback=_size, metavar="SIZE", help="Of a request, at most."
)
@click.option(
    "--max-concurrency",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="Requests that wait or run; one more is answered 429.",
)
@click.option(
    "--search-device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:i]",
    help="Where vectors are compared.",
)
@click.option("--log-json", is_flag=True, help="Log in lines of JSON to standard error, one of each request.")
@device_option
@picture_limit_options
def command(
    index_dir: Path | None,
    host: str,
    port: int,
    threads: int | None,
    api_key_file: str | None,
    anybody: bool,
    read_only: bool,
    max_upload: int,
    max_concurrency: int,
    search_device: str,
    log_json: bool,
    device: str,
    max_megapixels: float,
    allow_truncated: bool,
) -> None:
    r"""Serve an index: a page for people at http://HOST:PORT/, and an API for programs (docs/api.md).

    Without --api-key-file it listens on this machine alone. SIGTERM and Ctrl-C finish what is running, then stop.

    \b
    Example:
      retrieve serve
      retrieve serve --host 0.0.0.0 --api-key-file keys.txt --log-json

    Exit codes: 0 stopped, 1 failed, 2 usage.
    """
    from retrieval.service import ApiKeys, ServiceSettings, read_keys, serve
    from retrieval.service.access import is_loopback
    from retrieval.service.running import json_log

    if anybody and api_key_file is not None:
        raise click.UsageError("--anybody lets everybody in, --api-key-file does not; give one of them")
    if api_key_file is None and not anybody and not is_loopback(host):
        raise click.UsageError(
            f"--host {host} is reached from other machines: say with --api-key-file who may come, or with --anybody "
            "that whoever does may"
        )
    settings = ServiceSettings(
        keys=ApiKeys() if api_key_file is None else read_keys(api_key_file),
        is_read_only=read_only,
        max_upload_bytes=max_upload,
        max_concurrency=max_concurrency,
        logs_requests=log_json,
        is_loopback=is_loopback(host) and not anybody,
    )
    limits = DecodeLimits(max_megapixels, allow_truncated)
    with (
        json_log() if log_json else nullcontext(),
        SearchEngine.open(
            find_index(index_dir), device=device, search_device=search_device, threads=threads, limits=limits
        ) as engine,
    ):
        serve(engine, settings, host, port)
