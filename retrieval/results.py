"""What a caller gets back; `to_dict()` is the stable shape of --json, of Python and of HTTP alike."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from retrieval.records import Box, Skipped


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


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What an index holds.

    Attributes:
        images, products: numbers in this generation.
        recipe: how vectors are stored and searched, a FAISS factory string.
        bytes: sizes on disk: catalog, segments, pictures (kept uploads), total.
    """

    images: int
    products: int
    generation: int
    model: ModelInfo
    recipe: str
    bytes: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return asdict(self)


METRIC_TITLES = {
    "recall_at_1": "Recall@1",
    "recall_at_5": "Recall@5",
    "recall_at_10": "Recall@10",
    "map_at_r": "MAP@R",
    "mean_average_precision": "mAP",
}
"""The figures of an evaluation, in the order in which they are shown; docs/metrics.md says what each means."""


class Figure(NamedTuple):
    """A metric, or a difference of two, with its 95% bootstrap interval over the queries."""

    value: float
    low: float
    high: float


def _nested(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """The stable shape of figures: the values, and the intervals in the same shape beneath them."""
    values, intervals = ({"recall_at": {}} for _ in range(2))  # type: tuple[dict[str, Any], dict[str, Any]]
    for name, figure in figures.items():
        k = name.removeprefix("recall_at_")
        for shape, shown in ((values, figure.value), (intervals, [figure.low, figure.high])):
            (shape if k == name else shape["recall_at"])[k] = shown
    return {**values, "intervals": intervals}


@dataclass(frozen=True, slots=True)
class ClassScore:
    """The means over the queries of one class."""

    label: str
    queries: int
    recall_at_1: float
    map_at_r: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """A gallery picture in the ranking of a query: rank from 1, score a cosine, path absolute."""

    key: str
    path: str
    label: str
    box: Box | None
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A query whose first hit shows another product.

    Attributes:
        key, path, label, box: of the query.
        hit: what came first.
        positive: the best of what should have.
    """

    key: str
    path: str
    label: str
    box: Box | None
    hit: Sighting
    positive: Sighting


@dataclass(frozen=True, slots=True)
class Comparison:
    """A second model on the same queries and gallery.

    Attributes:
        model: the second one.
        figures: its own.
        differences: second minus first, with the interval of paired queries.
        only_first, only_second: queries whose first hit is right with that model alone.
        p_value: of McNemar's exact test that both are right equally often.
    """

    model: ModelInfo
    figures: Mapping[str, Figure]
    differences: Mapping[str, Figure]
    only_first: int
    only_second: int
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {
            "model": asdict(self.model),
            **_nested(self.figures),
            "differences": _nested(self.differences),
            "only_first": self.only_first,
            "only_second": self.only_second,
            "p_value": self.p_value,
        }


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was passed over because nothing could be learnt from it.

    Attributes:
        without_label: queries and gallery pictures of which nothing says what they show.
        without_positive: queries of whose product the gallery holds no other picture.
        own_pictures: scored queries whose own picture is in the gallery; it is no answer to them.
    """

    without_label: int
    without_positive: int
    own_pictures: int


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """How good a model or an index is at finding pictures of the same product.

    Attributes:
        model: what embedded queries and gallery.
        figures: under the names of `METRIC_TITLES`, each in [0, 1].
        queries: that were scored.
        gallery: pictures that were ranked for each of them.
        left_out: what was not scored.
        skipped: pictures (and folders that could not be listed) that cannot be used, with the reason.
        per_class: worst first.
        precision_at_recall: at recall 0, 0.01, ..., 1: interpolated, mean over the queries.
        failures: the worst of those whose first hit is wrong; most confidently wrong first.
        comparison: with a second model, where one was named.
    """

    model: ModelInfo
    figures: Mapping[str, Figure]
    queries: int
    gallery: int
    left_out: LeftOut
    skipped: list[Skipped]
    per_class: list[ClassScore]
    precision_at_recall: list[float]
    failures: list[Failure]
    comparison: Comparison | None = None

    @property
    def recall_at(self) -> dict[str, float]:
        """The share of the queries that have a positive among the first k, under "1", "5" and "10"."""
        recall: dict[str, float] = _nested(self.figures)["recall_at"]
        return recall

    @property
    def map_at_r(self) -> float:
        """MAP@R."""
        return self.figures["map_at_r"].value

    @property
    def mean_average_precision(self) -> float:
        """The mean average precision over the whole ranking."""
        return self.figures["mean_average_precision"].value

    @property
    def intervals(self) -> dict[str, Any]:
        """95% bootstrap intervals over the queries, [low, high], in the shape of the figures."""
        intervals: dict[str, Any] = _nested(self.figures)["intervals"]
        return intervals

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {
            **_nested(self.figures),
            "queries": self.queries,
            "gallery": self.gallery,
            "model": asdict(self.model),
            "left_out": asdict(self.left_out),
            "skipped": [skip.to_dict() for skip in self.skipped],
            "per_class": [asdict(one) for one in self.per_class],
            "precision_at_recall": self.precision_at_recall,
            "failures": [asdict(failure) for failure in self.failures],
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What came of a training.

    Attributes:
        model: absolute path of the model directory.
        fingerprint: of its weights.
        epochs: as many as were best.
        before, after: recall_at_1 and map_at_r on the held-out pictures, of the untrained start and of the best epoch;
            None where nothing was held out.
        validation: what was held out: "classes", "pictures", a "file" or "none".
        is_refitted: the weights were trained afresh on everything; `after` is then that of the run before.
        pictures, classes: trained on or held out.
        held_out: pictures.
        skipped: pictures that were set aside.
        suspects: pairs that look the same and are labelled differently; the report shows them.
        expected_calibration_error: of match probabilities on held-out pairs, None where there were too few.
        seconds: of the whole, since it was last started.
        notes: what the reader must know.
    """

    model: str
    fingerprint: str
    epochs: int
    before: Mapping[str, float] | None
    after: Mapping[str, float] | None
    validation: str
    is_refitted: bool
    pictures: int
    classes: int
    held_out: int
    skipped: list[Skipped]
    suspects: int
    expected_calibration_error: float | None
    seconds: float
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return asdict(self) | {"skipped": [skip.to_dict() for skip in self.skipped]}
