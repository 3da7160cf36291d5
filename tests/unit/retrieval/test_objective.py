"""A batch costs what its mined triplets or pairs cost, and one without any costs nothing and breaks nothing."""

import dataclasses
import math
from itertools import product

import pytest
import torch
from pytorch_metric_learning import losses as library
from slow_oracles import (
    Triplet,
    slow_contrastive_loss,
    slow_distance,
    slow_hard,
    slow_pair_loss,
    slow_semi_hard,
    slow_triplet_loss,
    slow_triplets,
)
from torch import Tensor
from torch.nn import functional

from retrieval.errors import TrainingError
from retrieval.training.config import TrainConfig
from retrieval.training.distances import Distance, distance_matrix
from retrieval.training.objective import Cost, Mined, PairObjective, distance_between, open_objective

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
TRIPLETS = TrainConfig(
    "shop", "model", loss="triplet", miner="all", distance="euclidean", margin=0.3, temperature=0.5, relative_margin=0.4
)
DISTANCES: list[Distance] = ["euclidean", "squared_euclidean", "cosine"]


def with_settings(**changes: object) -> TrainConfig:
    return dataclasses.replace(TRIPLETS, **changes)  # type: ignore[arg-type]


def mined_from(embeddings: Tensor, negatives: Tensor) -> Mined:
    """Of a training set whose labels do not matter: triplets take their positives from the batch alone."""
    return Mined(embeddings, torch.zeros(len(embeddings), dtype=torch.int64), negatives)


def unit_rows(count: int = len(LABELS), dim: int = 4, seed: int = 0) -> Tensor:
    drawn = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(drawn, dim=1).requires_grad_()


def on_a_circle(*degrees: float) -> Tensor:
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def cost_of(config: TrainConfig, embeddings: Tensor, labels: Tensor = LABELS, catalogue: Mined | None = None) -> Cost:
    objective = open_objective(config, classes=int(labels.max()) + 1, dim=embeddings.shape[1])
    cost: Cost = objective(embeddings, labels, torch.arange(len(labels)), catalogue)
    return cost


def slow_distances(embeddings: Tensor, distance: Distance) -> list[list[float]]:
    rows = embeddings.double().tolist()
    return [[slow_distance(u, v, distance) for v in rows] for u in rows]


def slow_mean(gaps: list[tuple[float, float]], config: TrainConfig) -> float:
    """The mean cost of distances to a positive and a negative; the hinge counts those above 0 alone."""
    if config.loss == "triplet":
        costs = [slow_triplet_loss(p, n, config.margin) for p, n in gaps]
        return math.fsum(costs) / max(sum(cost > 0 for cost in costs), 1)
    costs = [
        config.temperature * slow_triplet_loss((p + config.margin) / config.temperature, n / config.temperature, None)
        for p, n in gaps
    ]
    return math.fsum(costs) / max(len(costs), 1)


def slowly_mined(config: TrainConfig, distances: list[list[float]], labels: list[int]) -> list[Triplet]:
    if config.miner == "hard":
        return slow_hard(distances, labels)
    if config.miner == "semi_hard":
        return slow_semi_hard(distances, labels, config.margin)
    return slow_triplets(labels)


# Triplets of the batch


def test_triplets_of_a_batch_worked_by_hand() -> None:
    # Squared distances of points on a circle are 2 - 2 cos: 1 for 60 degrees, 2 for 90, 2 - sqrt(3) for 30. The anchor
    # at 0 costs 1 - 2 + 1.5 = 0.5, the one at 60 costs 1 - (2 - sqrt(3)) + 1.5 = 0.5 + sqrt(3).
    config = with_settings(distance="squared_euclidean", margin=1.5)
    cost = cost_of(config, on_a_circle(0, 60, 90), torch.tensor([0, 0, 1]))
    assert cost.loss.item() == pytest.approx((0.5 + 0.5 + math.sqrt(3)) / 2, abs=1e-5)
    assert cost.active == 1.0


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("miner", ["all", "curriculum", "index", "hard", "semi_hard"])
@pytest.mark.parametrize("loss", ["triplet", "soft_triplet"])
def test_the_cost_is_the_mean_over_the_mined_triplets(loss: str, miner: str, distance: Distance) -> None:
    config = with_settings(loss=loss, miner=miner, distance=distance)
    embeddings = unit_rows(seed=3)
    distances = slow_distances(embeddings, distance)
    chosen = slowly_mined(config, distances, LABELS.tolist())
    gaps = [(distances[a][p], distances[a][n]) for a, p, n in chosen]

    cost = cost_of(config, embeddings)

    assert chosen
    assert cost.loss.item() == pytest.approx(slow_mean(gaps, config), rel=1e-4)
    assert cost.active == pytest.approx(sum(p - n + config.margin > 0 for p, n in gaps) / len(gaps), abs=1e-6)


