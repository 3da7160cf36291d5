"""What became of clicks and rejections."""

from dataclasses import asdict, dataclass, field
from typing import Any

from retrieval.records import Skipped


@dataclass(frozen=True, slots=True)
class FeedbackReport:
    """What was written down.

    Attributes:
        recorded: judgements.
        skipped: the key of each judgement that was set aside, with the reason.
    """

    recorded: int
    skipped: list[Skipped]

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {"recorded": self.recorded, "skipped": [skip.to_dict() for skip in self.skipped]}


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Judgements of one query that disagree with each other, or with what the index says.

    Attributes:
        query: path of its picture.
        reason: one line.
    """

    query: str
    reason: str


@dataclass(frozen=True, slots=True)
class FeedbackUse:
    """What a refresh learned from clicks and rejections.

    Attributes:
        judgements: that were recorded, of pictures that the index still holds.
        pictures: query pictures that were trained on as pictures of the product that was chosen.
        rejections: pairs of a query and a picture that were trained to be apart.
        capped: judgements that one source had too many of.
        unlabelled: judgements of pictures of which it is not known what they show.
        stale: judgements of pictures that were removed or replaced since.
        contradictions: what was put aside, or outvoted.
    """

    judgements: int = 0
    pictures: int = 0
    rejections: int = 0
    capped: int = 0
    unlabelled: int = 0
    stale: int = 0
    contradictions: list[Contradiction] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FeedbackUse":
        """What `to_dict` gave."""
        return cls(**{**values, "contradictions": [Contradiction(**one) for one in values["contradictions"]]})
