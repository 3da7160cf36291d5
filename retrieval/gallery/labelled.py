"""Which pictures show the same product, as a folder of class folders, a manifest or a published data set says it?"""

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.errors import GalleryError, LabelsMissing
from retrieval.files import NOT_A_FILE, why_unreadable
from retrieval.gallery import read_gallery
from retrieval.records import ImageRecord, Listing, Skipped


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


def read_labelled(
    source: str | os.PathLike[str], *, allow_unlabelled: bool = False, layout_split: str = "train"
) -> LabelledPictures:
    """Read pictures and what each of them shows.

    In a folder of class folders the class is the path of the folder, relative to `source`. In a manifest it is the
    column product_id, or the column label where no row has a product_id; folders count for nothing there. A published
    data set is known by its own files (see `retrieval.gallery.datasets`).

    Args:
        source: a folder, a manifest or the folder of a published data set.
        allow_unlabelled: leave pictures without a label out, and count them, instead of refusing the source.
        layout_split: the part of a published data set to read; other sources have no parts.

    Raises:
        LabelsMissing: no picture has a label, or one has none and `allow_unlabelled` is not set.
        ManifestError: a manifest's columns or values are wrong.
        GalleryError: the source is missing, cannot be read, or holds no picture that can be used.
    """
    from retrieval.gallery.datasets import detect_layout, read_layout  # built on LabelledPictures

    if detect_layout(source) is not None:
        return read_layout(source, layout_split)
    listing = read_gallery(source)
    skipped = [*listing.skipped, *listing.unlisted]
    if not listing.records:
        raise GalleryError(f"{listing.source} holds no picture that can be used{_first_of(skipped)}")
    found, kind = _labels(listing)
    missing = [record.key for record, label in zip(listing.records, found, strict=True) if label is None]
    if len(missing) == len(found) or (missing and not allow_unlabelled):
        raise LabelsMissing(_refusal(listing, kind, missing))
    labelled = ((record, label) for record, label in zip(listing.records, found, strict=True) if label is not None)
    return number_classes(labelled, unlabelled=len(missing), skipped=skipped)


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


def _labels(listing: Listing) -> tuple[list[str | None], str]:
    """The class name of every record, and what it was taken from.

    In a manifest the two columns are never mixed: a label often names a kind of product ("shoe"), and a shoe without
    a product_id is not the same product as all others without one.
    """
    if listing.kind == "folder":
        return [label_of(record) for record in listing.records], "folder"
    by_product = [record.product_id for record in listing.records]
    if any(by_product):
        return by_product, "product_id"
    return [record.label for record in listing.records], "label"


def _refusal(listing: Listing, kind: str, missing: list[str]) -> str:
    source, count, total = listing.source, len(missing), len(listing.records)
    leave_out = "or leave such pictures out with --allow-unlabelled"
    if kind == "folder":
        if count == total:
            remedy = "put every class into a folder of its own, or pass a manifest with product_id or label"
            return f"{source}: none of its {total} pictures lies in a class folder; {remedy}"
        where = f"{count} of {total} pictures lie in no class folder, the first is {missing[0]}"
        return f"{source}: {where}; move them into one, {leave_out}"
    name = Path(source).name
    if count == total:
        return f"{name}: none of its {total} pictures has a product_id or a label; add one of the two columns"
    return f"{name}: {count} of {total} pictures have no {kind}, the first is {missing[0]}; fill it in, {leave_out}"


def _first_of(skipped: list[Skipped]) -> str:
    if not skipped:
        return "; add pictures, or pass another folder or manifest"
    return f"; set aside: {len(skipped)}, the first is {skipped[0].key} ({skipped[0].reason})"
