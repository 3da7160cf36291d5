"""How good a model or an index is, with intervals, failures and a comparison."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from retrieval.records import Box, Skipped
from retrieval.results.indexing import ModelInfo

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
