"""What a move of an index to another model did, and which models an index has had."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrieval.results.evaluation import EvaluationReport
from retrieval.results.feedback import FeedbackUse
from retrieval.results.indexing import ModelInfo


@dataclass(frozen=True, slots=True)
class MoveReport:
    """What a move to another model did.

    Attributes:
        former, model: before and after; the same where there was nothing to do.
        embedded: pictures that had no vector of that model yet.
        missing: keys of pictures that cannot be read any more; they are not found until a sync finds them again.
        dropped: keys of such pictures that were taken out of the index.
        seconds: of the whole.
        generation: of the index afterwards.
    """

    former: ModelInfo
    model: ModelInfo
    embedded: int
    missing: list[str]
    dropped: list[str]
    seconds: float
    generation: int

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {
            "former": self.former.to_dict(),
            "model": self.model.to_dict(),
            "embedded": self.embedded,
            "missing": self.missing,
            "dropped": self.dropped,
            "seconds": round(self.seconds, 3),
            "generation": self.generation,
        }


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """What a refresh came to.

    Attributes:
        candidate: the model that was judged.
        judged: the live model on the held-out pictures, and in its `comparison` the candidate.
        gate: what was asked for.
        unmet: what of it was not reached; where there is anything, the index stays with its model.
        moved: the move to the candidate, or to the same trained on everything; None where there was none.
        feedback: what was learned from clicks and rejections.
        seconds: of the whole, since it was last started.
    """

    candidate: ModelInfo
    judged: EvaluationReport
    gate: str
    unmet: list[str]
    moved: MoveReport | None
    feedback: FeedbackUse
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {
            "candidate": self.candidate.to_dict(),
            "judged": self.judged.to_dict(),
            "gate": self.gate,
            "unmet": self.unmet,
            "moved": None if self.moved is None else self.moved.to_dict(),
            "feedback": self.feedback.to_dict(),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Reign:
    """A time in which an index was searched by one model.

    Attributes:
        generation: the first of it.
        model: which one.
        since: when it began.
        note: what made it the index's.
        vectors: pictures that have a vector of it now; without any, going back to it embeds them again.
        metrics: by the names of `METRIC_TITLES`, on the pictures that the last refresh with this model held out, and
            `queries`, their number; of a refitted model, those of the candidate that was judged in its place. Empty
            where it was never judged.
    """

    generation: int
    model: ModelInfo
    since: datetime.datetime
    note: str
    vectors: int
    metrics: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {
            "generation": self.generation,
            "model": self.model.to_dict(),
            "since": self.since.isoformat(timespec="seconds"),
            "note": self.note,
            "vectors": self.vectors,
            "metrics": dict(self.metrics),
        }
