"""Training keeps the statistics that batch normalisation came with, unless it is told to learn them."""

import torch
from torch import nn

from retrieval.training.batch_norm import freeze_batch_norm


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()


def test_frozen_statistics_stay_and_are_used() -> None:
    frozen = network()
    freeze_batch_norm(frozen)
    pixels = torch.randn(2, 3, 8, 8) + 5
    before = frozen[1].running_mean.clone()  # type: ignore[index, union-attr]
    frozen[2].eval()  # type: ignore[index]

    trained = frozen(pixels)

    assert torch.equal(frozen[1].running_mean, before)  # type: ignore[index]
    assert torch.equal(trained, frozen.eval()(pixels))


def test_scales_and_offsets_are_trained_all_the_same() -> None:
    frozen = network()
    freeze_batch_norm(frozen)
    frozen(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert frozen[1].weight.grad.abs().sum() > 0  # type: ignore[index, union-attr, operator]


def test_what_is_no_batch_normalisation_goes_on_training() -> None:
    frozen = network()
    freeze_batch_norm(frozen)
    assert frozen[2].training  # type: ignore[index]
    assert not frozen[1].training  # type: ignore[index]
