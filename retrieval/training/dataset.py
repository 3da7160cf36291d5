"""What is trained on, and what is it measured on? Read, checked for what cannot be used, split, and free of leaks."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import PictureError, TrainingError
from retrieval.gallery.labelled import LabelledPictures, join
from retrieval.gallery.pairs import LabelledPairs, is_pairs_manifest, read_pairs
from retrieval.gallery.sources import read_labelled
from retrieval.images import DecodeLimits, decode
from retrieval.records import ImageRecord, Skipped
from retrieval.threads import thread_budget
from retrieval.training.config import PAIR_LOSSES, TrainConfig, Validation
from retrieval.training.pairs import ListedPairs, classes_of
from retrieval.training.rejections import NO_REJECTIONS, Rejections, read_rejections
from retrieval.training.split import (
    Split,
    check_leaks,
    conflicting_rows,
    content_hashes,
    no_split,
    split_classes,
    split_file,
    split_pictures,
)

SPLIT_FILE = "split.json"


@dataclass(frozen=True)
class TrainingSet:
    """Labelled pictures that can be read, and which of them are held out.

    Attributes:
        pictures: N pictures, training and validation.
        split: rows of them.
        skipped: pictures that were set aside.
        dropped: pictures left out because their bytes stand under two labels.
        pairs: what is trained on where the source lists pairs; None where classes are.
        rejections: pictures that were taken for some of these and are not the same.
    """

    pictures: LabelledPictures
    split: Split
    skipped: list[Skipped]
    dropped: int
    pairs: ListedPairs | None = None
    rejections: Rejections = NO_REJECTIONS

    @property
    def is_measured(self) -> bool:
        """Something is held out."""
        return len(self.split.validation_rows) > 0

    def everything(self) -> "TrainingSet":
        """The same with nothing held out."""
        return replace(self, split=no_split(self.pictures))


def open_training_set(config: TrainConfig) -> TrainingSet:
    """Read the source, set aside what cannot be read, and split it.

    A split that was saved in the run's folder is used again. Every file is read twice, to be decoded and to be hashed.

    Raises:
        GalleryError, LabelsMissing, ManifestError: the source cannot be used.
        LabelConflict: the same bytes stand under two labels, or on both sides.
        TrainingError: there are too few classes.
    """
    listed = read_pairs(config.source) if is_pairs_manifest(config.source) else None
    if listed is None:
        named = read_labelled(config.source, allow_unlabelled=config.allow_unlabelled)
    else:
        named = classes_of(listed)
    pictures, hashes, dropped, skipped = _readable(named, config)
    if config.validation in get_args(Validation):
        split = _split(pictures, config.validation, hashes)
    else:
        measured, more_hashes, _, more = _readable(read_labelled(config.validation, allow_unlabelled=True), config)
        split, skipped = split_file(pictures, measured), [*skipped, *more]
        pictures, hashes = join(pictures, measured), [*hashes, *more_hashes]
    saved = config.run_dir / SPLIT_FILE
    if saved.is_file():
        split = Split.load(saved, pictures)
    check_leaks(pictures, split, hashes)
    if listed is not None:
        return TrainingSet(pictures, split, skipped, dropped, _listed_pairs(listed, pictures, config))
    found = TrainingSet(pictures, split, skipped, dropped, rejections=_rejections(pictures, config))
    _check_classes(found, config)
    return found


def _listed_pairs(listed: LabelledPairs, pictures: LabelledPictures, config: TrainConfig) -> ListedPairs:
    """The pairs whose pictures can both be used, as rows of these."""
    if config.loss not in PAIR_LOSSES:
        raise TrainingError(
            f"{Path(config.source).name} lists pairs, which the loss {config.loss} cannot be trained on; pass --loss "
            f"{' or '.join(PAIR_LOSSES)}"
        )
    rows = {record.key: row for row, record in enumerate(pictures.records)}
    place = np.array([rows.get(record.key, -1) for record in listed.records], np.int64)
    first, second = place[listed.first], place[listed.second]
    kept = (first >= 0) & (second >= 0)
    return ListedPairs(first[kept], second[kept], listed.is_similar[kept])


def _rejections(pictures: LabelledPictures, config: TrainConfig) -> Rejections:
    """Those that the configuration names, as far as their pictures can be used."""
    if config.rejections is None:
        return NO_REJECTIONS
    found = read_rejections(config.rejections, [record.key for record in pictures.records])
    return found.subset([_why_unusable(record, config.limits) is None for record in found.records])


def _readable(
    pictures: LabelledPictures, config: TrainConfig
) -> tuple[LabelledPictures, list[str | None], int, list[Skipped]]:
    """The pictures that decode and whose labels agree, with their hashes; the number of conflicts; what was skipped."""
    with ThreadPoolExecutor(thread_budget(config.threads).decoding, thread_name_prefix="decode") as pool:
        reasons = list(pool.map(lambda record: _why_unusable(record, config.limits), pictures.records))
    unusable = [Skipped(record.key, reason) for record, reason in zip(pictures.records, reasons, strict=True) if reason]
    pictures = pictures.subset([row for row, reason in enumerate(reasons) if reason is None])
    hashes = content_hashes(pictures.records, config.threads)
    dropped = conflicting_rows(pictures, hashes) if config.drop_conflicts else np.empty(0, np.int64)
    kept = np.setdiff1d(np.arange(len(pictures)), dropped)
    return pictures.subset(kept), [hashes[row] for row in kept], len(dropped), pictures.skipped + unusable


def _why_unusable(record: ImageRecord, limits: DecodeLimits) -> str | None:
    """What is wrong with a picture, or None; a JPEG is decoded at its smallest scale."""
    try:
        decode(record.path, min_side_px=1, box=record.box, limits=limits)
    except PictureError as error:
        return str(error)
    return None


def _split(pictures: LabelledPictures, kind: str, hashes: list[str | None]) -> Split:
    if kind == "classes":
        return split_classes(pictures)
    return split_pictures(pictures, groups=hashes) if kind == "pictures" else no_split(pictures)


def _check_classes(found: TrainingSet, config: TrainConfig) -> None:
    labels: NDArray[np.int64] = found.pictures.labels[found.split.train_rows]
    classes = len(np.unique(labels))
    if classes < config.classes_per_batch:
        raise TrainingError(
            f"{Path(config.source).name} has {classes} classes to train on, a batch wants {config.classes_per_batch}; "
            f"pass --batch {classes} {config.pictures_per_class}, or add classes"
        )
    if np.bincount(labels).max() < 2:
        raise TrainingError(
            f"{Path(config.source).name}: every class has one picture to train on, so nothing has a positive; add a "
            "second picture to some classes"
        )
