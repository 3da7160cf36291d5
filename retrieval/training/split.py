"""Which pictures are trained on, and which are only measured? The same answer the next time, without a leak.

A class or a picture falls on its side by a hash of its name alone: no seed, and no other picture, moves it. Two
exceptions, for small catalogues: a side that would otherwise have nothing to train on or to measure gets the classes or
pictures whose hashes come next. numpy only; torch is not imported.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import xxhash
from numpy.typing import NDArray

from retrieval.errors import LabelConflict, PicturesChanged, PictureUnreadable, TrainingError
from retrieval.files import one_line, read_bytes
from retrieval.gallery.labelled import LabelledPictures
from retrieval.records import ImageRecord
from retrieval.threads import thread_budget

Kind = Literal["classes", "pictures", "file", "none"]

DEFAULT_SHARE = 0.2

_SALT = b"retrieve: split 1\0"  # another salt is another split of every catalogue
_FORMAT = 1


@dataclass(frozen=True)
class Split:
    """The two sides of N pictures.

    Attributes:
        train_rows: (T,) int64, ascending.
        validation_rows: (V,) int64, ascending; T + V = N.
        kind: what is held out: whole "classes", "pictures" of every class, a "file" of their own, or "none".
    """

    train_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]
    kind: Kind

    def save(self, path: str | os.PathLike[str], pictures: LabelledPictures) -> None:
        """Write the keys of both sides as JSON, whole or not at all.

        Args:
            path: the file.
            pictures: those that were split.

        Raises:
            OSError: it cannot be written.
        """
        keys = [record.key for record in pictures.records]
        sides = {"train": self.train_rows, "validation": self.validation_rows}
        text = json.dumps(
            {"format": _FORMAT, "kind": self.kind}
            | {name: [keys[row] for row in rows] for name, rows in sides.items()},
            ensure_ascii=False,
            indent=1,
        )
        unfinished = Path(path).with_name(Path(path).name + ".part")
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], pictures: LabelledPictures) -> "Split":
        """Read a split and find its pictures again by their keys.

        Raises:
            PicturesChanged: it is a split of other pictures.
            TrainingError: the file is damaged or of a newer version.
            OSError: it cannot be read.
        """
        try:
            saved = json.loads(Path(path).read_bytes())
            version, kind = saved["format"], saved["kind"]
            train, validation = ([str(key) for key in saved[side]] for side in ("train", "validation"))
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise TrainingError(f"{path} is no saved split: {one_line(error)}; train afresh") from error
        if version != _FORMAT or kind not in get_args(Kind):
            message = f"{path} is a split of format {version}, kind {kind}; this version reads format {_FORMAT}"
            raise TrainingError(f"{message}: upgrade retrieval-engine, or train afresh")
        rows = _find(path, [record.key for record in pictures.records], train, validation)
        return cls(*rows, kind)


def split_classes(pictures: LabelledPictures, share: float = DEFAULT_SHARE) -> Split:
    """Hold out whole classes, so that what is measured is how well products never trained on are told apart.

    At least two held-out classes have two pictures or more (fewer would leave nothing to tell apart), and at least two
    classes are trained on.

    Args:
        pictures: to split.
        share: of the classes, in (0, 1); the hash makes it so on average.

    Raises:
        TrainingError: there are fewer than four classes, or fewer than two with two pictures.
    """
    _check(pictures, share)
    counts = pictures.counts()
    places = {number: place_of(pictures.names[number]) for number in np.flatnonzero(counts)}
    ordered = sorted(places, key=places.__getitem__)
    measurable = [number for number in ordered if counts[number] >= 2][:2]
    if len(ordered) < 4 or len(measurable) < 2:
        raise TrainingError(
            f"{len(ordered)} classes, {np.count_nonzero(counts >= 2)} of them with 2 pictures or more, are too few to "
            "hold classes out: that needs 4 and 2; add classes, or use --val pictures or --val none"
        )
    others = [number for number in ordered if number not in measurable]
    held_out = [number for number in others if places[number] < share][: len(others) - 2] + measurable
    return _sides(np.isin(pictures.labels, held_out), "classes")


def split_pictures(
    pictures: LabelledPictures, share: float = DEFAULT_SHARE, groups: Sequence[str | None] | None = None
) -> Split:
    """Hold out pictures of all classes, so that what is measured is how well new photos of known products are found.

    At least one picture of every class is trained on, so a class with one picture is not measured.

    Args:
        pictures: to split.
        share: of the pictures, in (0, 1); the hash makes it so on average.
        groups: N values, as from `content_hashes`; pictures of a class with the same one fall on the same side. None
            stands for a group of one.

    Raises:
        TrainingError: there is one class only, or no class has two pictures that could be parted.
    """
    _check(pictures, share)
    places = np.array([place_of(record.key) for record in pictures.records])
    if groups is not None:
        places = lowest_of_group(places, pictures.labels, groups)
    highest = np.zeros(len(pictures.names))
    np.maximum.at(highest, pictures.labels, places)
    movable = places < highest[pictures.labels]  # the one with the highest hash always stays to be trained on
    if not movable.any():
        raise TrainingError("no class has two different pictures, so none can be held out; add some, or use --val none")
    held_out = movable & (places < share)
    return _sides(held_out if held_out.any() else movable & (places == places[movable].min()), "pictures")


def split_file(pictures: LabelledPictures, validation: LabelledPictures) -> Split:
    """Train on all of one source and measure on another.

    Returns:
        A split of `join(pictures, validation)`, in which the pictures of `validation` come last.

    Raises:
        TrainingError: there is one class only to train on.
    """
    _check(pictures)
    return _sides(np.arange(len(pictures) + len(validation)) >= len(pictures), "file")


def no_split(pictures: LabelledPictures) -> Split:
    """Train on everything and measure nothing.

    Raises:
        TrainingError: there is one class only.
    """
    _check(pictures)
    return _sides(np.zeros(len(pictures), np.bool_), "none")


def content_hashes(records: Sequence[ImageRecord], threads: int | None = None) -> list[str | None]:
    """Hash what each picture is made of: the bytes of its file (xxh3_128, in hex), and its box where it has one.

    Args:
        records: N pictures.
        threads: cores to keep busy; None for all this process may use.

    Returns:
        N hashes; None for a file that cannot be read.
    """
    with ThreadPoolExecutor(thread_budget(threads).decoding, thread_name_prefix="hash") as pool:
        return list(pool.map(_content_hash, records))


def conflicting_rows(pictures: LabelledPictures, hashes: Sequence[str | None]) -> NDArray[np.int64]:
    """Find the pictures whose bytes stand under more than one label.

    Args:
        pictures: N of them.
        hashes: of their contents; None is like no other.

    Returns:
        (M,) int64 rows, ascending; pictures of the same bytes are all among them.
    """
    labels: dict[str, set[int]] = {}
    for content, label in zip(hashes, pictures.labels.tolist(), strict=True):
        if content is not None:
            labels.setdefault(content, set()).add(label)
    rows = [row for row, content in enumerate(hashes) if content is not None and len(labels[content]) > 1]
    return np.array(rows, np.int64)


def check_leaks(pictures: LabelledPictures, split: Split, hashes: Sequence[str | None]) -> None:
    """Refuse pictures that would make a training contradict itself, or its validation flatter it.

    Args:
        pictures: N of them; for a split by file, both sources joined.
        split: of these pictures.
        hashes: of their contents; None is like no other.

    Raises:
        LabelConflict: the same bytes stand under two labels, or on both sides of the split; names two of the pictures,
            how many more there are, and the remedy.
    """
    keys = [record.key for record in pictures.records]
    rows = conflicting_rows(pictures, hashes)
    if len(rows):
        first = rows[0]
        second = next(
            row for row in rows if hashes[row] == hashes[first] and pictures.labels[row] != pictures.labels[first]
        )
        named = " and ".join(f'{keys[row]} ("{pictures.label(row)}")' for row in (first, second))
        remedy = "remove or relabel them, or leave all such pictures out with --drop-conflicts"
        raise LabelConflict(f"{named} are the same picture under two labels{_more(len(rows) - 2)}; {remedy}")
    trained_on = {hashes[row]: row for row in reversed(split.train_rows.tolist()) if hashes[row] is not None}
    leaked = [row for row in split.validation_rows.tolist() if hashes[row] in trained_on]
    if leaked:
        twin = trained_on[hashes[leaked[0]]]
        named = f"validation picture {keys[leaked[0]]} is the same picture as {keys[twin]}, which is trained on"
        remedy = "remove them from the validation file" if split.kind == "file" else "split with groups=hashes"
        raise LabelConflict(f"{named}{_more(len(leaked) - 1)}; {remedy}")


def place_of(name: str) -> float:
    """Where a name falls in [0, 1): evenly spread, the same everywhere and always."""
    return int.from_bytes(hashlib.sha256(_SALT + name.encode()).digest()[:8]) / 2**64


def _more(count: int) -> str:
    return f", and so are {count} more" if count > 1 else ", and so is 1 more" if count else ""


def lowest_of_group(
    places: NDArray[np.float64], labels: NDArray[np.int64], groups: Sequence[str | None]
) -> NDArray[np.float64]:
    """(N,) places, those of pictures of one label and one group made equal; None stands for a group of one."""
    lowest: dict[tuple[int, str], float] = {}
    named = list(zip(labels.tolist(), groups, places.tolist(), strict=True))
    for label, group, place in named:
        if group is not None:
            lowest[label, group] = min(place, lowest.get((label, group), place))
    return np.array([place if group is None else lowest[label, group] for label, group, place in named])


def _check(pictures: LabelledPictures, share: float = DEFAULT_SHARE) -> None:
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; it must lie between 0 and 1")
    classes = np.count_nonzero(pictures.counts())
    if classes < 2:
        found = f"{len(pictures)} pictures of {classes} class{'' if classes == 1 else 'es'}"
        only = f' ("{pictures.label(0)}")' if classes == 1 else ""
        raise TrainingError(f"{found}{only}: training needs at least 2 classes; add pictures of others")


def _sides(is_held_out: NDArray[np.bool_], kind: Kind) -> Split:
    return Split(np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out), kind)


def _content_hash(record: ImageRecord) -> str | None:
    try:
        content = xxhash.xxh3_128_hexdigest(read_bytes(record.path))
    except PictureUnreadable:
        return None
    return content if record.box is None else f"{content} {tuple(record.box)}"


def _find(
    path: str | os.PathLike[str], keys: list[str], train: list[str], validation: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of both sides.

    Raises:
        PicturesChanged: they are others now.
    """
    # Two files may use the same key: that of the pictures to train on comes first, that of the validation file last.
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    last = {key: row for row, key in enumerate(keys)}
    saved = {*train, *validation}
    added, gone = [key for key in keys if key not in saved], [key for key in [*train, *validation] if key not in first]
    if added or gone or len(train) + len(validation) != len(keys):
        shown = "".join(f" ({kind}: {some[0]})" for kind, some in (("new", added), ("gone", gone)) if some)
        message = f"is a split of other pictures: {len(added)} are new, {len(gone)} are gone{shown}"
        raise PicturesChanged(f"{path} {message}; train afresh, or bring the former pictures back")
    rows = [[first[key] for key in train], [last[key] for key in validation]]
    return np.sort(np.array(rows[0], np.int64)), np.sort(np.array(rows[1], np.int64))