def test_the_share_of_active_triplets_worked_by_hand() -> None:
    # 0 and 10 degrees are of one label, 20 and 180 negatives. Distances 0.174 (10 degrees), 0.347 (20 degrees) and
    # about 2: with a margin of 0.1, the negative at 20 costs the anchor at 10 something (0.174 - 0.174 + 0.1) and the
    # one at 0 nothing (0.174 - 0.347 + 0.1 < 0); the far one costs nothing: one of four.
    config = with_settings(margin=0.1)
    assert cost_of(config, on_a_circle(0, 10, 20, 180), torch.tensor([0, 0, 1, 2])).active == 0.25


def test_satisfied_triplets_do_not_dilute_the_hinge() -> None:
    few = cost_of(with_settings(margin=0.1), on_a_circle(0, 10, 20), torch.tensor([0, 0, 1]))
    many = cost_of(with_settings(margin=0.1), on_a_circle(0, 10, 20, 180, 190), torch.tensor([0, 0, 1, 2, 3]))
    assert many.loss.item() == pytest.approx(few.loss.item(), rel=1e-5)
    assert many.active < few.active


def test_a_small_temperature_makes_the_soft_margin_the_hinge() -> None:
    embeddings = unit_rows(seed=4)
    distances = slow_distances(embeddings, "euclidean")
    gaps = [distances[a][p] - distances[a][n] for a, p, n in slow_triplets(LABELS.tolist())]
    hinge = math.fsum(max(0.0, gap + 0.3) for gap in gaps) / len(gaps)
    soft = cost_of(with_settings(loss="soft_triplet", temperature=1e-4), embeddings).loss
    assert soft.item() == pytest.approx(hinge, abs=1e-3)


def test_distance_weighted_negatives_are_drawn_the_same_for_the_same_batch() -> None:
    config = with_settings(miner="distance_weighted")
    torch.manual_seed(1)
    first = cost_of(config, unit_rows(seed=3))
    torch.manual_seed(2)
    assert cost_of(config, unit_rows(seed=3)) == first


def test_distance_weighted_negatives_are_drawn_anew_with_another_seed() -> None:
    costs = {
        cost_of(with_settings(miner="distance_weighted", seed=seed), unit_rows(seed=3)).loss.item()
        for seed in range(10)
    }
    assert len(costs) > 1


@pytest.mark.parametrize("distance", DISTANCES)
def test_distance_weighted_negatives_cost_what_the_distance_of_the_loss_says(distance: Distance) -> None:
    # One negative alone can be drawn.
    embeddings = on_a_circle(0, 20, 50)
    config = with_settings(distance=distance, miner="distance_weighted")
    drawn = cost_of(config, embeddings, torch.tensor([0, 0, 1])).loss
    torch.testing.assert_close(
        drawn, cost_of(with_settings(distance=distance), embeddings, torch.tensor([0, 0, 1])).loss
    )


# Mined negatives


def catalogue_of(rows: int, negatives: list[list[int]], seed: int = 9) -> Mined:
    return mined_from(unit_rows(rows, seed=seed).detach(), torch.tensor(negatives))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("loss", ["triplet", "soft_triplet"])
def test_mined_negatives_cost_what_a_slow_loop_says(loss: str, distance: Distance) -> None:
    config = with_settings(loss=loss, distance=distance, miner="index")
    embeddings = unit_rows(seed=3)
    negatives = torch.randint(-1, 20, (len(LABELS), 6), generator=torch.Generator().manual_seed(5))
    catalogue = mined_from(unit_rows(20, seed=9).detach(), negatives)
    rows, stored = embeddings.double().tolist(), catalogue.embeddings.double().tolist()
    gaps, left_out = [], 0
    for anchor, positive in product(range(len(LABELS)), repeat=2):
        if anchor == positive or LABELS[anchor] != LABELS[positive]:
            continue
        for negative in negatives[anchor].tolist():
            to_positive = slow_distance(rows[anchor], stored[positive], distance)
            to_negative = slow_distance(rows[anchor], stored[negative], distance)
            if negative >= 0 and to_negative > to_positive:
                gaps.append((to_positive, to_negative))
            else:
                left_out += negative >= 0

    mined = cost_of(config, embeddings, catalogue=catalogue).loss - cost_of(config, embeddings).loss

    assert gaps
    assert left_out
    assert mined.item() == pytest.approx(slow_mean(gaps, config), rel=1e-3)


