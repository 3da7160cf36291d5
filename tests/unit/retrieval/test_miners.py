"""Miners choose what slow loops and pytorch-metric-learning choose, ties, empty batches and duplicates included."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning import miners as foreign
from pytorch_metric_learning.utils import loss_and_miner_utils
from slow_oracles import Triplet, slow_draw_weights, slow_hard, slow_semi_hard, slow_triplets
from torch import Tensor
from torch.nn import functional

from retrieval.training.distances import distance_matrix
from retrieval.training.losses import triplet_loss
from retrieval.training.miners import (
    Triplets,
    mine_all,
    mine_distance_weighted,
    mine_hard,
    mine_pairs,
    mine_semi_hard,
)

SEEDS = st.integers(0, 2**31)
LABELS = st.lists(st.integers(0, 3), max_size=8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def listed(triplets: Triplets) -> list[Triplet]:
    assert all(rows.dtype == torch.int64 and not rows.requires_grad for rows in triplets)
    return list(zip(*(rows.tolist() for rows in triplets), strict=True))


def as_labels(labels: list[int]) -> Tensor:
    return torch.tensor(labels, dtype=torch.int64)


def unit_rows(seed: int, count: int, dim: int) -> Tensor:
    return functional.normalize(torch.randn(count, dim, generator=generator(seed), dtype=torch.float64), dim=1)


def on_a_line(*places: float) -> Tensor:
    return distance_matrix(torch.tensor(places)[:, None], torch.tensor(places)[:, None])


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, list[int]]:
    """Distances from few values, so that ties are the rule, and not symmetric, so that rows cannot pass as columns."""
    labels = draw(LABELS)
    value = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1.25])
    row = st.lists(value, min_size=len(labels), max_size=len(labels))
    distances = draw(st.lists(row, min_size=len(labels), max_size=len(labels)))
    return torch.tensor(distances).view(len(labels), len(labels)), labels


# The few values are exact in each.
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


# All triplets, all pairs


def test_all_triplets_worked_by_hand() -> None:
    # 0 and 1 share a label, 2 has its own: it is a negative of both, and no anchor.
    assert listed(mine_all(as_labels([5, 5, 7]))) == [(0, 1, 2), (1, 0, 2)]


@given(LABELS)
def test_all_triplets_equal_a_slow_loop(labels: list[int]) -> None:
    assert listed(mine_all(as_labels(labels))) == slow_triplets(labels)


@given(classes=st.integers(1, 5), pictures=st.integers(1, 4))
def test_all_triplets_of_equal_classes_are_as_many_as_the_formula_says(classes: int, pictures: int) -> None:
    labels = torch.arange(classes).repeat_interleave(pictures)
    count = classes * pictures * (pictures - 1) * (classes - 1) * pictures
    assert len(mine_all(labels).anchors) == count


def test_all_triplets_are_those_of_pytorch_metric_learning() -> None:
    labels = torch.randint(0, 5, (20,), generator=generator())
    expected = Triplets(*loss_and_miner_utils.get_all_triplets_indices(labels))
    assert listed(mine_all(labels)) == listed(expected)


def test_all_pairs_worked_by_hand() -> None:
    first, second, is_similar = mine_pairs(as_labels([5, 7, 5]))
    assert first.tolist() == [0, 0, 1]
    assert second.tolist() == [1, 2, 2]
    assert is_similar.tolist() == [False, True, False]


@given(LABELS)
def test_all_pairs_equal_a_slow_loop(labels: list[int]) -> None:
    expected = [(i, j, labels[i] == labels[j]) for i in range(len(labels)) for j in range(i + 1, len(labels))]
    pairs = mine_pairs(as_labels(labels))
    assert list(zip(*(column.tolist() for column in pairs), strict=True)) == expected
    assert [column.dtype for column in pairs] == [torch.int64, torch.int64, torch.bool]


# Semi-hard


def test_semi_hard_triplets_worked_by_hand() -> None:
    # Anchor 0 at 0, its positive 1 at 1; negatives of two labels at 0.5 (nearer than the positive), 1.25 and 1.125.
    # From 0, gaps to the positive's 1: -0.5, 0.25, 0.125: 4 is the nearest of the semi-hard two.
    # From 1, the positive is 1 away, the negatives 0.5, 0.25 and 0.125: all nearer, so the pair is left out.
    # From 3, the positive 4 is 0.125 away, the negatives 1.25 and 0.25: a gap of 0.125 to 1, again within the margin.
    # From 4, the positive 3 is 0.125 away, the negatives 1.125, 0.125 (as far as the positive: not farther) and 0.625:
    # a gap of 0.5, which is not below the margin.
    distances = on_a_line(0, 1, 0.5, 1.25, 1.125)
    assert listed(mine_semi_hard(distances, as_labels([0, 0, 1, 2, 2]), margin=0.5)) == [(0, 1, 4), (3, 4, 1)]


def test_a_negative_exactly_as_far_as_the_positive_is_not_semi_hard() -> None:
    assert listed(mine_semi_hard(on_a_line(0, 1, -1), as_labels([0, 0, 1]), margin=0.5)) == []


def test_a_negative_exactly_at_the_margin_is_not_semi_hard() -> None:
    # Its hinge loss would be 1 - 1.5 + 0.5 = 0.
    assert listed(mine_semi_hard(on_a_line(0, 1, -1.5), as_labels([0, 0, 1]), margin=0.5)) == []


def test_of_two_nearest_negatives_the_first_is_semi_hard() -> None:
    # Rows 2 and 3 are at the same place, 1.25 from row 0; row 1 has no negative farther than its positive.
    distances = on_a_line(0, 1, -1.25, -1.25)
    assert (0, 1, 2) in listed(mine_semi_hard(distances, as_labels([0, 0, 1, 2]), margin=0.5))


@given(batch=batches(), margin=st.sampled_from([0.0, 0.25, 0.5, 1.0]), dtype=DTYPES)
def test_semi_hard_triplets_equal_a_slow_loop(
    batch: tuple[Tensor, list[int]], margin: float, dtype: torch.dtype
) -> None:
    distances, labels = batch
    found = mine_semi_hard(distances.to(dtype), as_labels(labels), margin=margin)
    assert listed(found) == slow_semi_hard(distances.tolist(), labels, margin)


@given(seed=SEEDS, dtype=DTYPES)
def test_every_semi_hard_triplet_costs_something_and_less_than_the_margin(seed: int, dtype: torch.dtype) -> None:
    distances = torch.rand(9, 9, generator=generator(seed)).to(dtype)
    anchors, positives, negatives = mine_semi_hard(distances, torch.arange(9) % 3, margin=0.25)
    losses = triplet_loss(distances[anchors, positives], distances[anchors, negatives], margin=0.25)
    assert ((losses > 0) & (losses < 0.25 + torch.finfo(dtype).eps)).all()


def test_semi_hard_triplets_are_the_nearest_of_those_of_pytorch_metric_learning() -> None:
    rows, labels = unit_rows(1, 30, 4), torch.arange(30) % 6
    distances = distance_matrix(rows, rows)
    oracle = listed(Triplets(*foreign.TripletMarginMiner(margin=0.3, type_of_triplets="semihard")(rows, labels)))
    nearest: dict[tuple[int, int], int] = {}
    for a, p, n in oracle:
        nearest[a, p] = min(n, nearest.get((a, p), n), key=distances[a].__getitem__)

    found = listed(mine_semi_hard(distances, labels, margin=0.3))

    assert found == [(a, p, n) for (a, p), n in sorted(nearest.items())]
    assert 0 < len(found) < 30 * 4


# Hard


def test_hard_triplets_worked_by_hand() -> None:
    # Label 0 at 0, 1 and 3; label 1 at 4 and 10. From 0 the farthest positive is 3 (row 2), the nearest negative 4
    # (row 3); from 1: 3 is 2 away and 0 only 1; from 3: 0. From 4 and 10 the nearest negative is 3.
    distances = on_a_line(0, 1, 3, 4, 10)
    expected = [(0, 2, 3), (1, 2, 3), (2, 0, 3), (3, 4, 2), (4, 3, 2)]
    assert listed(mine_hard(distances, as_labels([0, 0, 0, 1, 1]))) == expected


@given(batch=batches(), dtype=DTYPES)
def test_hard_triplets_equal_a_slow_loop(batch: tuple[Tensor, list[int]], dtype: torch.dtype) -> None:
    distances, labels = batch
    assert listed(mine_hard(distances.to(dtype), as_labels(labels))) == slow_hard(distances.tolist(), labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_hard_triplets_are_those_of_pytorch_metric_learning(dtype: torch.dtype) -> None:
    rows, labels = unit_rows(2, 40, 8).to(dtype), torch.randint(0, 12, (40,), generator=generator(3))
    expected = Triplets(*foreign.BatchHardMiner()(rows, labels))
    assert listed(mine_hard(distance_matrix(rows, rows), labels)) == listed(expected)


# Distance-weighted

# 200 anchors at one point give 200 * 199 draws in one call, each among the same negatives.
ANCHORS = 200
TO_NEGATIVES = [0.3, 0.5, 0.9, 1.3, 1.4, 1.9]


def shares_drawn(to_negatives: list[float], dim: int, dtype: torch.dtype = torch.float32) -> tuple[list[float], int]:
    """How often each negative was drawn, and of how many draws."""
    distances = torch.tensor([[0.0] * ANCHORS + to_negatives] * (ANCHORS + len(to_negatives)))
    # The negatives have a label each, so none is an anchor.
    labels = as_labels([0] * ANCHORS + list(range(1, len(to_negatives) + 1)))
    anchors, _, negatives = mine_distance_weighted(distances.to(dtype), labels, dim=dim, generator=generator())
    counts = torch.bincount(negatives - ANCHORS, minlength=len(to_negatives))
    return (counts / len(anchors)).tolist(), len(anchors)


def test_draws_worked_by_hand() -> None:
    # At dim 3 the density is d, so negatives at 0.5 and 1 are drawn 2 : 1.
    shares, draws = shares_drawn([0.5, 1.0], dim=3)
    assert draws == 200 * 199
    assert shares[0] == pytest.approx(2 / 3, abs=4 * math.sqrt(2 / 9 / draws))


@pytest.mark.parametrize("dim", [2, 3, 4, 6])
def test_negatives_are_drawn_as_a_slow_loop_weighs_them(dim: int) -> None:
    shares, draws = shares_drawn(TO_NEGATIVES, dim)
    for share, weight in zip(shares, slow_draw_weights(TO_NEGATIVES, dim), strict=True):
        assert share == pytest.approx(weight, abs=4 * math.sqrt(weight * (1 - weight) / draws))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_weights_are_not_rounded_with_the_distances(dtype: torch.dtype) -> None:
    # Neighbours in bfloat16; the logarithms of their weights at 256 dimensions differ by 0.6, and are sums of values
    # near 60, which bfloat16 rounds to steps of 0.25.
    to_negatives = [1.25, 1.2578125, 1.265625]
    shares, draws = shares_drawn(to_negatives, 256, dtype)
    for share, weight in zip(shares, slow_draw_weights(to_negatives, 256), strict=True):
        assert share == pytest.approx(weight, abs=4 * math.sqrt(weight * (1 - weight) / draws))


def test_a_negative_is_drawn_by_its_distance_from_the_anchor() -> None:
    # From row 0 only row 2 is near enough (1.2; row 3: 2.6), from its positive, row 1, only row 3 (1.3; row 2: 2.5).
    distances, labels = on_a_line(0, 1.3, -1.2, 2.6), as_labels([0, 0, 1, 2])
    found = mine_distance_weighted(distances, labels, dim=8, generator=generator())
    assert listed(found) == [(0, 1, 2), (1, 0, 3)]


def test_the_slow_loop_weighs_as_pytorch_metric_learning_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = unit_rows(4, 20, 4), torch.arange(20) % 5
    distances = distance_matrix(rows, rows)
    seen: list[Tensor] = []
    monkeypatch.setattr(
        loss_and_miner_utils,
        "get_random_triplet_indices",
        lambda labels, ref_labels, weights: seen.append(weights) or (labels, labels, labels),
    )
    foreign.DistanceWeightedMiner()(rows, labels)

    for anchor in range(20):
        negatives = labels != labels[anchor]
        expected = slow_draw_weights(distances[anchor, negatives].tolist(), dim=4)
        assert seen[0][anchor, negatives].tolist() == pytest.approx(expected)


def test_every_pair_draws_one_negative_in_order() -> None:
    rows, labels = unit_rows(5, 24, 3), torch.arange(24) % 4
    found = listed(mine_distance_weighted(distance_matrix(rows, rows), labels, dim=3, generator=generator()))
    # In three dimensions every anchor has a negative nearer than 1.4 here.
    assert [(a, p) for a, p, _ in found] == sorted({(a, p) for a, p, _ in slow_triplets(labels.tolist())})
    assert set(found) <= set(slow_triplets(labels.tolist()))


def test_draws_of_one_anchor_differ_between_its_pairs() -> None:
    negatives = mine_distance_weighted(
        torch.ones(12, 12), as_labels([0] * 6 + list(range(1, 7))), dim=8, generator=generator()
    ).negatives
    assert len(negatives.unique()) > 1


def test_equal_generators_draw_equal_triplets_and_go_on_differently() -> None:
    rows, labels = unit_rows(6, 30, 3), torch.arange(30) % 3
    draw = partial(mine_distance_weighted, distance_matrix(rows, rows), labels, dim=3)
    one, other = generator(1), generator(1)
    first = listed(draw(generator=one))
    assert first == listed(draw(generator=other))
    assert first != listed(draw(generator=one))


def test_anchors_without_a_negative_near_enough_are_left_out() -> None:
    # Rows 0 and 1 at 0, 2 and 3 at 1.5, 4 at 0.25: from 2 and 3 the nearest negative, row 4, is 1.25 away; from 0 and 1
    # row 4, 0.25. Without row 4 nothing is left.
    distances = on_a_line(0, 0, 1.5, 1.5, 0.25)
    labels = as_labels([0, 0, 1, 1, 2])
    draw = partial(mine_distance_weighted, dim=8, generator=generator())
    assert listed(draw(distances, labels)) == [(0, 1, 4), (1, 0, 4), (2, 3, 4), (3, 2, 4)]
    assert listed(draw(distances[:4, :4], labels[:4])) == []
    # With row 4 at -0.25 it is 1.75 from rows 2 and 3, which are left out.
    assert listed(draw(on_a_line(0, 0, 1.5, 1.5, -0.25), labels)) == [(0, 1, 4), (1, 0, 4)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_weights_do_not_vanish_in_many_dimensions(dtype: torch.dtype) -> None:
    # At 1280 dimensions a negative at 0.5 weighs 10^350 times one at 1.25, yet rows 2 and 3, whose only near negatives
    # are 1.25 away, draw those.
    far = 1.5
    distances = torch.full((6, 6), far)
    distances[0, 4] = distances[1, 4] = 0.5
    distances[2, 5] = distances[3, 5] = 1.25
    labels = as_labels([0, 0, 1, 1, 2, 3])
    found = mine_distance_weighted(distances.to(dtype), labels, dim=1280, generator=generator())
    assert listed(found) == [(0, 1, 4), (1, 0, 4), (2, 3, 5), (3, 2, 5)]


# What all miners of triplets share

MinerOfDistances = Callable[[Tensor, Tensor], Triplets]

CHOOSING: dict[str, MinerOfDistances] = {
    "all": lambda _, labels: mine_all(labels),
    "semi-hard": partial(mine_semi_hard, margin=0.4),
    "hard": mine_hard,
}
EVERY: dict[str, MinerOfDistances] = {
    **CHOOSING,
    "distance-weighted": lambda distances, labels: mine_distance_weighted(
        distances, labels, dim=5, generator=generator()
    ),
}
every_miner = pytest.mark.parametrize("mine", EVERY.values(), ids=EVERY.keys())
choosing_miner = pytest.mark.parametrize("mine", CHOOSING.values(), ids=CHOOSING.keys())


@choosing_miner
@given(seed=SEEDS)
def test_permuting_the_batch_permutes_the_triplets(mine: MinerOfDistances, seed: int) -> None:
    rows, labels = unit_rows(seed, 12, 5), torch.randint(0, 4, (12,), generator=generator(seed))
    order = torch.randperm(12, generator=generator(seed))
    distances = distance_matrix(rows, rows)

    permuted = mine(distances[order][:, order], labels[order])

    assert sorted(listed(Triplets(*(order[rows] for rows in permuted)))) == listed(mine(distances, labels))


@choosing_miner
@given(seed=SEEDS)
def test_rotating_all_embeddings_leaves_the_triplets_unchanged(mine: MinerOfDistances, seed: int) -> None:
    rows, labels = unit_rows(seed, 12, 5), torch.randint(0, 4, (12,), generator=generator(seed))
    turned = rows @ torch.linalg.qr(unit_rows(seed + 1, 5, 5)).Q
    assert listed(mine(distance_matrix(turned, turned), labels)) == listed(mine(distance_matrix(rows, rows), labels))


@every_miner
@pytest.mark.parametrize("labels", [[], [3], [3, 3, 3], [1, 2, 3]], ids=str)
def test_a_batch_without_positives_or_negatives_gives_no_triplets(mine: MinerOfDistances, labels: list[int]) -> None:
    distances = torch.rand(len(labels), len(labels), generator=generator())
    found = mine(distances, as_labels(labels))
    assert listed(found) == []
    assert [rows.shape for rows in found] == [(0,)] * 3


@pytest.mark.parametrize(
    ("mine", "anchors"), [(EVERY[name], anchors) for name, anchors in zip(EVERY, [8, 0, 4, 4], strict=True)], ids=EVERY
)
def test_a_batch_at_one_point_is_mined(mine: MinerOfDistances, anchors: int) -> None:
    # 4 anchors with one positive and two negatives each; none of them is farther than the positive, so none semi-hard.
    assert len(mine(torch.zeros(4, 4), as_labels([0, 0, 1, 1])).anchors) == anchors


@every_miner
def test_no_gradient_flows_through_the_choice(mine: MinerOfDistances) -> None:
    rows = unit_rows(7, 12, 5).requires_grad_()
    assert listed(mine(distance_matrix(rows, rows), torch.arange(12) % 3)) != []


@pytest.mark.parametrize("name", ["semi-hard", "hard", "distance-weighted"])
def test_distances_and_labels_of_different_batches_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"distances are \(3, 3\) for 4 labels, expected \(N, N\) and \(N,\)"):
        EVERY[name](torch.ones(3, 3), torch.arange(4))
