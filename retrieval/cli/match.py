"""`retrieve match`: do two pictures show the same product?"""

from pathlib import Path

import click

from retrieval.calibration import compare, find_matcher
from retrieval.cli.common import (
    NumberRange,
    device_option,
    index_option,
    json_option,
    nearest_index,
    picture_limit_options,
    print_json,
    typed,
)
from retrieval.embedder import Embedder
from retrieval.encoder.runtime import DEFAULT_MODEL, open_encoder
from retrieval.engine import SearchEngine
from retrieval.images import DecodeLimits
from retrieval.results import MatchResult


@click.command("match")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--model", metavar="NAME|DIR", help=f"The model. Default: that of the index, else {DEFAULT_MODEL}.")
@index_option
@click.option(
    "--threshold",
    "false_accept_rate",
    metavar="RATE",
    type=NumberRange(0, 1, min_open=True, max_open=True),
    help="Decide, at the score that this share of pairs of different products reaches at most.",
)
@device_option
@picture_limit_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    a: str,
    b: str,
    model: str | None,
    index_dir: Path | None,
    false_accept_rate: float | None,
    device: str,
    max_megapixels: float,
    allow_truncated: bool,
    as_json: bool,
) -> None:
    r"""Say how alike pictures A and B are, and how probable it is that they show the same product.

    The probability needs a model that `retrieve train` has calibrated: among hits of a search like this pair, it is
    the share that show the product searched for.

    \b
    Example:
      retrieve match ours.jpg theirs.jpg
      retrieve match ours.jpg theirs.jpg --model shop-model --threshold 0.01 --json

    Exit codes: 0 done, whatever the answer, 1 failed, 2 usage.
    """
    if model is not None and typed(context, "index_dir"):
        raise click.UsageError("--model and --index exclude each other: an index brings its own model")
    limits = DecodeLimits(max_megapixels, allow_truncated)
    index = None if model is not None else index_dir or nearest_index()
    if index is not None:
        with SearchEngine.open(index, device=device, limits=limits) as engine:
            result = engine.match(a, b, false_accept_rate=false_accept_rate)
    else:
        result = _match_by(model or DEFAULT_MODEL, a, b, false_accept_rate, device, limits)
    if result.match_probability is None:
        click.echo(
            "retrieve: no probability: this model is not calibrated; `retrieve train` makes one that is", err=True
        )
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result)


def _match_by(
    model: str, a: str, b: str, false_accept_rate: float | None, device: str, limits: DecodeLimits
) -> MatchResult:
    embedder = Embedder(lambda: open_encoder(model, device=device), limits)
    try:
        fingerprint = embedder.encoder.fingerprint
        matcher = find_matcher(model, fingerprint)
        return compare(embedder.embed([a, b]), (a, b), matcher, fingerprint, false_accept_rate)
    finally:
        embedder.close()


def _print(result: MatchResult) -> None:
    click.echo(f"score        {result.score:.3f}")
    click.echo(f"distance     {result.distance:.3f}")
    if result.match_probability is not None:
        click.echo(f"probability  {result.match_probability:.3f}")
    if result.threshold is not None:
        click.echo(f"decision     {'same' if result.is_match else 'different'} (from {result.threshold:.3f} on: same)")
