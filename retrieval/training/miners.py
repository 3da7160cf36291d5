"""Which triplets or pairs of a batch are worth learning from?

All miners are functions of distances and labels; no gradient flows through the choice. Anchors with no positive or no
negative are left out, and a result may be empty. Of equal candidates the one with the lowest index is taken.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

# As in the code of Wu et al. 2017: below the first, weights would let a few noisy negatives dominate; from the second
# on, a negative costs nothing.
NEAREST_WEIGHTED = 0.5
FARTHEST_WEIGHTED = 1.4


class Triplets(NamedTuple):
    """Rows of a batch, (T,) int64 each: the t-th triplet is (anchors[t], positives[t], negatives[t])."""

    anchors: Tensor
    positives: Tensor
    negatives: Tensor


class Pairs(NamedTuple):
    """Rows of a batch, (M,) int64 each, and whether the m-th pair (first[m], second[m]) shares its label, (M,) bool."""

    first: Tensor
    second: Tensor
    is_similar: Tensor


@torch.no_grad()
def mine_pairs(labels: Tensor) -> Pairs:
    """Take every two rows once, first < second.

    Args:
        labels: (N,) int64.

    Returns:
        `Pairs`, M = N * (N - 1) / 2, in ascending order.
    """
    first, second = torch.triu_indices(len(labels), len(labels), offset=1, device=labels.device)
    return Pairs(first, second, labels[first] == labels[second])


@torch.no_grad()
def mine_all(labels: Tensor) -> Triplets:
    """Take every triplet there is.

    Args:
        labels: (N,) int64.

    Returns:
        `Triplets` in ascending order; P classes of K rows give T = P * K * (K - 1) * (P - 1) * K.
    """
    is_positive, is_negative = _relations(labels)
    anchors, positives = is_positive.nonzero(as_tuple=True)
    pairs, negatives = is_negative[anchors].nonzero(as_tuple=True)
    return Triplets(anchors[pairs], positives[pairs], negatives)


@torch.no_grad()
def mine_semi_hard(distances: Tensor, labels: Tensor, *, margin: float) -> Triplets:
    """Give every anchor-positive pair the nearest negative that is farther than the positive, by less than the margin.

    So every triplet costs something, and none more than the margin: d(a, p) < d(a, n) < d(a, p) + margin. Pairs for
    which no negative is so are left out.

    Args:
        distances: (N, N) float, row i from anchor i.
        labels: (N,) int64.
        margin: of the loss, in units of the distance.

    Returns:
        `Triplets` in ascending order, T at most the number of anchor-positive pairs.

    Raises:
        ValueError: `distances` and `labels` disagree on N.

    Source: Schroff et al. 2015, "FaceNet", section 3.2, on squared Euclidean distances.
    """
    _check_batch(distances, labels)
    is_positive, is_negative = _relations(labels)
    anchors, positives = is_positive.nonzero(as_tuple=True)
    gaps = distances[anchors] - distances[anchors, positives][:, None]  # (pairs, N), as the loss computes them
    is_semi_hard = is_negative[anchors] & (gaps > 0) & (gaps < margin)
    negatives = _nearest(distances[anchors], is_semi_hard)
    is_kept = is_semi_hard.any(dim=1)
    return Triplets(anchors[is_kept], positives[is_kept], negatives[is_kept])


@torch.no_grad()
def mine_hard(distances: Tensor, labels: Tensor) -> Triplets:
    """Pair every anchor with its farthest positive and nearest negative in the batch.

    The quickest teacher of a network that already separates the classes somewhat, and a danger to one that does not:
    where most negatives are nearer than the positives, all embeddings at one point are a way out (every distance 0,
    every hinge loss exactly the margin, gradient 0) and training collapses. Begin with semi-hard negatives or the soft
    margin there. Wrong labels and near-duplicates across labels are what it finds first.

    Args:
        distances: (N, N) float, row i from anchor i.
        labels: (N,) int64.

    Returns:
        `Triplets` in ascending order of anchors, one for each, T <= N.

    Raises:
        ValueError: `distances` and `labels` disagree on N.

    Source: Hermans et al. 2017, "In Defense of the Triplet Loss" (Batch Hard).
    """
    _check_batch(distances, labels)
    is_positive, is_negative = _relations(labels)
    positives = _nearest(-distances, is_positive)
    negatives = _nearest(distances, is_negative)
    anchors = (is_positive.any(dim=1) & is_negative.any(dim=1)).nonzero().squeeze(1)
    return Triplets(anchors, positives[anchors], negatives[anchors])


@torch.no_grad()
def mine_distance_weighted(distances: Tensor, labels: Tensor, *, dim: int, generator: torch.Generator) -> Triplets:
    """Draw for every anchor-positive pair one negative, so that near and far ones come equally often.

    Random points on a sphere of many dimensions are nearly all sqrt(2) apart. Negatives are therefore drawn with
    weight 1 / q(d), where q(d) ~ d^(dim - 2) * (1 - d^2 / 4)^((dim - 3) / 2) is the density of that distance. Those
    nearer than `NEAREST_WEIGHTED` weigh as if they were that far, those at `FARTHEST_WEIGHTED` or beyond are not
    drawn; anchors with none nearer are left out.

    Args:
        distances: (N, N) float, Euclidean between unit rows.
        labels: (N,) int64.
        dim: D of the embeddings, at least 2.
        generator: the draw; may live on another device than the batch.

    Returns:
        `Triplets` in ascending order of anchors and positives, T at most the number of anchor-positive pairs.

    Raises:
        ValueError: `distances` and `labels` disagree on N.

    Source: Wu et al. 2017, "Sampling Matters in Deep Embedding Learning", section 4.
    """
    _check_batch(distances, labels)
    is_positive, is_negative = _relations(labels)
    is_drawable = is_negative & (distances < FARTHEST_WEIGHTED)
    anchors, positives = (is_positive & is_drawable.any(dim=1, keepdim=True)).nonzero(as_tuple=True)
    # Normalised row by row in logarithms: at 256 dimensions 1 / q(0.5) is 10^80 times 1 / q(1.4).
    weights = _log_inverse_density(distances, dim).masked_fill(~is_drawable, -math.inf)[anchors].softmax(dim=1)
    negatives = _draw(weights, generator).to(labels.device)
    return Triplets(anchors, positives, negatives)


def _relations(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Who is a positive and who a negative of whom: two (N, N) bool, both False on the diagonal."""
    is_same = labels[:, None] == labels
    return is_same.clone().fill_diagonal_(False), ~is_same


