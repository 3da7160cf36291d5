"""Which pictures does a manifest name, and what does it say of each?"""

# A Path for every row would double the time.
# ruff: noqa: PTH116, PTH118

import datetime
import decimal
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from indexer.schema import is_storable
from retrieval.errors import GalleryError, ManifestError
from retrieval.files import NOT_A_FILE, why_unreadable
from retrieval.gallery.foreign import (
    RowError,
    google_table,
    is_google,
    is_open_metric_learning,
    local_path,
    open_metric_learning_row,
)
from retrieval.gallery.tables import MANIFEST_SUFFIXES, Table, read_table, reading, table_of_cells
from retrieval.records import Box, ImageRecord, Listing, Skipped, read_sides

_OUR_COLUMNS = ("path", "key", "product_id", "label", "box")


def read_manifest(path: str | os.PathLike[str], *, key_prefix: str = "") -> Listing:
    """Read the list of pictures that a CSV, JSONL or Parquet file holds.

    Columns: `path` (absolute, or relative to the manifest's folder); optional `key` (the path as written where
    absent), `product_id`, `label`, `box` ("x,y,width,height" in pixels of the upright picture, or a list of four, with
    a fifth that is true where they are fractions of its sides); any
    further column is metadata: text, number, true or false. A missing value is left out. Also read: the tables of
    open-metric-learning (rows that are queries only are left out) and the bulk CSV of Google Vision Product Search.

    Args:
        path: the manifest; its suffix tells the format.
        key_prefix: put in front of every key as it is.

    Returns:
        The listing, in the manifest's order. A row whose file is not there, or is none, is under `skipped`.

    Raises:
        ManifestError: columns or values are wrong; names the line, the value and the remedy.
        GalleryError: there is no such file, or its suffix is not one of a manifest.
    """
    source, scanned_ns = Path(os.path.abspath(path)), time.time_ns()
    try:
        with reading("manifest", source):
            table = _read_table(source)
    except RowError as error:
        raise ManifestError(f"{source.name} {error}") from error
    _check_columns(source.name, table)
    listing = Listing(str(source), "manifest", [], [], [], scanned_ns)
    lines: dict[str, int] = {}  # of the keys so far
    for number, row in _gallery_rows(source.name, table):
        try:
            key = _add(row, str(source.parent), key_prefix, listing)
            if key in lines:
                raise RowError(f'key "{key}" is also that of {table.unit} {lines[key]}; give every row its own key')
        except RowError as error:
            raise ManifestError(f"{source.name} {table.unit} {number}: {error}") from error
        lines[key] = number
    return listing


def _read_table(source: Path) -> Table:
    def of_cells(cells: list[tuple[int, list[str]]]) -> Table:
        return google_table(cells) if is_google(cells) else table_of_cells(source.name, cells)

    table = read_table(source, of_cells)
    if table is None:
        raise GalleryError(f"{source} is neither a folder nor a manifest ({', '.join(MANIFEST_SUFFIXES)})")
    return table


def _check_columns(name: str, table: Table) -> None:
    """Refuse what would quietly become metadata: a column whose name is one of ours but for its spelling."""
    for column in table.columns:
        if not is_storable(column):
            raise ManifestError(f"{name} has a column {column!r}, which is not UTF-8; rename it")
        meant = next((ours for ours in _OUR_COLUMNS if _bare(ours) == _bare(column)), None)
        if meant and column != meant and meant not in table.columns:
            raise ManifestError(f'{name} has a column "{column}"; rename it to `{meant}`')
    if table.rows and "path" not in table.columns:
        shown = ", ".join(table.columns)
        raise ManifestError(f"{name} has no column `path` (it has {shown}); name the one that holds the files so")


def _bare(column: str) -> str:
    return "".join(filter(str.isalnum, column)).lower()


def _gallery_rows(name: str, table: Table) -> Iterator[tuple[int, dict[str, Any]]]:
    if not is_open_metric_learning(table):
        yield from table.rows
        return
    for number, row in table.rows:
        try:
            adapted = open_metric_learning_row(row)
        except RowError as error:
            raise ManifestError(f"{name} {table.unit} {number}: {error}") from error
        if adapted is not None:
            yield number, adapted


def _add(row: dict[str, Any], folder: str, key_prefix: str, listing: Listing) -> str:
    """Add a row to the records, or to what is set aside; returns its key."""
    written = _text(row, "path")
    if written is None:
        raise RowError("path is empty; name the picture's file, or remove the row")
    key = key_prefix + (_text(row, "key") or written.replace(os.sep, "/"))
    product_id, label, box = _text(row, "product_id"), _text(row, "label"), _box(row.get("box"))
    metadata = {name: _plain(name, value) for name, value in row.items() if name not in _OUR_COLUMNS}
    path = os.path.abspath(os.path.join(folder, local_path(written)))
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a null character
        listing.skipped.append(Skipped(key, why_unreadable(error, path), cause="access"))
        return key
    if stat.S_ISREG(status.st_mode):
        size, mtime = status.st_size, status.st_mtime_ns
        listing.records.append(ImageRecord(key, path, size, mtime, product_id, label, box, metadata))
    else:
        reason = "is a folder" if stat.S_ISDIR(status.st_mode) else NOT_A_FILE
        listing.skipped.append(Skipped(key, reason, cause="access"))
    return key


def _text(row: dict[str, Any], column: str) -> str | None:
    """A column that is a text by its meaning; numbers of JSON and Parquet are written out (12.0 is pandas' 12)."""
    value = row.get(column)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"{column} is {value!r}; it must be a text or a number")
    return _utf8(column, str(value))


def _utf8(column: str, text: str) -> str:
    if not is_storable(text):
        raise RowError(f"{column} is {text!r}, which is not UTF-8; rename it")
    return text


def _box(value: Any) -> Box | None:
    if value is None or isinstance(value, Box):
        return value
    is_relative = isinstance(value, list | tuple) and len(value) == 5 and value[4] is True
    sides = read_sides(value[:4] if is_relative else value)
    if sides is None or min(sides[2:]) <= 0:
        raise RowError(f"box is {value!r}; it must be x,y,width,height in pixels, the last two above 0")
    return Box(*sides, is_relative=is_relative)


def _plain(name: str, value: Any) -> str | int | float | bool | None:
    """A value of metadata as JSON knows it; dates as ISO texts, and none where pandas has NaN."""
    if isinstance(value, decimal.Decimal):
        value = float(value)
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, str):
        return _utf8(f"column {name}", value)
    if isinstance(value, int | float):
        if value != value:
            return None
        if abs(value) > sys.float_info.max:
            raise RowError(f"column {name} is {str(value)[:60]}; numbers must be finite")
        return value
    if value is None:
        return value
    raise RowError(f"column {name} is {str(value)[:60]!r}; metadata must be texts, numbers, true or false: flatten it")
