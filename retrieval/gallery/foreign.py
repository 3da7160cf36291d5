"""How do manifests of other tools become rows of ours?"""

import math
from collections import Counter
from typing import Any
from urllib.parse import unquote, urlsplit

from retrieval.gallery.scan import PICTURE_SUFFIXES
from retrieval.gallery.tables import FLAGS, Table
from retrieval.records import Box

# Google Vision Product Search, bulk import; the first five are required, the file has no header.
# https://cloud.google.com/vision/product-search/docs/csv-format
_GOOGLE_COLUMNS = (
    "path",
    "key",
    "product_set_id",
    "product_id",
    "product_category",
    "product_display_name",
    "labels",
    "bounding_poly",
)
_GOOGLE_REQUIRED = 5

# open-metric-learning, docs: "Dataset format"
_OML_COLUMNS = frozenset(("path", "label", "split", "is_query", "is_gallery"))
_OML_BOX = ("x_1", "x_2", "y_1", "y_2")


class RowError(ValueError):
    """A row is wrong; the message says what and how to mend it, the caller adds where."""


def is_google(cells: list[tuple[int, list[str]]]) -> bool:
    """Tell by its first line whether a CSV file is one of Google Vision Product Search."""
    first = cells[0][1] if cells else []
    if not _GOOGLE_REQUIRED <= len(first) <= len(_GOOGLE_COLUMNS):
        return False
    return first[0] == "image-uri" or "://" in first[0] or first[0][first[0].rfind(".") :].lower() in PICTURE_SUFFIXES


def google_table(cells: list[tuple[int, list[str]]]) -> Table:
    """Name the columns of Google's CSV and read its labels ("key=value,key=value") as columns of their own.

    An image without an id is named by its path; the second region of the same file becomes `path#2`, and so on.

    Raises:
        RowError: the first line that is wrong, its number in front.
    """
    rows: list[tuple[int, dict[str, Any]]] = []
    shown: Counter[str] = Counter()
    for number, values in cells[1:] if cells[0][1][0] == "image-uri" else cells:
        try:
            row = _google_row(values)
        except RowError as error:
            raise RowError(f"line {number}: {error}") from error
        shown[row["path"]] += 1
        count = shown[row["path"]]
        rows.append((number, {"key": row["path"] if count == 1 else f"{row['path']}#{count}"} | row))
    return Table("line", _GOOGLE_COLUMNS, rows)


def is_open_metric_learning(table: Table) -> bool:
    """Tell by its columns whether a table is one of open-metric-learning."""
    return set(table.columns) >= _OML_COLUMNS


def open_metric_learning_row(row: dict[str, Any]) -> dict[str, Any] | None:
    """Read a row of open-metric-learning.

    Rows of the training split, whose flags are empty, belong to the gallery as well as those that are flagged so.

    Returns:
        The row with its four box columns made one; None for a query that is not in the gallery.

    Raises:
        RowError: a flag or a box is wrong.
    """
    is_query, is_gallery = _flag(row, "is_query"), _flag(row, "is_gallery")
    if is_query and not is_gallery:
        return None
    kept = {column: value for column, value in row.items() if column not in ("is_query", "is_gallery", *_OML_BOX)}
    corners = [row.get(column) for column in _OML_BOX]
    if any(corner is not None for corner in corners):
        try:
            left, right, top, bottom = (float(corner) for corner in corners)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            shown = ", ".join(f"{name}={corner}" for name, corner in zip(_OML_BOX, corners, strict=True))
            raise RowError(f"{shown}: give all four in pixels, or none") from error
        kept["box"] = [left, top, right - left, bottom - top]
    return kept


def local_path(path: str) -> str:
    """Turn a file:// address into a path; a path stays itself.

    Raises:
        RowError: the picture lies on another machine.
    """
    scheme, separator, _ = path.partition("://")
    if not separator or not scheme.replace("+", "").isalnum():
        return path
    parts = urlsplit(path)
    if scheme.lower() != "file" or parts.netloc not in ("", "localhost"):
        raise RowError(f"path {path} is not on this machine; copy the pictures here and write local paths")
    return unquote(parts.path)


def _google_row(values: list[str]) -> dict[str, Any]:
    if not _GOOGLE_REQUIRED <= len(values) <= len(_GOOGLE_COLUMNS):
        raise RowError(f"{len(values)} cells, {_GOOGLE_REQUIRED} to {len(_GOOGLE_COLUMNS)} are expected: check commas")
    row: dict[str, Any] = {name: value for name, value in zip(_GOOGLE_COLUMNS, values, strict=False) if value}
    if "path" not in row:
        raise RowError("image-uri is empty; name the picture's file")
    row["path"] = local_path(row["path"])
    labels: dict[str, str] = {}
    for label in filter(None, row.pop("labels", "").split(",")):
        name, separator, value = label.strip().partition("=")
        if not separator or not name:
            raise RowError(f'label "{label}" is not key=value; correct it')
        labels[name] = f"{labels[name]},{value}" if name in labels else value
    polygon = row.pop("bounding_poly", None)
    return labels | row | ({} if polygon is None else {"box": _box_of_polygon(polygon)})


def _box_of_polygon(text: str) -> Box:
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    across, down = values[::2], values[1::2]
    is_pairs = len(values) >= 4 and len(across) == len(down) and all(map(math.isfinite, values))
    if not is_pairs or min(across) == max(across) or min(down) == max(down):
        raise RowError(f'bounding-poly "{text}" is not x,y of two corners or more with an area, as in 0.1,0.2,0.9,0.8')
    left, top = min(across), min(down)
    is_relative = max(values) <= 1.0  # normalised vertices are fractions, absolute ones whole pixels
    return Box(left, top, max(across) - left, max(down) - top, is_relative)


def _flag(row: dict[str, Any], column: str) -> bool:
    value = row.get(column, False)
    flag = value if isinstance(value, bool) else FLAGS.get(str(value).strip().lower())
    if flag is None:
        raise RowError(f'{column} is "{value}"; it must be True, False or empty')
    return flag