def _nearest(distances: Tensor, is_candidate: Tensor) -> Tensor:
    """Column of the smallest candidate in each row, the first of equals; anything in rows without a candidate."""
    if not distances.numel():  # argmin refuses an empty row
        return torch.zeros(len(distances), dtype=torch.int64, device=distances.device)
    return distances.masked_fill(~is_candidate, math.inf).argmin(dim=1)


def _log_inverse_density(distances: Tensor, dim: int) -> Tensor:
    """-log q(d), up to a constant, in at least float32; NaN beyond 2, where no two points of the sphere are."""
    d = distances.to(torch.promote_types(distances.dtype, torch.float32)).clamp(min=NEAREST_WEIGHTED)
    return -(dim - 2) * d.log() - (dim - 3) / 2 * torch.log1p(-(d**2) / 4)


def _draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    """One column of each row, with the given probability; on the generator's device."""
    if not weights.numel():  # multinomial refuses an empty row
        return torch.zeros(len(weights), dtype=torch.int64, device=generator.device)
    return torch.multinomial(weights.to(generator.device), 1, generator=generator).squeeze(1)


def _check_batch(distances: Tensor, labels: Tensor) -> None:
    if distances.shape != (len(labels), len(labels)):
        raise ValueError(f"distances are {tuple(distances.shape)} for {len(labels)} labels, expected (N, N) and (N,)")
