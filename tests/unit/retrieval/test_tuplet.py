"""One anchor against many negatives at once: the loss, and the objective that gathers negatives of batch and index."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from retrieval.training.config import TrainConfig
from retrieval.training.losses import triplet_loss, tuplet_loss
from retrieval.training.objective import Mined, open_objective

CONFIG = TrainConfig(
    "shop", "model", loss="tuplet", positives="each", margin=0.3, temperature=0.25, relative_margin=0.4
)
NEAREST = dataclasses.replace(CONFIG, positives="nearest")
LABELS = torch.tensor([0, 0, 0, 1, 1, 2])


def slow_tuplet_loss(to_positive: float, to_negatives: list[float], margin: float, temperature: float) -> float:
    total = 1.0
    for to_negative in to_negatives:
        total += math.exp((to_positive - to_negative + margin) / temperature)
    return temperature * math.log(total)


def unit_rows(count: int, dim: int = 4, seed: int = 0) -> Tensor:
    drawn = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(drawn, dim=1)


def squared(u: Tensor, v: Tensor) -> float:
    return float((u - v).pow(2).sum())


def test_a_loss_worked_by_hand() -> None:
    # gaps (1 - 1 + 0.5) / 0.5 = 1 and (1 - 1.5 + 0.5) / 0.5 = 0: 0.5 * log(1 + e + 1) = 0.5 * 1.551445 = 0.775722
    found = tuplet_loss(torch.tensor([1.0]), torch.tensor([[1.0, 1.5]]), margin=0.5, temperature=0.5)

    torch.testing.assert_close(found, torch.tensor([0.775722]))


@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0.02, 2))
def test_it_equals_the_loop(seed: int, margin: float, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    to_positive = 2 * torch.rand(5, generator=generator, dtype=torch.float64)
    to_negatives = 2 * torch.rand(5, 3, generator=generator, dtype=torch.float64)

    found = tuplet_loss(to_positive, to_negatives, margin=margin, temperature=temperature)

    expected = [
        slow_tuplet_loss(p, n, margin, temperature)
        for p, n in zip(to_positive.tolist(), to_negatives.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_with_one_negative_it_is_the_soft_margin_of_a_triplet() -> None:
    to_positive, to_negative = torch.tensor([0.1, 0.9, 1.4]), torch.tensor([0.5, 0.9, 0.2])

    found = tuplet_loss(to_positive, to_negative[:, None], margin=0.0, temperature=1.0)

    torch.testing.assert_close(found, triplet_loss(to_positive, to_negative, soft=True))


def test_as_the_temperature_falls_it_becomes_the_hinge_with_the_nearest_negative() -> None:
    to_positive, to_negatives = torch.tensor([0.5, 0.5]), torch.tensor([[0.6, 1.0], [0.9, 1.4]])

    found = tuplet_loss(to_positive, to_negatives, margin=0.2, temperature=1e-3)

    hinge = triplet_loss(to_positive, to_negatives.amin(dim=1), margin=0.2)
    torch.testing.assert_close(found, hinge, atol=1e-5, rtol=0)


def test_a_nearer_negative_weighs_more() -> None:
    to_negatives = torch.tensor([[0.6, 1.2]], requires_grad=True)

    tuplet_loss(torch.tensor([0.5]), to_negatives, margin=0.2, temperature=0.1).sum().backward()

    assert to_negatives.grad is not None
    near, far = to_negatives.grad[0].tolist()
    assert near < 100 * far < 0


def test_an_anchor_without_negatives_costs_nothing_and_bears_a_gradient() -> None:
    to_positive = torch.tensor([0.5], requires_grad=True)

    found = tuplet_loss(to_positive, torch.tensor([[math.inf, math.inf]]))
    found.sum().backward()

    assert found.item() == 0.0
    assert to_positive.grad is not None
    assert to_positive.grad.item() == 0.0


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and to_negatives \(2, 4\)"):
        tuplet_loss(torch.zeros(3), torch.zeros(2, 4))


def objective_cost(config: TrainConfig, embeddings: Tensor, mined: Mined | None = None) -> tuple[float, float]:
    cost = open_objective(config, 3, embeddings.shape[1])(embeddings, LABELS, torch.arange(len(LABELS)), mined)
    return float(cost.loss), cost.active


def slow_objective(config: TrainConfig, embeddings: Tensor, beyond: dict[int, list[Tensor]]) -> tuple[float, float]:
    """Every anchor and positive, all other labels of the batch, and the mined ones that are not too close."""
    costs, active = [], []
    for a, label in enumerate(LABELS.tolist()):
        for p, other in enumerate(LABELS.tolist()):
            if a == p or label != other:
                continue
            to_positive = squared(embeddings[a], embeddings[p])
            negatives = [squared(embeddings[a], embeddings[n]) for n in range(len(LABELS)) if LABELS[n] != label]
            far_enough = [squared(embeddings[a], vector) for vector in beyond.get(a, [])]
            negatives += [d for d in far_enough if d >= (1 - config.relative_margin) * to_positive]
            costs.append(slow_tuplet_loss(to_positive, negatives, config.margin, config.temperature))
            active.append(to_positive + config.margin > min(negatives))
    return sum(costs) / len(costs), sum(active) / len(active)


def test_a_batch_costs_the_mean_over_its_anchors_and_positives() -> None:
    embeddings = unit_rows(6)

    assert objective_cost(CONFIG, embeddings) == pytest.approx(slow_objective(CONFIG, embeddings, {}))


def test_mined_negatives_stand_beside_those_of_the_batch() -> None:
    embeddings, catalogue = unit_rows(6), unit_rows(9, seed=1)
    negatives = torch.tensor([[6, 7], [8, -1], [-1, -1], [0, 6], [1, 8], [7, 2]])

    found = objective_cost(CONFIG, embeddings, Mined(catalogue, torch.full((9,), 7), negatives))

    beyond = {row: [catalogue[n] for n in names if n >= 0] for row, names in enumerate(negatives.tolist())}
    assert found == pytest.approx(slow_objective(CONFIG, embeddings, beyond))
    assert found[0] > objective_cost(CONFIG, embeddings)[0]


def test_a_mined_negative_that_is_suspiciously_close_is_left_out() -> None:
    embeddings = unit_rows(6)
    twins = Mined(
        embeddings.clone(), LABELS + 7, torch.arange(6)[:, None]
    )  # every anchor's mined negative is the anchor itself

    assert objective_cost(CONFIG, embeddings, twins) == pytest.approx(objective_cost(CONFIG, embeddings))
    trusting = dataclasses.replace(CONFIG, relative_margin=1.0)
    assert objective_cost(trusting, embeddings, twins)[0] > objective_cost(trusting, embeddings)[0]


def test_turning_all_embeddings_changes_nothing() -> None:
    embeddings = unit_rows(6)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).Q

    assert objective_cost(CONFIG, embeddings @ turn) == pytest.approx(objective_cost(CONFIG, embeddings))


def soft_nearest(distances: list[float], temperature: float) -> float:
    return -temperature * math.log(sum(math.exp(-distance / temperature) for distance in distances))


def test_the_nearest_positive_stands_for_all_of_them() -> None:
    # Labels 0 0 0 1 1 2: the first five rows have a positive, the last is no anchor.
    embeddings = unit_rows(6)
    costs, active = [], []
    for a in range(5):
        positives = [squared(embeddings[a], embeddings[p]) for p in range(6) if p != a and LABELS[p] == LABELS[a]]
        negatives = [squared(embeddings[a], embeddings[n]) for n in range(6) if LABELS[n] != LABELS[a]]
        to_positive = soft_nearest(positives, NEAREST.temperature)
        costs.append(slow_tuplet_loss(to_positive, negatives, NEAREST.margin, NEAREST.temperature))
        active.append(to_positive + NEAREST.margin > min(negatives))

    assert objective_cost(NEAREST, embeddings) == pytest.approx((sum(costs) / 5, sum(active) / 5))


def test_positives_are_looked_for_in_the_whole_catalogue_but_never_the_anchor_itself() -> None:
    embeddings, catalogue = unit_rows(6), unit_rows(8, seed=1)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
    mined = Mined(catalogue, labels, torch.full((8, 1), -1))  # no negatives beyond the batch
    costs = []
    for a in range(6):
        positives = [squared(embeddings[a], embeddings[p]) for p in range(6) if p != a and LABELS[p] == LABELS[a]]
        positives += [squared(embeddings[a], catalogue[p]) for p in range(8) if p != a and labels[p] == LABELS[a]]
        negatives = [squared(embeddings[a], embeddings[n]) for n in range(6) if LABELS[n] != LABELS[a]]
        to_positive = soft_nearest(positives, NEAREST.temperature)
        costs.append(slow_tuplet_loss(to_positive, negatives, NEAREST.margin, NEAREST.temperature))

    assert objective_cost(NEAREST, embeddings, mined)[0] == pytest.approx(sum(costs) / 6)


def test_an_anchor_whose_only_positive_is_far_pulls_on_that_one() -> None:
    embeddings = unit_rows(6).requires_grad_()

    loss = open_objective(NEAREST, 3, 4)(embeddings, LABELS, torch.arange(6), None).loss
    loss.backward()

    assert embeddings.grad is not None
    assert bool(embeddings.grad.isfinite().all())
    assert embeddings.grad[3].norm() > 0
