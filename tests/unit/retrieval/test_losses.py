"""Distances and losses equal their formulas, have the right gradients, and bear duplicates and empty batches."""

import math
from collections.abc import Callable
from functools import partial
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning import losses as foreign
from pytorch_metric_learning.distances import BaseDistance, CosineSimilarity, LpDistance
from pytorch_metric_learning.reducers import DoNothingReducer
from slow_oracles import slow_contrastive_loss, slow_distance, slow_pair_loss, slow_triplet_loss
from torch import Tensor
from torch.nn import functional

from retrieval.training.distances import Distance, distance_matrix
from retrieval.training.losses import (
    PairClassifier,
    contrastive_loss,
    mean,
    mean_of_active,
    pair_loss,
    triplet_loss,
)
from retrieval.training.miners import mine_all, mine_pairs

DISTANCES = get_args(Distance)
ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-7}
DTYPES = pytest.mark.parametrize("dtype", ROUNDING, ids=str)
SEEDS = st.integers(0, 2**31)

each_distance = pytest.mark.parametrize("distance", DISTANCES)


def random_rows(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_equals_loop(found: Tensor, expected: list[float], dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    wanted = torch.tensor(expected, dtype=torch.float64).view(found.shape)
    torch.testing.assert_close(found.double(), wanted, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])


# Distances


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        # From (3, 4): to (0, 4) the difference is (3, 0); to (6, 8), the same direction, it is (3, 4), of length 5.
        # The cosine to (0, 4) is 16 / (5 * 4) = 0.8.
        ("euclidean", [3.0, 5.0]),
        ("squared_euclidean", [9.0, 25.0]),
        ("cosine", [0.2, 0.0]),
    ],
)
def test_distances_worked_by_hand(distance: Distance, expected: list[float]) -> None:
    found = distance_matrix(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 4.0], [6.0, 8.0]]), distance)
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_distance_is_euclidean_unless_said_otherwise() -> None:
    assert distance_matrix(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])).tolist() == [[5.0]]


@DTYPES
@each_distance
def test_distances_equal_a_slow_loop(distance: Distance, dtype: torch.dtype) -> None:
    a, b = random_rows(1, 5, 7, dtype=dtype), random_rows(2, 3, 7, dtype=dtype)
    expected = [slow_distance(u, v, distance) for u in a.tolist() for v in b.tolist()]

    # bfloat16 rows are measured in float32: nothing is rounded beyond the rows themselves.
    at_least_float32 = torch.float64 if dtype == torch.float64 else torch.float32
    assert_equals_loop(distance_matrix(a, b, distance), expected, at_least_float32)


@each_distance
def test_autocast_does_not_round_distances(distance: Distance) -> None:
    rows = random_rows(3, 4, 16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distance_matrix(rows, rows, distance)
    assert torch.equal(found, distance_matrix(rows, rows, distance))


def test_one_float64_input_makes_the_distances_float64() -> None:
    assert distance_matrix(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.float64)).dtype == torch.float64


@each_distance
def test_equal_rows_are_exactly_zero_apart_with_gradient_zero(distance: Distance) -> None:
    rows = random_rows(4, 1, 64, dtype=torch.float32).repeat(40, 1).requires_grad_()

    found = distance_matrix(rows, rows, distance)
    found.sum().backward()

    assert not found.any()
    assert rows.grad is not None
    assert not rows.grad.any()


@pytest.mark.parametrize(("distance", "expected"), [("euclidean", 1e-4), ("squared_euclidean", 1e-8), ("cosine", 5e-9)])
def test_near_rows_are_told_apart_in_float32(distance: Distance, expected: float) -> None:
    # Two unit rows 1e-4 apart. Their product rounds to 1, and 40 such rows are enough for cdist to use products.
    rows = torch.tensor([[1.0, 0.0], [1.0, 1e-4]]).repeat(20, 1)
    assert distance_matrix(rows, rows, distance)[0, 1].item() == pytest.approx(expected, rel=1e-3)


