"""What does a batch cost, and how much of it was worth learning from?

Every objective is called with embeddings (N, D) float32 unit rows, labels (N,) int64, rows (N,) int64 (which pictures
of the training set these are) and the mined negatives, if there are any; its parameters belong in the optimiser.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from retrieval.training.config import PAIR_LOSSES, TrainConfig
from retrieval.training.distances import Distance, distance_matrix
from retrieval.training.foreign_losses import open_foreign_loss
from retrieval.training.losses import (
    PairClassifier,
    contrastive_loss,
    mean,
    mean_of_active,
    pair_loss,
    triplet_loss,
    tuplet_loss,
)
from retrieval.training.miners import (
    Pairs,
    Triplets,
    mine_all,
    mine_distance_weighted,
    mine_hard,
    mine_pairs,
    mine_semi_hard,
)

_LEAST_SQUARED = 1e-12  # the square root has no gradient at 0


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
        embeddings: (T + E, D) of all training pictures, without gradient, renewed batch by batch; then of pictures that
            are not trained on themselves.
        labels: (T + E,) int64, -1 of the latter.
        negatives: (T, W) int64, every training picture's mined rows of `embeddings`, -1 where there is none.
        rejected: (T, V) int64, rows that somebody has said are not the same, -1 likewise; None where nobody has.
    """

    embeddings: Tensor
    labels: Tensor
    negatives: Tensor
    rejected: Tensor | None = None


