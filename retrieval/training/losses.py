"""What does a triplet or a pair cost, given its distances? One value each; the mean is a second step."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def triplet_loss(to_positive: Tensor, to_negative: Tensor, *, margin: float = 0.2, soft: bool = False) -> Tensor:
    """Ask of every anchor that its negative be farther than its positive, by a margin.

    max(0, d(a, p) - d(a, n) + margin), or softly log(1 + exp(d(a, p) - d(a, n))), which has no margin and never
    stops pulling.

    Args:
        to_positive: (T,) float, d(a, p), in whichever distance.
        to_negative: (T,) float, d(a, n).
        margin: in units of the distance; not used if `soft`.
        soft: take the soft margin in the hinge's place.

    Returns:
        (T,), each at least 0.

    Raises:
        ValueError: the two differ in shape.

    Source: Schroff et al. 2015, "FaceNet"; soft: Hermans et al. 2017, "In Defense of the Triplet Loss".
    """
    _check_same_shape("to_positive", to_positive, "to_negative", to_negative)
    gap = to_positive - to_negative
    if soft:
        return -functional.logsigmoid(-gap)  # log(1 + exp(gap)), exact for gaps of any size; softplus is not
    return functional.relu(gap + margin)


def tuplet_loss(to_positive: Tensor, to_negatives: Tensor, *, margin: float = 0.2, temperature: float = 0.1) -> Tensor:
    """Ask of every anchor that all its negatives together be farther than its positive, by a margin.

    t * log(1 + sum over n of exp((d(a, p) - d(a, n) + margin) / t)): the soft margin of `triplet_loss` against many
    negatives at once, of which the nearest weigh most; the smaller the temperature t, the more so. As t goes to 0, it
    becomes the hinge with the nearest negative.

    Args:
        to_positive: (T,) float, d(a, p).
        to_negatives: (T, M) float, d(a, n); infinite where there is no negative.
        margin: in units of the distance.
        temperature: t, in units of the distance, above 0.

    Returns:
        (T,), each at least 0; 0 for an anchor without negatives.

    Raises:
        ValueError: the two differ in T.

    Source: Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective" ((N+1)-tuplet loss), on
    distances, with margin and temperature.
    """
    if to_positive.ndim != 1 or to_negatives.ndim != 2 or len(to_negatives) != len(to_positive):
        raise ValueError(
            f"to_positive is {tuple(to_positive.shape)} and to_negatives {tuple(to_negatives.shape)}; "
            "expected (T,) and (T, M)"
        )
    gaps = (to_positive[:, None] - to_negatives + margin) / temperature
    against_nothing = gaps.new_zeros(len(gaps), 1)  # the 1 in the logarithm
    return temperature * torch.cat([against_nothing, gaps], dim=1).logsumexp(dim=1)


def contrastive_loss(distance: Tensor, is_similar: Tensor, *, margin: float = 1.0) -> Tensor:
    """Pull similar pairs together, and push different ones at least a margin apart.

    y * d^2 / 2 + (1 - y) * max(0, margin - d)^2 / 2, y = 1 for a similar pair.

    Args:
        distance: (M,) float; Euclidean in the source.
        is_similar: (M,) bool.
        margin: in units of the distance.

    Returns:
        (M,), each at least 0.

    Raises:
        ValueError: the two differ in shape.

    Source: Hadsell et al. 2006, "Dimensionality Reduction by Learning an Invariant Mapping".
    """
    _check_same_shape("distance", distance, "is_similar", is_similar)
    return torch.where(is_similar, distance**2, functional.relu(margin - distance) ** 2) / 2


def pair_loss(distance: Tensor, is_similar: Tensor, *, slope: Tensor, offset: Tensor) -> Tensor:
    """Classify pairs by their distance: the binary cross-entropy of a logistic function of it.

    -log p for a similar pair and -log(1 - p) for another, p = sigmoid(offset - slope * d). Slope and offset are
    learned along with the embeddings, see `PairClassifier`.

    Args:
        distance: (M,) float.
        is_similar: (M,) bool.
        slope: scalar, above 0.
        offset: scalar.

    Returns:
        (M,), each at least 0.

    Raises:
        ValueError: distance and is_similar differ in shape.
    """
    _check_same_shape("distance", distance, "is_similar", is_similar)
    logits = offset - slope * distance
    return functional.binary_cross_entropy_with_logits(logits, is_similar.to(logits.dtype), reduction="none")


class PairClassifier(nn.Module):
    """The logistic function that `pair_loss` learns: distance -> probability that a pair is similar.

    Its two parameters belong in the optimiser, without weight decay. The slope stays above 0 whatever the optimiser
    does, so that farther is never read as more similar.

    Args:
        threshold: the distance at which a pair is as likely similar as not, to begin with; the default is for
            Euclidean distances of unit vectors, an angle of 60 degrees.
        slope: of the logit, to begin with.

    Raises:
        ValueError: the slope is not above 0.
    """

    def __init__(self, *, threshold: float = 1.0, slope: float = 5.0) -> None:
        super().__init__()
        if not slope > 0:
            raise ValueError(f"slope is {slope}; it must be above 0")
        self.raw_slope = nn.Parameter(torch.tensor(slope + math.log(-math.expm1(-slope))))  # softplus gives slope back
        self.offset = nn.Parameter(torch.tensor(slope * threshold))

    @property
    def slope(self) -> Tensor:
        """Scalar, above 0."""
        return functional.softplus(self.raw_slope)

    def forward(self, distance: Tensor) -> Tensor:
        """Turn (M,) distances into (M,) probabilities."""
        return torch.sigmoid(self.offset - self.slope * distance)


def mean(losses: Tensor) -> Tensor:
    """Average (T,) losses; of none, a zero through which backward still works."""
    return losses.sum() / max(len(losses), 1)


def mean_of_active(losses: Tensor) -> Tensor:
    """Average the losses above 0; where none is, a zero through which backward still works.

    Satisfied triplets then do not dilute the gradient of the few that are left late in a training.

    Args:
        losses: (T,) float, none below 0.
    """
    # The others are 0 and add nothing; a NaN does add, and must show.
    return losses.sum() / (losses > 0).sum().clamp(min=1)


def _check_same_shape(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    # (T,) and (T, 1) would quietly become T x T losses.
    if tensor.shape != other.shape:
        raise ValueError(f"{name} is {tuple(tensor.shape)} and {other_name} {tuple(other.shape)}; expected one shape")
