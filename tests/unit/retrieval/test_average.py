"""The running average of a network's weights is that of the formula, and never in the way of the network itself."""

import math

import pytest
import torch
from torch import nn

from retrieval.encoder.checkpoint import ModelConfig
from retrieval.encoder.preprocess import Preprocessing
from retrieval.encoder.twin import TwinEncoder
from retrieval.training.average import WeightAverage

PREPROCESSING = Preprocessing(input_px=8, resize_px=8, mean=(0.0,) * 3, std=(1.0,) * 3)


def twin_of(backbone: nn.Module) -> TwinEncoder:
    return TwinEncoder(ModelConfig("toy", "timm/toy", "native", 1, None, PREPROCESSING), backbone)


def one_weight(value: float) -> TwinEncoder:
    twin = twin_of(nn.Linear(1, 1, bias=False))
    set_weight(twin, value)
    return twin


def set_weight(twin: TwinEncoder, value: float) -> None:
    with torch.no_grad():
        for weight in twin.parameters():
            weight.fill_(value)


def average_of(averages: WeightAverage) -> float:
    return float(averages.network.state_dict()["backbone.weight"])


def test_the_first_steps_worked_by_hand() -> None:
    # From 0 towards 1, then towards 4. The first two decays are warm-up: 2/11 and 3/12.
    # 2/11 * 0 + 9/11 * 1 = 9/11; 1/4 * 9/11 + 3/4 * 4 = 141/44.
    network = one_weight(0.0)
    averages = WeightAverage(network, 0.99)

    set_weight(network, 1.0)
    averages.update(network)
    assert average_of(averages) == pytest.approx(9 / 11)
    set_weight(network, 4.0)
    averages.update(network)
    assert average_of(averages) == pytest.approx(141 / 44)


def test_a_share_of_the_start_stays() -> None:
    # From 8 to 0 with nothing averaged, a quarter of the start kept: 6 of the way is gone, 2 stay.
    network = one_weight(8.0)
    averages = WeightAverage(network, 0.0, start_share=0.25)

    set_weight(network, 0.0)
    for _ in range(3):
        averages.update(network)
        assert average_of(averages) == pytest.approx(2.0)


def test_the_share_is_of_the_average_that_would_be_without_it() -> None:
    network = one_weight(3.0)
    plain, held_back = WeightAverage(network, 0.9), WeightAverage(network, 0.9, start_share=0.4)
    for step in range(30):
        set_weight(network, math.sin(step))
        plain.update(network)
        held_back.update(network)
    assert average_of(held_back) == pytest.approx(0.6 * average_of(plain) + 0.4 * 3.0)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999])
def test_many_steps_equal_a_slow_loop(decay: float) -> None:
    network, expected = one_weight(5.0), 5.0
    averages = WeightAverage(network, decay)
    for step in range(1, 60):
        value = math.sin(step)
        set_weight(network, value)
        averages.update(network)
        kept = min(decay, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * value
        assert average_of(averages) == pytest.approx(expected, abs=1e-6)


def test_without_decay_the_average_is_the_network_exactly() -> None:
    network = twin_of(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    averages = WeightAverage(network, 0.0)
    network.backbone(torch.randn(5, 3, generator=torch.Generator().manual_seed(0))).sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()

    averages.update(network)

    assert all(
        torch.equal(found, expected)
        for found, expected in zip(averages.network.state_dict().values(), network.state_dict().values(), strict=True)
    )


def test_counts_are_copied_and_statistics_averaged() -> None:
    # The mean of a batch of tens moves the running mean from 0 to 1 (momentum 0.1), 9/11 of which arrives.
    network = twin_of(nn.BatchNorm1d(1))
    averages = WeightAverage(network, 0.99)
    network.backbone(torch.tensor([[9.0], [11.0]]))

    averages.update(network)

    state = averages.network.state_dict()
    assert state["backbone.num_batches_tracked"] == 1
    assert state["backbone.num_batches_tracked"].dtype == torch.int64
    assert float(state["backbone.running_mean"]) == pytest.approx(9 / 11)


def test_the_network_is_left_as_it_was() -> None:
    network = one_weight(2.0)
    averages = WeightAverage(network, 0.5)
    set_weight(network, 3.0)
    averages.update(network)
    (weight,) = network.parameters()
    assert weight.tolist() == [[3.0]]
    assert weight.requires_grad
    assert network.training


def test_the_average_is_ready_to_embed_and_takes_no_gradient() -> None:
    averages = WeightAverage(twin_of(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))), 0.5)
    assert not any(module.training for module in averages.network.modules())
    assert not any(parameter.requires_grad for parameter in averages.network.parameters())


def test_a_step_keeps_no_graph_of_the_network() -> None:
    network = one_weight(1.0)
    averages = WeightAverage(network, 0.5)
    averages.update(network)
    assert all(tensor.grad_fn is None for tensor in averages.network.parameters())