@each_distance
def test_gradient_of_distances_is_that_of_finite_differences(distance: Distance) -> None:
    a, b = random_rows(5, 4, 3).requires_grad_(), random_rows(6, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(partial(distance_matrix, distance=distance), (a, b))


@given(seed=SEEDS, distance=st.sampled_from(DISTANCES))
def test_rotating_all_embeddings_leaves_distances_unchanged(seed: int, distance: Distance) -> None:
    rows = random_rows(seed, 4, 5)
    rotation, _ = torch.linalg.qr(random_rows(seed + 1, 5, 5))
    before, after = distance_matrix(rows, rows, distance), distance_matrix(rows @ rotation, rows @ rotation, distance)
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)


@given(seed=SEEDS, length=st.floats(0.01, 100))
def test_cosine_distance_does_not_see_the_length_of_rows(seed: int, length: float) -> None:
    a, b = random_rows(seed, 3, 4), random_rows(seed + 1, 2, 4)
    torch.testing.assert_close(distance_matrix(a * length, b, "cosine"), distance_matrix(a, b, "cosine"))


def test_no_rows_have_no_distances() -> None:
    assert distance_matrix(torch.empty(0, 3), torch.ones(2, 3)).shape == (0, 2)


def test_rows_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\), expected \(N, D\) and \(M, D\)"):
        distance_matrix(torch.ones(2, 3), torch.ones(2, 4))


def test_an_unknown_distance_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match='"manhattan"; it must be one of euclidean, squared_euclidean, cosine'):
        distance_matrix(torch.ones(2, 3), torch.ones(2, 3), "manhattan")  # type: ignore[arg-type]


# Triplets


def test_triplet_losses_worked_by_hand() -> None:
    # 0.5 - 0.4 + 0.25 = 0.35; 0.5 - 0.625 + 0.25 = 0.125, within the margin; 0.5 - 1 + 0.25 < 0, satisfied.
    losses = triplet_loss(torch.full((3,), 0.5), torch.tensor([0.4, 0.625, 1.0]), margin=0.25)
    torch.testing.assert_close(losses, torch.tensor([0.35, 0.125, 0.0]))


def test_the_margin_is_a_fifth_unless_said_otherwise() -> None:
    torch.testing.assert_close(triplet_loss(torch.ones(1), torch.ones(1)), torch.tensor([0.2]))


def test_soft_triplet_losses_worked_by_hand() -> None:
    # log(1 + e^0) = log 2; log(1 + e^log 3) = log 4; the margin has no part in it.
    to_positive = torch.tensor([1.0, 1.0 + math.log(3)])
    losses = triplet_loss(to_positive, torch.ones(2), margin=5.0, soft=True)
    torch.testing.assert_close(losses, torch.tensor([math.log(2), math.log(4)]))


@DTYPES
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.5, None])
def test_triplet_losses_equal_a_slow_loop(margin: float | None, dtype: torch.dtype) -> None:
    # Beside usual distances, gaps of +25, -25, +800 and -800: exponentials overflow or vanish.
    to_positive = torch.cat([random_rows(7, 20).abs(), torch.tensor([25.0, 0.0, 800.0, 0.0])]).to(dtype)
    to_negative = torch.cat([random_rows(8, 20).abs(), torch.tensor([0.0, 25.0, 0.0, 800.0])]).to(dtype)

    soft = margin is None
    losses = triplet_loss(to_positive, to_negative, margin=0.2 if margin is None else margin, soft=soft)

    pairs = zip(to_positive.tolist(), to_negative.tolist(), strict=True)
    assert_equals_loop(losses, [slow_triplet_loss(p, n, margin) for p, n in pairs], dtype)


def test_the_soft_margin_keeps_its_last_digits_at_large_gaps() -> None:
    # log(1 + e^25) = 25 + log(1 + e^-25) = 25 + 1.389e-11, which float64 holds; a cut to the linear part does not.
    gap = torch.tensor([25.0], dtype=torch.float64)
    excess = triplet_loss(gap, torch.zeros_like(gap), soft=True) - 25
    assert excess.item() == pytest.approx(math.exp(-25), rel=1e-3)


@pytest.mark.parametrize("soft", [False, True])
def test_gradient_of_triplet_losses_is_that_of_finite_differences(soft: bool) -> None:
    to_positive = (1 + random_rows(9, 12).abs()).requires_grad_()
    to_negative = (1 + random_rows(10, 12).abs()).requires_grad_()
    assert torch.autograd.gradcheck(partial(triplet_loss, margin=0.3, soft=soft), (to_positive, to_negative))