class TupletObjective(nn.Module):
    """Every anchor against all its negatives at once: those of the batch and the mined ones.

    Its positives are taken one by one, or all together as the nearest of them (softly): a query is answered well if any
    picture of its product is near, and a product's pictures need not all look alike.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self._config = config

    def forward(self, embeddings: Tensor, labels: Tensor, rows: Tensor, mined: Mined | None) -> Cost:
        """Measure a batch; see the module."""
        config = self._config
        distances = distance_matrix(embeddings, embeddings, config.distance)
        is_positive = (labels[:, None] == labels).fill_diagonal_(False)
        if config.positives == "each":
            anchors, positives = is_positive.nonzero(as_tuple=True)
            to_positive = distances[anchors, positives]
        else:
            near = distances.masked_fill(~is_positive, math.inf)
            if mined is not None:
                near = torch.cat([near, _to_known_positives(embeddings, labels, rows, mined, config.distance)], dim=1)
            anchors = near.isfinite().any(dim=1).nonzero().squeeze(1)
            to_positive = -config.temperature * (-near[anchors] / config.temperature).logsumexp(dim=1)
        to_negatives = distances.masked_fill(labels[:, None] == labels, math.inf)
        to_negatives = torch.cat([to_negatives, _to_rejected(embeddings, rows, mined, config.distance)], dim=1)[anchors]
        beyond = None if mined is None else _to_mined(embeddings, rows, mined, config.distance)[anchors]
        return _tuplet_cost(to_positive, to_negatives, beyond, config)


class ProxyObjective(nn.Module):
    """Every picture against a learned place for each class, and against its mined negatives.

    A proxy is where a class's pictures are drawn to; so each step sees the whole catalogue, not the few classes of its
    batch. Proxies begin as the classes' mean embeddings.

    Args:
        config: distance, margin, temperature and relative margin.
        classes: C.
        dim: D.

    Source: Movshovitz-Attias et al. 2017, "No Fuss Distance Metric Learning using Proxies"; with temperature and unit
    proxies as in Zhai and Wu 2019, "Classification is a Strong Baseline for Deep Metric Learning".
    """

    def __init__(self, config: TrainConfig, classes: int, dim: int) -> None:
        super().__init__()
        self._config = config
        self.proxies = nn.Parameter(nn.functional.normalize(torch.randn(classes, dim), dim=1))

    @torch.no_grad()
    def start(self, embeddings: Tensor, labels: Tensor) -> None:
        """Put the proxies at the means of (N, D) embeddings of (N,) labels; classes without any stay at random."""
        sums = torch.zeros_like(self.proxies).index_add_(0, labels, embeddings)
        is_known = sums.norm(dim=1) > 0
        self.proxies[is_known] = nn.functional.normalize(sums[is_known], dim=1)

    def forward(self, embeddings: Tensor, labels: Tensor, rows: Tensor, mined: Mined | None) -> Cost:
        """Measure a batch; see the module."""
        config = self._config
        distances = distance_matrix(embeddings, nn.functional.normalize(self.proxies, dim=1), config.distance)
        to_positive = distances.gather(1, labels[:, None]).squeeze(1)
        to_negatives = distances.scatter(1, labels[:, None], math.inf)
        to_negatives = torch.cat([to_negatives, _to_rejected(embeddings, rows, mined, config.distance)], dim=1)
        beyond = None if mined is None else _to_mined(embeddings, rows, mined, config.distance)
        return _tuplet_cost(to_positive, to_negatives, beyond, config)


class TripletObjective(nn.Module):
    """Triplets of the batch, chosen by a miner, and the same anchors and positives with mined and rejected negatives.

    The latter do not move with the batch, so neither may the positives beside them: these are taken as they were when
    the network last saw them. Else all pictures could run away together from where the catalogue was, and nothing would
    be learned by it. Of the mined negatives those farther than the positive count: with nearer ones, shrinking all
    distances is the cheapest way out.

    Source: semi-hard negatives as in Schroff et al. 2015, "FaceNet"; both sides from the memory as in Wang et al. 2020,
    "Cross-Batch Memory for Embedding Learning".
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self._config = config
        self._generator = torch.Generator()

    def forward(self, embeddings: Tensor, labels: Tensor, rows: Tensor, mined: Mined | None) -> Cost:
        """Measure a batch; see the module."""
        config = self._config
        distances = distance_matrix(embeddings, embeddings, config.distance)
        chosen = self._mine(distances.detach(), labels, embeddings.detach(), rows)
        to_positive = distances[chosen.anchors, chosen.positives]
        to_negative = distances[chosen.anchors, chosen.negatives]
        loss = self._reduced(self._losses(to_positive, to_negative))
        if mined is not None:
            anchors, positives = _positive_pairs(labels)
            of_positive = distance_between(embeddings[anchors], mined.embeddings[rows[positives]], config.distance)
            beyond = _to_mined(embeddings, rows, mined, config.distance)[anchors]
            beyond = beyond.masked_fill(beyond.detach() <= of_positive.detach()[:, None], math.inf)
            for others in (beyond, _to_rejected(embeddings, rows, mined, config.distance)[anchors]):
                kept = others.isfinite()
                loss = loss + self._reduced(self._losses(of_positive[:, None].expand_as(others)[kept], others[kept]))
        return Cost(loss, _share(to_positive + config.loss_margin > to_negative))

    def _losses(self, to_positive: Tensor, to_negative: Tensor) -> Tensor:
        config = self._config
        if config.loss == "triplet":
            return triplet_loss(to_positive, to_negative, margin=config.loss_margin)
        scale = config.temperature
        return scale * triplet_loss((to_positive + config.loss_margin) / scale, to_negative / scale, soft=True)

    def _reduced(self, costs: Tensor) -> Tensor:
        return mean_of_active(costs) if self._config.loss == "triplet" else mean(costs)

    def _mine(self, distances: Tensor, labels: Tensor, embeddings: Tensor, rows: Tensor) -> Triplets:
        miner = self._config.miner
        if miner == "hard":
            return mine_hard(distances, labels)
        if miner == "semi_hard":
            return mine_semi_hard(distances, labels, margin=self._config.loss_margin)
        if miner == "distance_weighted":
            euclidean = distance_matrix(embeddings, embeddings, "euclidean")
            self._generator.manual_seed(int(rows.sum()) + self._config.seed)  # a resumed run draws the same
            return mine_distance_weighted(euclidean, labels, dim=embeddings.shape[1], generator=self._generator)
        return mine_all(labels)


class PairObjective(nn.Module):
    """Pairs of the batch, similar if the labels agree.

    Args:
        config: its loss and margin.
        is_listed: the pairs are those of the first half of the batch with the second, and no others.
    """

    def __init__(self, config: TrainConfig, *, is_listed: bool = False) -> None:
        super().__init__()
        self._config = config
        self._is_listed = is_listed
        self.classifier = PairClassifier() if config.loss == "pair" else None

    def forward(self, embeddings: Tensor, labels: Tensor, rows: Tensor, mined: Mined | None) -> Cost:
        """Measure a batch; see the module."""
        if self._is_listed:
            numbers = torch.arange(len(labels), device=labels.device)
            first, second = numbers.chunk(2)
            pairs = Pairs(first, second, labels[first] == labels[second])
        else:
            pairs = mine_pairs(labels)
        distances = distance_matrix(embeddings, embeddings, "euclidean")[pairs.first, pairs.second]
        return self.cost_of(distances, pairs.is_similar)

    def cost_of(self, distances: Tensor, is_similar: Tensor) -> Cost:
        """The cost of (M,) Euclidean distances of pairs, (M,) bool similar or not."""
        if self.classifier is None:
            costs = contrastive_loss(distances, is_similar, margin=self._config.loss_margin)
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


