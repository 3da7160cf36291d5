"""What does a batch cost, and how much of it was worth learning from?

Every objective is called with embeddings (N, D) float32 unit rows, labels (N,) int64, rows (N,) int64 (which pictures
of the training set these are) and the mined negatives, if there are any; its parameters belong in the optimiser.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from retrieval.training.config import TRIPLET_LOSSES, TrainConfig
from retrieval.training.distances import Distance, distance_matrix
from retrieval.training.foreign_losses import open_foreign_loss
from retrieval.training.losses import PairClassifier, contrastive_loss, mean, mean_of_active, pair_loss, triplet_loss
from retrieval.training.miners import (
    Triplets,
    mine_all,
    mine_distance_weighted,
    mine_hard,
    mine_pairs,
    mine_semi_hard,
)


class Cost(NamedTuple):
    """Of one batch.

    Attributes:
        loss: scalar, to go backward from.
        active: share of its triplets or pairs whose loss is above 0, as counted before any soft margin; NaN where the
            loss knows no such thing.
    """

    loss: Tensor
    active: float


class Mined(NamedTuple):
    """Hard negatives from the whole training set, as the network last saw it.

    Attributes:
        embeddings: (N, D), without gradient; updated batch by batch.
        negatives: (N, W) int64 rows of it, -1 where there is none.
    """

    embeddings: Tensor
    negatives: Tensor


class TripletObjective(nn.Module):
    """Triplets of the batch, chosen by a miner, and negatives mined from the whole catalogue."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self._config = config
        self._generator = torch.Generator()

    def forward(self, embeddings: Tensor, labels: Tensor, rows: Tensor, mined: Mined | None) -> Cost:
        """Measure a batch; see the module."""
        distances = distance_matrix(embeddings, embeddings, self._config.distance)
        chosen = self._mine(distances, labels, embeddings, rows)
        costs = self._losses(distances[chosen.anchors, chosen.positives], distances[chosen.anchors, chosen.negatives])
        loss, active = self._reduced(costs), _share(self._is_active(distances, chosen))
        if mined is not None:
            to_positive, to_negative = _mined(embeddings, distances, labels, rows, mined, self._config)
            loss = loss + self._reduced(self._losses(to_positive, to_negative))
        return Cost(loss, active)

    def _losses(self, to_positive: Tensor, to_negative: Tensor) -> Tensor:
        if self._config.loss == "triplet":
            return triplet_loss(to_positive, to_negative, margin=self._config.margin)
        scale = self._config.temperature
        return scale * triplet_loss((to_positive + self._config.margin) / scale, to_negative / scale, soft=True)

    def _reduced(self, costs: Tensor) -> Tensor:
        return mean_of_active(costs) if self._config.loss == "triplet" else mean(costs)

    def _is_active(self, distances: Tensor, chosen: Triplets) -> Tensor:
        gaps = distances[chosen.anchors, chosen.positives] - distances[chosen.anchors, chosen.negatives]
        return gaps.detach() + self._config.margin > 0

    def _mine(self, distances: Tensor, labels: Tensor, embeddings: Tensor, rows: Tensor) -> Triplets:
        miner, found = self._config.miner, distances.detach()
        if miner == "hard":
            return mine_hard(found, labels)
        if miner == "semi_hard":
            return mine_semi_hard(found, labels, margin=self._config.margin)
        if miner == "distance_weighted":
            euclidean: Distance = "euclidean"
            apart = distance_matrix(embeddings.detach(), embeddings.detach(), euclidean)
            self._generator.manual_seed(int(rows.sum()) + self._config.seed)  # a resumed run draws the same
            return mine_distance_weighted(apart, labels, dim=embeddings.shape[1], generator=self._generator)
        return mine_all(labels)


class PairObjective(nn.Module):
    """Every pair of the batch, similar if the labels agree."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self._config = config
        self.classifier = PairClassifier() if config.loss == "pair" else None

    def forward(self, embeddings: Tensor, labels: Tensor, rows: Tensor, mined: Mined | None) -> Cost:
        """Measure a batch; see the module."""
        pairs = mine_pairs(labels)
        distances = distance_matrix(embeddings, embeddings, "euclidean")[pairs.first, pairs.second]
        return self.cost_of(distances, pairs.is_similar)

    def cost_of(self, distances: Tensor, is_similar: Tensor) -> Cost:
        """The cost of (M,) Euclidean distances of pairs, (M,) bool similar or not."""
        if self.classifier is None:
            costs = contrastive_loss(distances, is_similar, margin=self._config.margin)
        else:
            costs = pair_loss(distances, is_similar, slope=self.classifier.slope, offset=self.classifier.offset)
        # There are many more different pairs than similar ones: both kinds weigh alike.
        halves = [mean(costs[is_similar]), mean(costs[~is_similar])]
        return Cost(halves[0] + halves[1], _share(costs.detach() > 0))


class ForeignObjective(nn.Module):
    """A loss of pytorch-metric-learning."""

    def __init__(self, config: TrainConfig, classes: int, dim: int) -> None:
        super().__init__()
        self.loss = open_foreign_loss(config.loss, classes=classes, dim=dim)

    def forward(self, embeddings: Tensor, labels: Tensor, rows: Tensor, mined: Mined | None) -> Cost:
        """Measure a batch; see the module."""
        return Cost(self.loss(embeddings, labels), float("nan"))


def open_objective(config: TrainConfig, classes: int, dim: int) -> TripletObjective | PairObjective | ForeignObjective:
    """The objective that the configuration names.

    Args:
        config: `loss` and `miner` decide.
        classes: labels are 0 to classes - 1.
        dim: D.

    Raises:
        TrainingError: pytorch-metric-learning is not installed, or has no loss of that name.
    """
    if config.loss in TRIPLET_LOSSES:
        return TripletObjective(config)
    if config.loss in ("contrastive", "pair"):
        return PairObjective(config)
    return ForeignObjective(config, classes, dim)


def _mined(
    embeddings: Tensor, distances: Tensor, labels: Tensor, rows: Tensor, mined: Mined, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """Distances of anchor-positive pairs of the batch and of the anchors' mined negatives, (T,) each.

    A negative that is closer than the positive by more than the relative margin is taken for a mislabelled one.
    """
    negatives = mined.negatives[rows]  # (N, W)
    there = mined.embeddings[negatives.clamp(min=0)]  # (N, W, D)
    to_negative = distance_between(embeddings[:, None, :], there, config.distance)
    is_positive = (labels[:, None] == labels).fill_diagonal_(False)
    anchors, positives = is_positive.nonzero(as_tuple=True)
    to_positive = distances[anchors, positives][:, None].expand(-1, negatives.shape[1])
    candidates = to_negative[anchors]
    is_trusted = candidates.detach() >= (1.0 - config.relative_margin) * to_positive.detach()
    kept = is_trusted & (negatives[anchors] >= 0)
    return to_positive[kept], candidates[kept]


def distance_between(a: Tensor, b: Tensor, distance: Distance) -> Tensor:
    """Distances of unit vectors, row by row, any leading shape: (..., D) and (..., D) -> (...)."""
    squared = (a - b).pow(2).sum(dim=-1)
    if distance == "euclidean":
        return squared.clamp(min=1e-12).sqrt()
    return squared if distance == "squared_euclidean" else squared / 2


def _share(is_active: Tensor) -> float:
    return float(is_active.float().mean()) if is_active.numel() else 0.0