@given(seed=SEEDS, margin=st.floats(100, 1000))
def test_under_a_huge_margin_the_mean_is_the_difference_of_mean_distances_plus_margin(seed: int, margin: float) -> None:
    to_positive, to_negative = random_rows(seed, 9).abs(), random_rows(seed + 1, 9).abs()
    expected = to_positive.mean() - to_negative.mean() + margin
    torch.testing.assert_close(mean(triplet_loss(to_positive, to_negative, margin=margin)), expected)


# pytorch-metric-learning measures cosine as a similarity and turns the difference around.
FOREIGN_DISTANCES: dict[Distance, Callable[[], BaseDistance]] = {
    "euclidean": partial(LpDistance, normalize_embeddings=False),
    "squared_euclidean": partial(LpDistance, normalize_embeddings=False, power=2),
    "cosine": CosineSimilarity,
}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@each_distance
def test_all_triplets_cost_what_pytorch_metric_learning_says(
    distance: Distance, dtype: torch.dtype, soft: bool
) -> None:
    rows = functional.normalize(random_rows(11, 12, 6), dim=1).to(dtype)
    labels = torch.arange(12) % 4
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()

    distances = distance_matrix(ours, ours, distance)
    anchors, positives, negatives = mine_all(labels)
    to_positive, to_negative = distances[anchors, positives], distances[anchors, negatives]
    loss = mean_of_active(triplet_loss(to_positive, to_negative, margin=0.15, soft=soft))
    loss.backward()
    # Its soft margin adds the margin as well.
    oracle = foreign.TripletMarginLoss(
        margin=0.0 if soft else 0.15, smooth_loss=soft, distance=FOREIGN_DISTANCES[distance]()
    )
    expected = oracle(theirs, labels)
    expected.backward()

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_triplet_distances_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"to_positive is \(3,\) and to_negative \(3, 1\)"):
        triplet_loss(torch.ones(3), torch.ones(3, 1))


# Contrastive


def test_contrastive_losses_worked_by_hand() -> None:
    # Similar at 0.5: 0.25 / 2. Different at 0.5, margin 1.5: 1^2 / 2. Different at 2: beyond the margin.
    losses = contrastive_loss(torch.tensor([0.5, 0.5, 2.0]), torch.tensor([True, False, False]), margin=1.5)
    assert losses.tolist() == [0.125, 0.5, 0.0]


def test_the_contrastive_margin_is_1_unless_said_otherwise() -> None:
    assert contrastive_loss(torch.zeros(1), torch.tensor([False])).item() == 0.5


@DTYPES
@pytest.mark.parametrize("margin", [0.0, 0.5, 2.0])
def test_contrastive_losses_equal_a_slow_loop(margin: float, dtype: torch.dtype) -> None:
    distance, is_similar = random_rows(12, 30, dtype=dtype).abs(), random_rows(13, 30) > 0

    losses = contrastive_loss(distance, is_similar, margin=margin)

    pairs = zip(distance.tolist(), is_similar.tolist(), strict=True)
    assert_equals_loop(losses, [slow_contrastive_loss(d, int(y), margin) for d, y in pairs], dtype)


def test_gradient_of_contrastive_losses_is_that_of_finite_differences() -> None:
    distance, is_similar = random_rows(14, 12).abs().requires_grad_(), random_rows(15, 12) > 0
    assert torch.autograd.gradcheck(lambda d: contrastive_loss(d, is_similar, margin=0.8), (distance,))


def test_contrastive_losses_are_half_the_squares_of_those_of_pytorch_metric_learning() -> None:
    # It takes max(0, d) and max(0, margin - d) themselves, over every ordered pair: each of ours twice.
    rows = functional.normalize(random_rows(16, 10, 5), dim=1)
    labels = torch.arange(10) % 3
    first, second, is_similar = mine_pairs(labels)

    losses = contrastive_loss(distance_matrix(rows, rows)[first, second], is_similar, margin=1.2)

    oracle = foreign.ContrastiveLoss(pos_margin=0, neg_margin=1.2, reducer=DoNothingReducer())(rows, labels)
    for name, expected in (("pos_loss", losses[is_similar]), ("neg_loss", losses[~is_similar])):
        squares = oracle[name]["losses"] ** 2 / 2
        torch.testing.assert_close(squares.sort().values, expected.repeat(2).sort().values)


