"""What a search and a comparison of two pictures give back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retrieval.records import Box


@dataclass(frozen=True, slots=True)
class Hit:
    """One picture that looks like the query.

    Attributes:
        rank: from 1.
        key: the caller's name for it.
        path: of its file, absolute, or None where there is none.
        score: cosine similarity, at most 1; higher is better.
        match_probability: that both show the same product, or None while the model is not calibrated.
        product_id: the product it shows, or None.
        metadata: whatever the manifest or the upsert said.
    """

    rank: int
    key: str
    path: Path | None
    score: float
    match_probability: float | None
    product_id: str | None
    metadata: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {
            "rank": self.rank,
            "key": self.key,
            "path": None if self.path is None else str(self.path),
            "score": self.score,
            "match_probability": self.match_probability,
            "product_id": self.product_id,
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to one query.

    Attributes:
        query: the path that was asked about, or None for pixels and vectors.
        hits: best first.
        generation: of the index that answered.
        model: fingerprint of the model that embedded the query and the pictures.
    """

    query: str | None
    hits: list[Hit]
    generation: int
    model: str

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {
            "query": self.query,
            "hits": [hit.to_dict() for hit in self.hits],
            "generation": self.generation,
            "model": self.model,
        }


@dataclass(frozen=True, slots=True)
class Duplicate:
    """One of several pictures that are nearly the same.

    Attributes:
        key: the caller's name for it.
        path: of its file, absolute, or None where there is none.
        score: cosine to the first of the group, at most 1; of the first itself 1.
    """

    key: str
    path: Path | None
    score: float

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {"key": self.key, "path": None if self.path is None else str(self.path), "score": self.score}


@dataclass(frozen=True, slots=True)
class IndexedPicture:
    """One picture of the index.

    Attributes:
        key: the caller's name for it.
        path: of its file, absolute.
        product_id, label: what it shows, or None.
        metadata: whatever the manifest or the upsert said.
        box: the part that is embedded, or None for all of it.
        content_hash: xxh3 of the file's bytes, 128 bits in hexadecimal.
        is_upserted: it came by an upsert, and no gallery's sync touches it.
    """

    key: str
    path: Path
    product_id: str | None
    label: str | None
    metadata: Mapping[str, Any]
    box: Box | None
    content_hash: str
    is_upserted: bool

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {
            "key": self.key,
            "path": str(self.path),
            "product_id": self.product_id,
            "label": self.label,
            "metadata": dict(self.metadata),
            "box": None if self.box is None else list(self.box[:4]),
            "box_is_relative": self.box is not None and self.box.is_relative,
            "content_hash": self.content_hash,
            "is_upserted": self.is_upserted,
        }


@dataclass(frozen=True, slots=True)
class MatchResult:
    """What two pictures have in common.

    Attributes:
        a, b: the paths that were asked about, or None for pixels.
        score: cosine similarity, at most 1.
        distance: Euclidean, between the unit embeddings: the square root of 2 - 2 * score.
        match_probability: that both show the same product, or None while the model is not calibrated.
        threshold: the score from which they are taken for the same, or None if no decision was asked for.
        is_match: whether they reach it, or None likewise.
        model: fingerprint of the model that embedded them.
    """

    a: str | None
    b: str | None
    score: float
    distance: float
    match_probability: float | None
    threshold: float | None
    is_match: bool | None
    model: str

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return asdict(self)
