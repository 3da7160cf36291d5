"""Is the network giving up, by embedding everything at one place?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.training.samplers import Rows

COLLAPSED_SPREAD = 0.02  # of the mean squared distance from the centre, which is 1 for unit vectors in all directions
_PAIRS = 2000


@dataclass(frozen=True)
class Spread:
    """How the embeddings of pictures lie.

    Attributes:
        variance: mean squared distance from their centre, 0 (one point) to 1 (all directions alike).
        random_distance: median Euclidean distance of two pictures of different labels.
    """

    variance: float
    random_distance: float

    @property
    def is_collapsed(self) -> bool:
        """Nearly all pictures lie at one place: no search could tell them apart."""
        return not self.variance >= COLLAPSED_SPREAD  # so written that NaN counts as well


def measure_spread(embeddings: NDArray[np.float32], labels: Rows) -> Spread:
    """See how far apart pictures lie.

    Args:
        embeddings: (N, D) unit rows.
        labels: (N,).
    """
    if not len(embeddings):
        return Spread(0.0, 0.0)  # none is a unit vector: a dead network
    variance = 1.0 - float(np.square(embeddings.mean(axis=0, dtype=np.float64)).sum())
    random = np.random.default_rng(0)
    first, second = random.integers(0, len(labels), (2, _PAIRS))
    differs = labels[first] != labels[second]
    apart = np.linalg.norm(embeddings[first[differs]] - embeddings[second[differs]], axis=1)
    return Spread(variance, float(np.median(apart)) if len(apart) else float("nan"))
