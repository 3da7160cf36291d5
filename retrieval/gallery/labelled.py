"""Pictures of which it is known what they show: `LabelledPictures`, and what makes them."""

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.files import NOT_A_FILE, why_unreadable
from retrieval.records import ImageRecord, Skipped


def label_of(record: ImageRecord) -> str | None:
    """Say what a picture shows: its product_id, else its label, else the folder that it lies in.

    Returns:
        The class name; "a/b" for a picture with the key "a/b/x.jpg" of which nothing else is known; None for one
        directly in the root.
    """
    return record.product_id or record.label or record.key.rpartition("/")[0] or None


@dataclass(frozen=True)
class LabelledPictures:
    """N pictures of C classes.

    Attributes:
        records: the pictures, in the order of their source.
        labels: (N,) int64, the class of each as a number into `names`.
        names: of the classes, sorted.
        unlabelled: pictures of the source that were left out because nothing says what they show.
        skipped: pictures and folders of the source that cannot be used.
    """

    records: list[ImageRecord]
    labels: NDArray[np.int64]
    names: list[str]
    unlabelled: int
    skipped: list[Skipped]

    def __len__(self) -> int:
        return len(self.records)

    def label(self, row: int) -> str:
        """The class name of one picture."""
        return self.names[int(self.labels[row])]

    def subset(self, rows: ArrayLike) -> "LabelledPictures":
        """Take some pictures, in the order of `rows`; the classes keep their numbers, also those without any left.

        Args:
            rows: (M,) numbers of pictures.
        """
        chosen = np.asarray(rows, np.int64)
        records = [self.records[row] for row in chosen]
        return LabelledPictures(records, self.labels[chosen], self.names, self.unlabelled, self.skipped)

    def counts(self) -> NDArray[np.int64]:
        """(C,) int64, the number of pictures of every class."""
        return np.bincount(self.labels, minlength=len(self.names)).astype(np.int64)


def number_classes(
    labelled: Iterable[tuple[ImageRecord, str]], *, unlabelled: int = 0, skipped: Sequence[Skipped] = ()
) -> LabelledPictures:
    """Make labelled pictures of records and their class names."""
    records: list[ImageRecord] = []
    written: list[str] = []
    for record, label in labelled:
        records.append(record)
        written.append(label)
    names = sorted(set(written))
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[label] for label in written], np.int64)
    return LabelledPictures(records, labels, names, unlabelled, list(skipped))


def join(first: LabelledPictures, second: LabelledPictures) -> LabelledPictures:
    """Put two sources into one: the pictures of `first`, then those of `second`; classes of the same name are one."""
    names = sorted({*first.names, *second.names})
    numbers = {name: number for number, name in enumerate(names)}
    labels = [np.array([numbers[name] for name in part.names], np.int64)[part.labels] for part in (first, second)]
    return LabelledPictures(
        [*first.records, *second.records],
        np.concatenate(labels),
        names,
        first.unlabelled + second.unlabelled,
        [*first.skipped, *second.skipped],
    )


def find_picture(
    key: str, path: str, *, product_id: str | None = None, label: str | None = None
) -> ImageRecord | Skipped:
    """Look up the file of a picture that a list names; one that is not there, or is no file, is set aside."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:  # ValueError: a null character
        return Skipped(key, why_unreadable(error, path), cause="access")
    if stat.S_ISREG(status.st_mode):
        return ImageRecord(key, path, status.st_size, status.st_mtime_ns, product_id, label)
    return Skipped(key, "is a folder" if stat.S_ISDIR(status.st_mode) else NOT_A_FILE, cause="access")
