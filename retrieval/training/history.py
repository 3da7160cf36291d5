"""What happened in each epoch? One entry each, as lines of JSON, and which of them was best."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

HISTORY_FILE = "metrics.jsonl"
Phase = Literal["validation", "refit"]


@dataclass(frozen=True)
class Measures:
    """How well held-out pictures are told apart.

    Attributes:
        recall_at_1, map_at_r: see docs/metrics.md.
    """

    recall_at_1: float
    map_at_r: float

    @property
    def score(self) -> float:
        """What epochs are compared by: the mean of both. The first is what users see, the second moves more finely."""
        return (self.recall_at_1 + self.map_at_r) / 2


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training.

    Attributes:
        phase: "validation" with pictures held out, "refit" on everything.
        epoch: from 1.
        loss: mean over the batches.
        active: mean share of active triplets, None where the loss knows no such thing.
        images_per_second: trained on, decoding and augmenting included.
        rate_factor: of the full learning rates, at the end of the epoch.
        recall_at_1, map_at_r: on held-out pictures, None without any.
        variance, random_distance: how the embeddings lie, see `Spread`.
        is_best: no epoch before was as good.
        seconds: with validation and mining.
        notes: what else happened.
    """

    phase: Phase
    epoch: int
    loss: float
    active: float | None
    images_per_second: float
    rate_factor: float
    recall_at_1: float | None
    map_at_r: float | None
    variance: float
    random_distance: float
    is_best: bool
    seconds: float
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-plain."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Epoch":
        """Rebuild from `to_dict`."""
        return cls(**{one.name: values[one.name] for one in fields(cls)})

    @property
    def measures(self) -> Measures | None:
        """On held-out pictures."""
        if self.recall_at_1 is None or self.map_at_r is None:
            return None
        return Measures(self.recall_at_1, self.map_at_r)


def best_epoch(history: Sequence[Epoch]) -> Epoch | None:
    """The epoch with the best score on held-out pictures, the earliest of equals; None where nothing was measured."""
    measured = [(epoch, epoch.measures.score) for epoch in history if epoch.measures is not None]
    return max(measured, key=lambda one: one[1])[0] if measured else None


def write_history(history: Sequence[Epoch], path: Path) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(epoch.to_dict()) + "\n" for epoch in history), "utf-8")