def test_mined_triplets_lie_in_the_catalogue_and_those_with_a_nearer_negative_are_left_out() -> None:
    # Only the first picture has mined negatives. Its positive is at 60 degrees in the batch and at 50 in the catalogue,
    # 0.845 away. The negative at -40 (0.684) does not count; the one at -55 (0.923) does, and costs the rest up to 0.3.
    embeddings, labels = on_a_circle(0, 60, 180), torch.tensor([0, 0, 1])
    catalogue = on_a_circle(10, 50, 180, -40, -55)
    alone = cost_of(TRIPLETS, embeddings, labels).loss

    def mined(*negatives: int) -> float:
        rows = torch.tensor([list(negatives), [-1] * len(negatives), [-1] * len(negatives)])
        return (cost_of(TRIPLETS, embeddings, labels, mined_from(catalogue, rows)).loss - alone).item()

    def chord(degrees: float) -> float:
        return 2 * math.sin(math.radians(degrees / 2))

    assert mined(3) == 0.0
    assert mined(4) == pytest.approx(chord(50) - chord(55) + 0.3, abs=1e-5)
    assert mined(3, 4) == pytest.approx(mined(4), abs=1e-6)


def test_a_batch_looks_up_the_negatives_and_positives_of_its_own_pictures() -> None:
    # The batch's pictures are 2, 0 and 1 of the training set; only the negative of number 2 exists, and its positive in
    # the batch is number 0.
    embeddings, labels = on_a_circle(0, 60, 180), torch.tensor([0, 0, 1])
    catalogue = mined_from(on_a_circle(60, 180, 0, -70), torch.tensor([[-1], [-1], [3]]))
    objective = open_objective(TRIPLETS, 2, 2)
    there = objective(embeddings, labels, torch.tensor([2, 0, 1]), catalogue).loss
    elsewhere = objective(embeddings, labels, torch.tensor([0, 1, 1]), catalogue).loss
    gap = 2 * math.sin(math.radians(30)) - 2 * math.sin(math.radians(35))
    assert (there - elsewhere).item() == pytest.approx(gap + 0.3, abs=1e-5)


def test_the_gradient_of_mined_negatives_reaches_the_batch_alone() -> None:
    embeddings = unit_rows(seed=3)
    catalogue = catalogue_of(20, [[1, 2, 3]] * len(LABELS))
    (alone,) = torch.autograd.grad(cost_of(TRIPLETS, embeddings).loss, embeddings)
    (both,) = torch.autograd.grad(cost_of(TRIPLETS, embeddings, catalogue=catalogue).loss, embeddings)
    assert (alone != both).any()
    assert both.isfinite().all()
    of_one = catalogue_of(20, [[1, 2, 3], *[[-1, -1, -1]] * (len(LABELS) - 1)])
    (one,) = torch.autograd.grad(cost_of(TRIPLETS, embeddings, catalogue=of_one).loss, embeddings)
    assert (alone != one).any(dim=1).nonzero().flatten().tolist() == [0]  # not its positives either
    assert not catalogue.embeddings.requires_grad


def test_without_any_mined_negative_the_batch_costs_what_it_costs_alone() -> None:
    embeddings = unit_rows(seed=3)
    empty = catalogue_of(20, [[-1, -1]] * len(LABELS))
    assert cost_of(TRIPLETS, embeddings, catalogue=empty).loss == cost_of(TRIPLETS, embeddings).loss


@pytest.mark.parametrize("distance", DISTANCES)
def test_row_by_row_distances_are_those_of_the_matrix(distance: Distance) -> None:
    a, b = unit_rows(6, seed=1), unit_rows(6, seed=2)
    torch.testing.assert_close(distance_between(a, b, distance), distance_matrix(a, b, distance).diagonal())


# Nothing to learn


