"""What the verbs share: where the index is, options, and how results are printed."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from indexer.catalog import has_catalog
from indexer.errors import IndexNotFound
from retrieval.results import ModelInfo

DEFAULT_INDEX = ".retrieve"
F = TypeVar("F", bound=Callable[..., Any])


class NumberRange(click.FloatRange):
    """The numbers of a range; NaN, which no bound stops, and infinity are in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType`."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number that can be compared.", param, ctx)
        return number


class NamedPath(click.Path):
    """A path; the empty one, which an unset variable leaves, is not taken for the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType`."""
        if not os.fspath(value):
            self.fail("the name is empty; is a variable unset?", param, ctx)
        return super().convert(value, param, ctx)


def output_file(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """A file to be written, as a callback: refuse what lies in no folder before minutes are spent on it."""
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{path}: there is no folder {path.absolute().parent}; make it first")
    return path


def index_option(function: F) -> F:
    """Add --index."""
    return click.option(
        "--index",
        "index_dir",
        metavar="DIR",
        envvar="RETRIEVE_INDEX",
        type=NamedPath(path_type=Path, readable=False),  # what is wrong with it, its opening says with the remedy
        help=f"The index. Default: $RETRIEVE_INDEX, else the nearest {DEFAULT_INDEX} here or in a folder above.",
    )(function)


def json_option(function: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(function)


def device_option(function: F) -> F:
    """Add --device."""
    return click.option(
        "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]", help="Where the encoder computes."
    )(function)


def picture_limit_options(function: F) -> F:
    """Add --max-megapixels and --allow-truncated."""
    function = click.option("--allow-truncated", is_flag=True, help="Take truncated JPEGs, as far as they decode.")(
        function
    )
    return click.option(
        "--max-megapixels", default=100.0, show_default=True, help="Refuse larger pictures.", type=NumberRange(0)
    )(function)


def typed(ctx: click.Context, *names: str) -> list[str]:
    """Those of the parameters that stand in the command itself, and are not left to the environment or a default."""
    return [name for name in names if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]


def find_index(index_dir: Path | None) -> Path:
    """The index that was named, or the nearest one upward.

    Raises:
        IndexNotFound: none was named and there is none upward.
        IndexReadOnly: this user may not look into one upward.
    """
    found = index_dir or nearest_index()
    if found is None:
        raise IndexNotFound(
            f"no {DEFAULT_INDEX} in {Path.cwd()} or any folder above; run `retrieve index GALLERY` first, or name an "
            "index with --index"
        )
    return found


def nearest_index() -> Path | None:
    """The nearest default index here or in a folder above, as git finds its own."""
    here = Path.cwd()
    candidates = (above / DEFAULT_INDEX for above in (here, *here.parents))
    return next((index_dir for index_dir in candidates if has_catalog(index_dir)), None)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line; names that are not UTF-8 come as escapes."""
    click.echo(json.dumps(value))


def on_one_line(text: str) -> str:
    """Text whose line breaks and control characters are shown as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def human_bytes(size_bytes: float) -> str:
    """A size as people read it, in powers of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def named(model: ModelInfo) -> str:
    """A model in a line for people."""
    return f"{on_one_line(model.name)}@{model.fingerprint[:8]}"