def open_objective(config: TrainConfig, classes: int, dim: int, *, lists_pairs: bool = False) -> nn.Module:
    """The objective that the configuration names.

    Args:
        config: `loss` and `miner` decide.
        classes: labels are 0 to classes - 1.
        dim: D.
        lists_pairs: batches hold pairs, first pictures first, and not classes.

    Raises:
        TrainingError: pytorch-metric-learning is not installed, or has no loss of that name.
    """
    if config.loss == "proxy":
        return ProxyObjective(config, classes, dim)
    if config.loss == "tuplet":
        return TupletObjective(config)
    if config.loss in ("triplet", "soft_triplet"):
        return TripletObjective(config)
    if config.loss in PAIR_LOSSES:
        return PairObjective(config, is_listed=lists_pairs)
    return ForeignObjective(config, classes, dim)


def _tuplet_cost(to_positive: Tensor, to_negatives: Tensor, beyond: Tensor | None, config: TrainConfig) -> Cost:
    """The tuplet loss of (T,) positives against (T, M) negatives and, where there are any, (T, W) mined ones."""
    if beyond is not None:
        beyond = beyond.masked_fill(~_is_trusted(beyond, to_positive, config.relative_margin), math.inf)
        to_negatives = torch.cat([to_negatives, beyond], dim=1)
    costs = tuplet_loss(to_positive, to_negatives, margin=config.loss_margin, temperature=config.temperature)
    return Cost(mean(costs), _share(to_positive + config.loss_margin > to_negatives.amin(dim=1)))


def _positive_pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of all anchors and their positives in the batch, (T,) each."""
    anchors, positives = (labels[:, None] == labels).fill_diagonal_(False).nonzero(as_tuple=True)
    return anchors, positives


def _to_mined(embeddings: Tensor, rows: Tensor, mined: Mined, distance: Distance) -> Tensor:
    """(N, W) distances of a batch to its mined negatives, infinite where there is none."""
    return _to_rows(embeddings, mined.embeddings, mined.negatives[rows], distance)


def _to_rejected(embeddings: Tensor, rows: Tensor, mined: Mined | None, distance: Distance) -> Tensor:
    """(N, V) distances of a batch to what was rejected for it: whatever these are, no guard against wrong labels."""
    if mined is None or mined.rejected is None:
        return embeddings.new_empty(len(embeddings), 0)
    return _to_rows(embeddings, mined.embeddings, mined.rejected[rows], distance)


def _to_rows(embeddings: Tensor, others: Tensor, numbers: Tensor, distance: Distance) -> Tensor:
    """(N, W) distances of (N, D) to rows of (M, D), by (N, W) numbers of these; infinite where a number is -1."""
    there = others[numbers.clamp(min=0)]  # (N, W, D)
    return distance_between(embeddings[:, None, :], there, distance).masked_fill(numbers < 0, math.inf)


def _to_known_positives(embeddings: Tensor, labels: Tensor, rows: Tensor, mined: Mined, distance: Distance) -> Tensor:
    """(N, T) distances of a batch to all other training pictures of its labels, infinite to the rest."""
    squared = (2.0 - 2.0 * (embeddings @ mined.embeddings.T)).clamp(min=_LEAST_SQUARED)  # of unit rows
    apart = _of_squared(squared, distance)
    is_other = torch.arange(len(mined.labels), device=labels.device) != rows[:, None]
    return apart.masked_fill(~((labels[:, None] == mined.labels) & is_other), math.inf)


def _is_trusted(to_negatives: Tensor, to_positive: Tensor, relative_margin: float) -> Tensor:
    """(T, W) whether a mined negative is not suspiciously closer than the positive, as a mislabelled one would be."""
    return to_negatives.detach() >= (1.0 - relative_margin) * to_positive.detach()[:, None]


def distance_between(a: Tensor, b: Tensor, distance: Distance) -> Tensor:
    """Distances of unit vectors, row by row, any leading shape: (..., D) and (..., D) -> (...)."""
    return _of_squared((a - b).pow(2).sum(dim=-1), distance)


def _of_squared(squared: Tensor, distance: Distance) -> Tensor:
    """A distance of unit vectors, of their squared Euclidean one."""
    if distance == "euclidean":
        return squared.clamp(min=_LEAST_SQUARED).sqrt()
    return squared if distance == "squared_euclidean" else squared / 2


def _share(is_active: Tensor) -> float:
    return float(is_active.float().mean()) if is_active.numel() else 0.0
