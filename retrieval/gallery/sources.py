"""Which pictures show the same product, as a folder of class folders, a manifest or a published data set says it?"""

import os
from pathlib import Path

from retrieval.errors import GalleryError, LabelsMissing
from retrieval.gallery import read_gallery
from retrieval.gallery.datasets import detect_layout, read_layout
from retrieval.gallery.labelled import LabelledPictures, label_of, number_classes
from retrieval.records import Listing, Skipped


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