@pytest.mark.parametrize("miner", ["all", "hard", "semi_hard", "distance_weighted"])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["one label", "all different"])
def test_a_batch_without_triplets_costs_nothing_and_backward_still_works(miner: str, labels: list[int]) -> None:
    embeddings = unit_rows(4)
    cost = cost_of(with_settings(miner=miner), embeddings, torch.tensor(labels))
    cost.loss.backward()  # type: ignore[no-untyped-call]
    assert (cost.loss.item(), cost.active) == (0.0, 0.0)
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_a_batch_that_has_learned_everything_costs_nothing_and_backward_still_works() -> None:
    embeddings = on_a_circle(0, 1, 180, 181).requires_grad_()
    cost = cost_of(TRIPLETS, embeddings, torch.tensor([0, 0, 1, 1]))
    cost.loss.backward()  # type: ignore[no-untyped-call]
    assert (cost.loss.item(), cost.active) == (0.0, 0.0)
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


@pytest.mark.parametrize("loss", ["triplet", "soft_triplet", "contrastive", "pair"])
def test_pictures_at_one_point_have_a_gradient_that_is_a_number(loss: str) -> None:
    embeddings = on_a_circle(0, 0, 0, 0).requires_grad_()
    catalogue = mined_from(on_a_circle(0, 0, 0, 0), torch.tensor([[0, 1]] * 4))
    cost_of(with_settings(loss=loss), embeddings, torch.tensor([0, 0, 1, 1]), catalogue).loss.backward()  # type: ignore[no-untyped-call]
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


# Pairs


def test_both_kinds_of_pairs_weigh_alike_worked_by_hand() -> None:
    # Contrastive, margin 0.3: similar pairs 0.2 and 0.4 apart cost 0.02 and 0.08, 0.05 on average. Different ones 0.1,
    # 0.2 and 0.5 apart cost 0.02, 0.005 and 0, on average 0.025 / 3. Four of five cost something.
    objective = open_objective(with_settings(loss="contrastive"), 3, 4)
    distances = torch.tensor([0.2, 0.4, 0.1, 0.2, 0.5])
    assert isinstance(objective, PairObjective)
    cost = objective.cost_of(distances, torch.tensor([True, True, False, False, False]))
    assert cost.loss.item() == pytest.approx(0.05 + 0.025 / 3)
    assert cost.active == pytest.approx(0.8)


@pytest.mark.parametrize("loss", ["contrastive", "pair"])
def test_the_cost_of_pairs_equals_a_slow_loop(loss: str) -> None:
    embeddings, labels = unit_rows(seed=6), LABELS.tolist()
    distances = slow_distances(embeddings, "euclidean")
    costs: dict[int, list[float]] = {0: [], 1: []}
    for i, j in product(range(len(labels)), repeat=2):
        if i < j:
            y = int(labels[i] == labels[j])
            costs[y].append(
                slow_contrastive_loss(distances[i][j], y, 0.3)
                if loss == "contrastive"
                else slow_pair_loss(distances[i][j], y, 5.0, 5.0)  # as the classifier begins
            )
    expected = sum(math.fsum(each) / len(each) for each in costs.values())
    assert cost_of(with_settings(loss=loss), embeddings).loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]], ids=["similar alone", "different alone"])
def test_one_kind_of_pairs_alone_is_no_error(labels: list[int]) -> None:
    embeddings = unit_rows(3)
    cost = cost_of(with_settings(loss="contrastive", margin=2.0), embeddings, torch.tensor(labels))
    cost.loss.backward()  # type: ignore[no-untyped-call]
    assert cost.loss.item() > 0
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_the_pair_loss_brings_two_parameters_that_learn_and_the_others_none() -> None:
    objective = open_objective(with_settings(loss="pair"), 3, 4)
    parameters = list(objective.parameters())
    objective(unit_rows(), LABELS, torch.arange(8), None).loss.backward()
    assert len(parameters) == 2
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in parameters)
    for loss in ("triplet", "soft_triplet", "contrastive"):
        assert list(open_objective(with_settings(loss=loss), 3, 4).parameters()) == []


# Losses of pytorch-metric-learning


def test_a_foreign_loss_costs_what_the_library_says_and_knows_no_active_share() -> None:
    embeddings = unit_rows(seed=6)
    cost = cost_of(with_settings(loss="MultiSimilarityLoss"), embeddings)
    torch.testing.assert_close(cost.loss, library.MultiSimilarityLoss()(embeddings, LABELS))
    assert math.isnan(cost.active)


def test_a_foreign_loss_with_proxies_is_told_classes_and_dimensions() -> None:
    (proxies,) = open_objective(with_settings(loss="ProxyAnchorLoss"), classes=7, dim=4).parameters()
    assert proxies.shape == (7, 4)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(TrainingError, match="no loss of pytorch-metric-learning is named 'TripletLoss'"):
        open_objective(with_settings(loss="TripletLoss"), 3, 4)
