"""Pictures against a learned place for each class: the cost, where the places begin, and that they are learned."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from retrieval.training.config import TrainConfig
from retrieval.training.objective import Mined, ProxyObjective, open_objective

CONFIG = TrainConfig("shop", "model", loss="proxy", margin=0.1, temperature=0.25, relative_margin=0.4)
LABELS = torch.tensor([0, 2, 1, 0, 2])
CLASSES, DIM = 3, 4


def unit_rows(count: int, seed: int = 0) -> Tensor:
    drawn = torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(drawn, dim=1)


@pytest.fixture
def objective() -> ProxyObjective:
    torch.manual_seed(5)
    opened = open_objective(CONFIG, CLASSES, DIM)
    assert isinstance(opened, ProxyObjective)
    return opened.double()


def slow_cost(objective: ProxyObjective, embeddings: Tensor, beyond: dict[int, list[Tensor]]) -> float:
    """t * log(1 + sum of exp((to own proxy - to another or a mined one + margin) / t)), mean over the pictures."""
    proxies = [proxy / proxy.norm() for proxy in objective.proxies.detach()]
    costs = []
    for row, label in enumerate(LABELS.tolist()):
        apart = [float((embeddings[row] - proxy).pow(2).sum()) for proxy in proxies]
        to_own = apart.pop(label)
        others = apart + [
            distance
            for vector in beyond.get(row, [])
            if (distance := float((embeddings[row] - vector).pow(2).sum())) >= (1 - CONFIG.relative_margin) * to_own
        ]
        total = 1 + sum(math.exp((to_own - other + CONFIG.margin) / CONFIG.temperature) for other in others)
        costs.append(CONFIG.temperature * math.log(total))
    return sum(costs) / len(costs)


def test_a_batch_costs_what_the_loop_says(objective: ProxyObjective) -> None:
    embeddings = unit_rows(5)

    cost = objective(embeddings, LABELS, torch.arange(5), None)

    assert cost.loss.item() == pytest.approx(slow_cost(objective, embeddings, {}))


def test_mined_negatives_stand_beside_the_other_classes(objective: ProxyObjective) -> None:
    embeddings, catalogue = unit_rows(5), unit_rows(8, seed=1)
    negatives = torch.tensor([[5, 6], [7, -1], [-1, -1], [1, 2], [0, 3]])

    cost = objective(
        embeddings, LABELS, torch.arange(5), Mined(catalogue, torch.zeros(8, dtype=torch.int64), negatives)
    )

    beyond = {row: [catalogue[n] for n in names if n >= 0] for row, names in enumerate(negatives.tolist())}
    assert cost.loss.item() == pytest.approx(slow_cost(objective, embeddings, beyond))


def test_what_was_rejected_is_a_negative_however_near_it_comes(objective: ProxyObjective) -> None:
    embeddings = unit_rows(5)
    catalogue = torch.cat([unit_rows(5, seed=1), embeddings[:1]])  # the last is the first of the batch itself
    nothing = torch.full((5, 1), -1)
    rejected = torch.tensor([[5], [-1], [-1], [-1], [-1]])

    cost = objective(
        embeddings, LABELS, torch.arange(5), Mined(catalogue, torch.zeros(6, dtype=torch.int64), nothing, rejected)
    )

    # Beside the sum for the first picture there is one more negative, at distance 0.
    proxies = functional.normalize(objective.proxies.detach(), dim=1)
    apart = (embeddings[0] - proxies).pow(2).sum(dim=1).tolist()
    terms = [math.exp((apart[0] - other + CONFIG.margin) / CONFIG.temperature) for other in (*apart[1:], 0.0)]
    more = CONFIG.temperature * (math.log(1 + sum(terms)) - math.log(1 + sum(terms[:-1])))
    assert cost.loss.item() == pytest.approx(slow_cost(objective, embeddings, {}) + more / 5)


def test_proxies_begin_at_the_means_of_their_classes(objective: ProxyObjective) -> None:
    before = objective.proxies.detach().clone()
    embeddings = unit_rows(3)

    objective.start(embeddings, torch.tensor([0, 2, 0]))

    mean = functional.normalize(embeddings[0] + embeddings[2], dim=0)
    torch.testing.assert_close(objective.proxies.detach()[0], mean)
    torch.testing.assert_close(objective.proxies.detach()[2], embeddings[1])
    torch.testing.assert_close(objective.proxies.detach()[1], before[1])  # nothing is known of it


def test_proxies_move_towards_their_pictures(objective: ProxyObjective) -> None:
    embeddings = unit_rows(5)
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.05)
    own = [(row, label) for row, label in enumerate(LABELS.tolist())]

    def mean_cosine() -> float:
        proxies = functional.normalize(objective.proxies.detach(), dim=1)
        return float(torch.stack([embeddings[row] @ proxies[label] for row, label in own]).mean())

    before = mean_cosine()
    for _ in range(20):
        optimiser.zero_grad()
        objective(embeddings, LABELS, torch.arange(5), None).loss.backward()
        optimiser.step()

    assert mean_cosine() > before + 0.05


def test_the_length_of_a_proxy_means_nothing(objective: ProxyObjective) -> None:
    embeddings = unit_rows(5)
    before = objective(embeddings, LABELS, torch.arange(5), None).loss.item()
    with torch.no_grad():
        objective.proxies *= 3

    assert objective(embeddings, LABELS, torch.arange(5), None).loss.item() == pytest.approx(before)
