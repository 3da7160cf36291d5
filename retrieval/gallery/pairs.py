"""Which pairs of pictures does a manifest call similar, and which different?"""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import GalleryError, ManifestError
from retrieval.gallery.foreign import RowError, local_path
from retrieval.gallery.labelled import find_picture
from retrieval.gallery.tables import FLAGS, MANIFEST_SUFFIXES, Table, read_table, reading, table_of_cells
from retrieval.records import ImageRecord, Skipped

_COLUMNS = ("anchor", "other", "similar")


@dataclass(frozen=True)
class LabelledPairs:
    """M pairs of N pictures, each said to be similar or different.

    Attributes:
        records: the pictures, each once, in the order in which the manifest first names them.
        first, second: (M,) int64, the two pictures of every pair as numbers into `records`.
        is_similar: (M,) bool.
        left_out: pairs of which a picture cannot be used.
        skipped: those pictures.
    """

    records: list[ImageRecord]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    is_similar: NDArray[np.bool_]
    left_out: int
    skipped: list[Skipped]

    def __len__(self) -> int:
        return len(self.first)


def is_pairs_manifest(path: str | os.PathLike[str]) -> bool:
    """Tell by its columns whether a file is a manifest of pairs; reads no more than its first row.

    A file that cannot be read is none: whoever reads it as a gallery says what is wrong with it.
    """
    source = Path(path)
    if source.suffix.lower() not in MANIFEST_SUFFIXES:
        return False
    try:
        columns = {column.strip().lower() for column in _first_columns(source)}
    except (OSError, ValueError, RecursionError, csv.Error):
        return False
    return {"anchor", "other"} <= columns and "path" not in columns


def read_pairs(path: str | os.PathLike[str]) -> LabelledPairs:
    """Read pairs of pictures from a CSV, JSONL or Parquet file.

    Columns: `anchor` and `other`, two pictures (absolute paths, or relative to the manifest's folder), and `similar`
    (true, false, 1 or 0); further columns are passed over. A picture's key is its path as first written. A pair that is
    there twice, in either order, counts once.

    Args:
        path: the manifest; its suffix tells the format.

    Raises:
        ManifestError: columns or values are wrong, a picture is paired with itself, or two rows contradict each other;
            names the line, the value and the remedy.
        GalleryError: there is no such file, its suffix is not one of a manifest, or no pair can be used.
    """
    source = Path(os.path.abspath(path))
    with reading("manifest", source):
        table = _read_table(source)
    _check_columns(source.name, table)
    gathered = _Gathered(source.parent)
    for number, row in table.rows:
        try:
            gathered.add(row, f"{table.unit} {number}")
        except RowError as error:
            raise ManifestError(f"{source.name} {table.unit} {number}: {error}") from error
    if not gathered.pairs:
        skipped = gathered.skipped
        first = f", the first is {skipped[0].key} ({skipped[0].reason})" if skipped else ""
        raise GalleryError(
            f"{source.name} has {len(table.rows)} rows and no pair of pictures that can be used; "
            f"pictures set aside: {len(skipped)}{first}; add rows, or correct their paths"
        )
    columns = np.array(gathered.pairs, np.int64)  # (M, 3)
    return LabelledPairs(
        gathered.records, columns[:, 0], columns[:, 1], columns[:, 2] == 1, gathered.left_out, gathered.skipped
    )


@dataclass
class _Gathered:
    """What the rows so far have said."""

    folder: Path
    records: list[ImageRecord] = field(default_factory=list)
    pairs: list[tuple[int, int, bool]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    left_out: int = 0
    _numbers: dict[str, int | None] = field(default_factory=dict)  # of the files so far; None for one set aside
    _claims: dict[tuple[str, str], tuple[bool, str]] = field(default_factory=dict)  # two files -> similar, where

    def add(self, row: dict[str, Any], where: str) -> None:
        """Take in one row.

        Raises:
            RowError: it is wrong.
        """
        written = _path(row, "anchor"), _path(row, "other")
        is_similar = _claim(row)
        anchor, other = (os.path.abspath(self.folder / local_path(one)) for one in written)
        if anchor == other:
            raise RowError(f"anchor and other are both {written[0]}; name two pictures, or remove the row")
        files = (anchor, other) if anchor < other else (other, anchor)
        claim = self._claims.setdefault(files, (is_similar, where))
        if claim[0] is not is_similar:
            said = ("different", "similar")
            raise RowError(
                f"{written[0]} and {written[1]} are {said[is_similar]} here and {said[claim[0]]} in {claim[1]}; "
                "remove one of the two rows"
            )
        first, second = self._number(anchor, written[0]), self._number(other, written[1])
        if claim[1] != where:
            return
        if first is None or second is None:
            self.left_out += 1
        else:
            self.pairs.append((first, second, is_similar))

    def _number(self, path: str, written: str) -> int | None:
        if path not in self._numbers:
            found = find_picture(written.replace(os.sep, "/"), path)
            if isinstance(found, Skipped):
                self.skipped.append(found)
                self._numbers[path] = None
            else:
                self._numbers[path] = len(self.records)
                self.records.append(found)
        return self._numbers[path]


def _read_table(source: Path) -> Table:
    def of_cells(cells: list[tuple[int, list[str]]]) -> Table:
        if not cells:
            raise ManifestError(f"{source.name} is empty; its first line must name the columns {', '.join(_COLUMNS)}")
        return table_of_cells(source.name, cells)

    table = read_table(source, of_cells)
    if table is None:
        raise GalleryError(f"{source} is no manifest ({', '.join(MANIFEST_SUFFIXES)})")
    return table


def _check_columns(name: str, table: Table) -> None:
    for wanted in _COLUMNS:
        if wanted in table.columns or not table.columns:
            continue
        meant = next((column for column in table.columns if column.strip().lower() == wanted), None)
        if meant is not None:
            raise ManifestError(f'{name} has a column "{meant}"; rename it to `{wanted}`')
        shown = ", ".join(table.columns)
        raise ManifestError(f"{name} has no column `{wanted}` (it has {shown}); pairs need {', '.join(_COLUMNS)}")


def _path(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None:
        raise RowError(f"{column} is empty; name the picture's file, or remove the row")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(f"{column} is {value!r}; it must be the path of a picture")
    written = str(value)
    try:
        written.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"{column} is {written!r}, which is not UTF-8; rename it") from error
    return written


def _claim(row: dict[str, Any]) -> bool:
    value = row.get("similar")
    if value is None:
        raise RowError("similar is empty; write true or false, or remove the row")
    claim = FLAGS.get(str(value).strip().lower())
    if claim is None:
        raise RowError(f'similar is "{value}"; it must be true, false, 1 or 0')
    return claim


def _first_columns(source: Path) -> Sequence[str]:
    """The names of the columns, from the first line of a text file or the schema of a Parquet file.

    Raises:
        OSError, ValueError, RecursionError, csv.Error: it cannot be read, or is no such file.
    """
    suffix = source.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet

        names: list[str] = pyarrow.parquet.read_schema(source).names  # pyarrow's errors are ValueErrors
        return names
    with source.open(encoding="utf-8-sig", newline="") as file:
        if suffix == ".csv":
            return next(filter(any, csv.reader(file)), [])
        row = json.loads(next(filter(str.strip, file), "{}"))
    return list(row) if isinstance(row, dict) else []