def test_pairs_and_labels_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"distance is \(2,\) and is_similar \(2, 1\)"):
        contrastive_loss(torch.ones(2), torch.ones(2, 1, dtype=torch.bool))


# Pair classification


def test_pair_losses_worked_by_hand() -> None:
    # Slope and offset log 3: at distance 0 p = 3 / (3 + 1) = 3/4, at distance 2 the logit is -log 3 and p = 1/4.
    log_3 = torch.tensor(math.log(3))
    is_similar = torch.tensor([True, False, True, False])
    losses = pair_loss(torch.tensor([0.0, 0.0, 2.0, 2.0]), is_similar, slope=log_3, offset=log_3)
    torch.testing.assert_close(losses, -torch.tensor([3 / 4, 1 / 4, 1 / 4, 3 / 4]).log())


@DTYPES
def test_pair_losses_equal_a_slow_loop(dtype: torch.dtype) -> None:
    distance, is_similar = random_rows(17, 30, dtype=dtype).abs(), random_rows(18, 30) > 0
    slope, offset = torch.tensor(2.5, dtype=dtype), torch.tensor(1.25, dtype=dtype)

    losses = pair_loss(distance, is_similar, slope=slope, offset=offset)

    pairs = zip(distance.tolist(), is_similar.tolist(), strict=True)
    assert_equals_loop(losses, [slow_pair_loss(d, int(y), 2.5, 1.25) for d, y in pairs], dtype)


def test_pair_losses_of_far_logits_are_exact_and_finite() -> None:
    # The logits are 1000 and -1000: where the class is wrong, the loss is the logit's size, elsewhere 0.
    distance = torch.tensor([0.0, 0.0, 2.0, 2.0], requires_grad=True)
    is_similar = torch.tensor([True, False, True, False])

    losses = pair_loss(distance, is_similar, slope=torch.tensor(1000.0), offset=torch.tensor(1000.0))
    losses.sum().backward()

    assert losses.tolist() == [0.0, 1000.0, 1000.0, 0.0]
    assert distance.grad is not None
    assert distance.grad.tolist() == [0.0, -1000.0, 1000.0, 0.0]


def test_gradient_of_pair_losses_is_that_of_finite_differences() -> None:
    is_similar = random_rows(19, 12) > 0
    inputs = (random_rows(20, 12).abs(), torch.tensor(1.5).double(), torch.tensor(0.5).double())

    def losses(distance: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
        return pair_loss(distance, is_similar, slope=slope, offset=offset)

    assert torch.autograd.gradcheck(losses, [tensor.requires_grad_() for tensor in inputs])


def test_pair_distances_and_labels_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"distance is \(2,\) and is_similar \(2, 1\)"):
        pair_loss(torch.ones(2), torch.ones(2, 1, dtype=torch.bool), slope=torch.ones(()), offset=torch.ones(()))


def test_a_new_classifier_has_the_slope_and_threshold_asked_for() -> None:
    classifier = PairClassifier(threshold=0.5, slope=4.0)
    # sigmoid(0) = 1/2 at the threshold; one half below it the logit is 4 * 0.5 = 2.
    torch.testing.assert_close(classifier(torch.tensor([0.5, 0.0])), torch.sigmoid(torch.tensor([0.0, 2.0])))
    torch.testing.assert_close(classifier.slope, torch.tensor(4.0))


@pytest.mark.parametrize("slope", [1e-3, 5.0, 200.0])
def test_any_slope_above_zero_can_be_asked_for(slope: float) -> None:
    assert PairClassifier(slope=slope).slope.item() == pytest.approx(slope, rel=1e-4)


def test_a_slope_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="slope is 0; it must be above 0"):
        PairClassifier(slope=0)


