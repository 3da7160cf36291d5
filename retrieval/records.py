"""What a gallery is made of: pictures that are to be indexed, and pictures that were set aside."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple


class Box(NamedTuple):
    """The part of a picture that shows the product: left, top, width, height.

    In pixels of the upright picture (after EXIF orientation), or in fractions of its sides if `is_relative`.
    """

    x: float
    y: float
    width: float
    height: float
    is_relative: bool = False


def read_sides(written: Any) -> tuple[float, float, float, float] | None:
    """Left, top, width and height of "x,y,width,height" or of a list; None where they are not four finite numbers."""
    try:
        x, y, width, height = (float(side) for side in (written.split(",") if isinstance(written, str) else written))
    except (TypeError, ValueError, OverflowError):  # the last: an integer beyond every float
        return None
    sides = x, y, width, height
    return sides if all(map(math.isfinite, sides)) else None


def box_text(box: Box | None) -> str | None:
    """A box as an index's catalog stores it: a JSON list, so that equal boxes are equal text."""
    return None if box is None else json.dumps(list(box))


def box_of(text: str | None) -> Box | None:
    """The box that `box_text` wrote."""
    return None if text is None else Box(*json.loads(text))


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One picture of a gallery, as found on disk.

    Attributes:
        key: the caller's name for it: POSIX path relative to the gallery, or the manifest's key.
        path: absolute path of the file.
        size_bytes, mtime_ns: as `stat` reported them when the gallery was scanned.
        product_id, label: what the manifest says, or None.
        box: the part to embed, or None for the whole picture.
        metadata: any further column of the manifest.
    """

    key: str
    path: str
    size_bytes: int
    mtime_ns: int
    product_id: str | None = None
    label: str | None = None
    box: Box | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """One picture that was set aside.

    Attributes:
        key: its key; bytes that are not UTF-8 are shown as backslash escapes.
        reason: one line, without the key.
        known: it was set aside for the same reason before, and has not changed since.
        cause: "decode" is remembered until the file changes; "access" is tried again at every run.
        size_bytes, mtime_ns: of the file that could not be decoded; -1 where unknown.
    """

    key: str
    reason: str
    known: bool = False
    cause: Literal["decode", "access"] = "decode"
    size_bytes: int = -1
    mtime_ns: int = -1

    def to_dict(self) -> dict[str, Any]:
        """The stable shape: key, reason, known."""
        return {"key": self.key, "reason": self.reason, "known": self.known}


@dataclass(frozen=True, slots=True)
class Listing:
    """A gallery as found on disk.

    Attributes:
        source: absolute path of the folder or manifest; names the gallery in the index.
        kind: "folder" or "manifest".
        records: the pictures, in the order of the gallery's own listing; keys are unique.
        skipped: pictures that cannot be used and whose names are known; they have not vanished.
        unlisted: key prefixes ("a/b/", or "" for the root) of folders that could not be listed; what the index
            holds under them has not vanished.
        scanned_ns: when the scan began; what has changed since may look unchanged.
    """

    source: str
    kind: Literal["folder", "manifest"]
    records: list[ImageRecord]
    skipped: list[Skipped]
    unlisted: list[Skipped]
    scanned_ns: int
