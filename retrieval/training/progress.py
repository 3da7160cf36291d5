"""How far is a training, and how does this epoch go?"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retrieval.training.history import Phase
from retrieval.training.objective import Cost


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """How far a training is.

    Attributes:
        phase: "validation" or "refit".
        epoch, epochs: from 1; the number of epochs is that at most.
        done, total: pictures of this epoch.
        loss, active: means over the epoch so far; active is NaN where the loss knows no such thing.
        images_per_second: of this epoch.
        recall_at_1: of the last validation, None before the first.
        seconds_left: until the last epoch of this phase.
    """

    phase: Phase
    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    active: float
    images_per_second: float
    recall_at_1: float | None
    seconds_left: float


OnProgress = Callable[[TrainProgress], None]


class Tally:
    """Means over an epoch so far.

    Args:
        total: pictures of the epoch.
    """

    def __init__(self, total: int) -> None:
        self.pictures = 0
        self.total = total
        self._losses: list[float] = []
        self._active: list[float] = []
        self._started_s = time.perf_counter()

    def add(self, loss: float, cost: Cost, pictures: int) -> None:
        """Take note of a batch."""
        self.pictures += pictures
        self._losses.append(loss)
        self._active.append(cost.active)

    @property
    def loss(self) -> float:
        """Mean over the batches."""
        return float(np.mean(self._losses)) if self._losses else 0.0

    @property
    def active(self) -> float:
        """Mean over the batches."""
        return float(np.mean(self._active)) if self._active else 0.0

    @property
    def images_per_second(self) -> float:
        """Since the epoch's first batch was asked for."""
        seconds = time.perf_counter() - self._started_s
        return self.pictures / seconds if seconds else 0.0