def test_the_slope_stays_above_zero_whatever_is_learned() -> None:
    classifier = PairClassifier()
    optimiser = torch.optim.SGD(classifier.parameters(), lr=10.0)
    for _ in range(3):  # pairs labelled the wrong way round pull the slope below 0
        optimiser.zero_grad()
        losses = pair_loss(
            torch.tensor([0.0, 2.0]),
            torch.tensor([False, True]),
            slope=classifier.slope,
            offset=classifier.offset,
        )
        mean(losses).backward()
        optimiser.step()
    assert classifier.raw_slope.item() < 0 < classifier.slope.item()


def test_a_classifier_learns_where_similar_pairs_end() -> None:
    distance = torch.cat([torch.linspace(0.1, 0.5, 20), torch.linspace(0.6, 1.4, 20)])
    is_similar = torch.arange(40) < 20
    classifier = PairClassifier(threshold=1.2)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        mean(pair_loss(distance, is_similar, slope=classifier.slope, offset=classifier.offset)).backward()
        optimiser.step()
    assert ((classifier(distance) > 0.5) == is_similar).all()


# Means


def test_mean_counts_every_loss() -> None:
    assert mean(torch.tensor([0.0, 0.0, 1.0, 3.0])).item() == 1.0


def test_mean_of_active_counts_losses_above_zero() -> None:
    assert mean_of_active(torch.tensor([0.0, 0.0, 1.0, 3.0])).item() == 2.0


@pytest.mark.parametrize("reduce", [mean, mean_of_active])
def test_the_mean_of_no_losses_is_a_zero_that_can_be_differentiated(reduce: Callable[[Tensor], Tensor]) -> None:
    rows = torch.ones(3, 2, requires_grad=True)
    none = torch.empty(0, dtype=torch.int64)
    distances = distance_matrix(rows, rows)

    loss = reduce(triplet_loss(distances[none, none], distances[none, none]))
    loss.backward()

    assert loss.item() == 0
    assert rows.grad is not None
    assert not rows.grad.any()


def test_the_mean_of_active_is_a_zero_that_can_be_differentiated_where_all_are_satisfied() -> None:
    to_negative = torch.full((2,), 9.0, requires_grad=True)
    loss = mean_of_active(triplet_loss(torch.ones(2), to_negative))
    loss.backward()
    assert loss.item() == 0
    assert to_negative.grad is not None
    assert not to_negative.grad.any()


@pytest.mark.parametrize("reduce", [mean, mean_of_active])
def test_a_loss_that_is_no_number_shows_in_the_mean(reduce: Callable[[Tensor], Tensor]) -> None:
    assert reduce(torch.tensor([0.0, 1.0, math.nan])).isnan()


# Duplicate points

PAIRS_OF_FOUR = mine_pairs(torch.tensor([0, 0, 1, 1]))
TRIPLETS_OF_FOUR = mine_all(torch.tensor([0, 0, 1, 1]))


def _triplets(distances: Tensor, soft: bool) -> Tensor:
    anchors, positives, negatives = TRIPLETS_OF_FOUR
    return triplet_loss(distances[anchors, positives], distances[anchors, negatives], soft=soft)


def _contrastive(distances: Tensor) -> Tensor:
    return contrastive_loss(distances[PAIRS_OF_FOUR.first, PAIRS_OF_FOUR.second], PAIRS_OF_FOUR.is_similar)


def _pairs(distances: Tensor) -> Tensor:
    classifier = PairClassifier()
    distance = distances[PAIRS_OF_FOUR.first, PAIRS_OF_FOUR.second]
    return pair_loss(distance, PAIRS_OF_FOUR.is_similar, slope=classifier.slope, offset=classifier.offset)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize(
    "losses_of",
    [partial(_triplets, soft=False), partial(_triplets, soft=True), _contrastive, _pairs],
    ids=["hinge", "soft", "contrastive", "pairs"],
)
@each_distance
def test_duplicates_have_finite_losses_and_gradients(
    distance: Distance, losses_of: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    # Rows 0 and 1 are equal with one label, rows 1 and 2 with two, row 3 is nearly so.
    rows = random_rows(21, 1, 8, dtype=dtype).repeat(4, 1)
    rows[3, 0] *= 1.01
    rows.requires_grad_()

    loss = mean(losses_of(distance_matrix(rows, rows, distance)))
    loss.backward()

    assert loss.item() > 0
    assert rows.grad is not None
    assert rows.grad.isfinite().all()
