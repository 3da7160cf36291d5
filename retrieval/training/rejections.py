"""Which pictures were taken for a training picture, and show something else? Training keeps them apart from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ManifestError
from retrieval.gallery.tables import read_jsonl, reading
from retrieval.records import Box, ImageRecord
from retrieval.training.samplers import Rows


@dataclass(frozen=True)
class Rejections:
    """M pairs of a training picture and one of E pictures that are not trained on themselves.

    Attributes:
        records: the E pictures.
        rows: (M,) int64 rows of the training pictures.
        rejected: (M,) int64 numbers into `records`: what is not the same.
    """

    records: list[ImageRecord]
    rows: Rows
    rejected: Rows

    def subset(self, is_kept: Sequence[bool] | NDArray[np.bool_]) -> "Rejections":
        """The pairs of some of the E pictures."""
        kept = np.asarray(is_kept, np.bool_)
        rejected = np.where(kept, np.cumsum(kept) - 1, -1)[self.rejected]
        records = [self.records[number] for number in np.flatnonzero(kept)]
        return Rejections(records, self.rows[rejected >= 0], rejected[rejected >= 0])

    def within(self, rows: Rows) -> "Rejections":
        """The pairs whose training picture is among `rows`, now counted within these, and no other pictures."""
        place = np.full(max(self.rows.max(initial=-1), rows.max(initial=-1)) + 1, -1)
        place[rows] = np.arange(len(rows))
        placed = place[self.rows]
        kept = Rejections(self.records, placed[placed >= 0], self.rejected[placed >= 0])
        return kept.subset(np.isin(np.arange(len(self.records)), kept.rejected))

    def table(self, pictures: int) -> Rows:
        """(T, V) int64: for each of T training pictures the numbers of what was rejected for it, -1 past the last."""
        listed: list[list[int]] = [[] for _ in range(pictures)]
        for row, number in zip(self.rows.tolist(), self.rejected.tolist(), strict=True):
            listed[row].append(number)
        table = np.full((pictures, max(map(len, listed), default=0)), -1, np.int64)
        for row, numbers in enumerate(listed):
            table[row, : len(numbers)] = numbers
        return table


NO_REJECTIONS = Rejections([], np.empty(0, np.int64), np.empty(0, np.int64))


def read_rejections(source: str, keys: Sequence[str]) -> Rejections:
    """Read which pictures were taken for training pictures and are not the same.

    Keys that are not trained on are passed over. Nobody has looked yet whether the pictures can be used.

    Args:
        source: JSONL; each line holds the `key` of a training picture and the absolute `path` of the other, perhaps its
            `box` as `ImageRecord` has it.
        keys: of the training pictures, in the order of their rows.

    Raises:
        ManifestError: a line is not understood.
        GalleryError: the file cannot be read.
    """
    path, row_of = Path(source), {key: row for row, key in enumerate(keys)}
    with reading("rejections", path):
        table = read_jsonl(path)
    numbers: dict[tuple[str, Box | None], int] = {}
    pairs: list[tuple[int, int]] = []
    for line, row in table.rows:
        if "key" not in row or "path" not in row:
            raise ManifestError(f"{path.name} line {line} lacks key or path; each line names two pictures")
        if row["key"] in row_of:
            other = (row["path"], Box(*row["box"]) if "box" in row else None)
            pairs.append((row_of[row["key"]], numbers.setdefault(other, len(numbers))))
    records = [ImageRecord(name, name, size_bytes=-1, mtime_ns=-1, box=box) for name, box in numbers]
    rows, rejected = np.array(pairs, np.int64).reshape(-1, 2).T
    return Rejections(records, rows, rejected)
