"""What a sync did, and what an index holds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from retrieval.records import Skipped


@dataclass(slots=True)
class IndexReport:
    """What a sync did.

    Attributes:
        added, updated, removed, unchanged: numbers of pictures.
        skipped: pictures (and folders that could not be listed) that were set aside, with the reason.
        stale: keys whose file has changed and cannot be used now; they keep their former vector.
        seconds: of the whole sync.
        images_per_second: embedded pictures a second, from the first to the last; 0 where none was.
        generation: of the index afterwards.
        notes: key and reservation of pictures that are in all the same, for instance as the part that decodes; for
            people, not part of the stable shape.
    """

    added: int = 0
    updated: int = 0
    removed: int = 0
    unchanged: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    seconds: float = 0.0
    images_per_second: float = 0.0
    generation: int = 0
    notes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def has_new_skips(self) -> bool:
        """Some picture was set aside that was not known to be unusable."""
        return any(not skip.known for skip in self.skipped)

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {
            "added": self.added,
            "updated": self.updated,
            "removed": self.removed,
            "unchanged": self.unchanged,
            "skipped": [skip.to_dict() for skip in self.skipped],
            "stale": self.stale,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
            "generation": self.generation,
        }


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model of an index."""

    name: str
    fingerprint: str
    dim: int

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What an index holds.

    Attributes:
        images, products: numbers in this generation.
        recipe: how most pictures are searched: "exact", or a FAISS factory string.
        ann_recall_at_10: the share of the true ten nearest that it finds, measured; 1 for "exact".
        segments: files of vectors that a search goes through.
        bytes: sizes on disk: catalog, segments, pictures (kept uploads), total.
    """

    images: int
    products: int
    generation: int
    model: ModelInfo
    recipe: str
    ann_recall_at_10: float
    segments: int
    bytes: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return asdict(self)
