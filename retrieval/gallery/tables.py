"""How are the rows of a CSV, JSONL or Parquet file read, whatever they mean?"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import GalleryError, ManifestError
from retrieval.files import one_line, why_unreadable

MANIFEST_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")
TEXT_COLUMNS = frozenset(
    ("path", "key", "product_id", "label", "box", "anchor", "other")
)  # never read as numbers: "007" stays itself

# How a column of yes and no is written, in lower case; pandas makes floats of one with missing values.
FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}

# Numbers as JSON writes them. Leading zeros and 20 digits are article numbers, which must not lose any.
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d+)?([eE][+-]?\d{1,3})?")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a manifest, each with the number by which its author finds it.

    Attributes:
        unit: what the numbers count: "line" of a text file, "row" of a Parquet file; both from 1.
        columns: their names.
        rows: number and column -> value; a missing value is left out.
    """

    unit: str
    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, Any]]]


def read_table(path: Path, of_cells: Callable[[list[tuple[int, list[str]]]], Table]) -> Table | None:
    """Read a manifest by what its suffix says it is; None where that is none of `MANIFEST_SUFFIXES`.

    Args:
        path: the file.
        of_cells: makes a table of a CSV file's cells, as `read_cells` gives them.

    Raises:
        ManifestError: it is not what its suffix says.
        OSError: it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return of_cells(read_cells(path))
    if suffix in (".jsonl", ".ndjson"):
        return read_jsonl(path)
    return read_parquet(path) if suffix == ".parquet" else None


@contextmanager
def reading(kind: str, path: Path) -> Iterator[None]:
    """Say of a file that cannot be read what it was to be, and why not.

    Raises:
        GalleryError
    """
    try:
        yield
    except OSError as error:
        raise GalleryError(f"{kind} {path}: {why_unreadable(error, path)}; check its name and permissions") from error


def read_cells(path: Path) -> list[tuple[int, list[str]]]:
    """Read a CSV file as it stands: line number and cells of every line that is not blank.

    Raises:
        ManifestError: it is not UTF-8, or its quotes do not match.
        OSError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            return [(reader.line_num, cells) for cells in reader if any(cells)]
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path.name} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except csv.Error as error:
        raise ManifestError(f"{path.name} line {reader.line_num} is no CSV: {error}; check its quotes") from error


def table_of_cells(name: str, cells: list[tuple[int, list[str]]]) -> Table:
    """Make a table of a CSV file whose first line names the columns.

    A column without a name (pandas writes its row index so) is left out. A column in which every value is a number
    becomes int or float, but for those that are texts by their meaning.

    Raises:
        ManifestError: a column is named twice, or a line has more or fewer cells than the first.
    """
    if not cells:
        raise ManifestError(f"{name} is empty; its first line must name the columns, one of them `path`")
    columns = [column.strip() for column in cells[0][1]]
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, values in cells[1:]:
        if len(values) != len(columns):
            message = f"has {len(values)} cells, the first line names {len(columns)} columns; put quotes around commas"
            raise ManifestError(f"{name} line {number} {message}")
        rows.append(
            (number, {column: value for column, value in zip(columns, values, strict=True) if column and value})
        )
    for column in set(columns) - TEXT_COLUMNS:
        _read_numbers(column, [row for _, row in rows if column in row])
    return Table("line", _distinct(name, [column for column in columns if column]), rows)


def read_jsonl(path: Path) -> Table:
    """Read a file of one JSON object a line.

    Raises:
        ManifestError: a line is none.
        OSError: it cannot be read.
    """
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
            if not isinstance(row, dict):
                raise ValueError("it is not an object")
        except (ValueError, RecursionError) as error:
            reason = one_line(error)
            raise ManifestError(f"{path.name} line {number} is no JSON object: {reason}; write one a line") from error
        rows.append((number, _without_missing(row)))
    return Table("line", tuple(dict.fromkeys(column for _, row in rows for column in row)), rows)


def read_parquet(path: Path) -> Table:
    """Read a Parquet file; pyarrow is imported here.

    Raises:
        ManifestError: it is none, or a column is named twice.
        OSError: it cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    path.open("rb").close()  # a missing file is told apart from a damaged one by Python's error
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
        columns = _distinct(path.name, table.column_names)
        rows = [(number, _without_missing(row)) for number, row in enumerate(table.to_pylist(), start=1)]
    except (pyarrow.ArrowException, OSError) as error:
        raise ManifestError(f"{path.name} is no Parquet file: {one_line(error)}; write it again") from error
    return Table("row", columns, rows)


def _distinct(name: str, columns: list[str]) -> tuple[str, ...]:
    twice = next((column for at, column in enumerate(columns) if column in columns[:at]), None)
    if twice is not None:
        raise ManifestError(f'{name} has two columns "{twice}"; remove or rename one')
    return tuple(columns)


def _read_numbers(column: str, rows: list[dict[str, Any]]) -> None:
    """Turn a column's texts into numbers in place, where all of them are."""
    for pattern, number in ((_INTEGER, int), (_NUMBER, float)):
        if rows and all(pattern.fullmatch(row[column]) for row in rows):
            for row in rows:
                row[column] = number(row[column])
            return


def _without_missing(row: dict[str, Any]) -> dict[str, Any]:
    return {column: value for column, value in row.items() if not (value is None or value == "" or value != value)}


def _refuse_constant(name: str) -> Iterator[None]:
    raise ValueError(f"{name} is not JSON")
