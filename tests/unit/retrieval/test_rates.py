"""Every weight is changed at its own rate, and the rates rise and fall as the formulas say."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from retrieval.encoder import tiny_cnn
from retrieval.encoder.checkpoint import ModelConfig, Pooling
from retrieval.encoder.preprocess import Preprocessing
from retrieval.encoder.twin import TwinEncoder
from retrieval.training.config import TrainConfig
from retrieval.training.losses import PairClassifier
from retrieval.training.rates import (
    LEAST_FACTOR,
    Plateau,
    cosine_factor,
    make_optimiser,
    set_factor,
    warm_up_factor,
)

CONFIG = TrainConfig("shop", "model", backbone_rate=1e-4, head_rate=1e-3, loss_rate=5e-3, weight_decay=0.05)
PREPROCESSING = Preprocessing(input_px=8, resize_px=8, mean=(0.0,) * 3, std=(1.0,) * 3)


def make_twin(pooling: Pooling = "gem", projection_dim: int | None = 4) -> TwinEncoder:
    config = ModelConfig("toy", "timm/toy", pooling, 5, projection_dim, PREPROCESSING)
    return TwinEncoder(config, nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)))


def settings_of(optimiser: torch.optim.Optimizer, twin: TwinEncoder) -> dict[str, tuple[float, float]]:
    """Rate and decay of every parameter by its name; each must stand in one group."""
    names = {id(parameter): name for name, parameter in twin.named_parameters()}
    found: dict[str, tuple[float, float]] = {}
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert name not in found
            found[name] = (group["lr"], group["weight_decay"])
    return found


def stepped(scheduler: Any, optimiser: torch.optim.Optimizer, *metric: float) -> float:
    scheduler.step(*metric)
    return float(optimiser.param_groups[0]["lr"])


def plain_optimiser() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


# Groups


def test_head_and_backbone_have_their_own_rates_and_only_matrices_decay() -> None:
    twin = make_twin()
    assert settings_of(make_optimiser(twin, [], CONFIG), twin) == {
        "backbone.0.weight": (1e-4, 0.05),
        "backbone.0.bias": (1e-4, 0.0),
        "backbone.1.weight": (1e-4, 0.0),
        "backbone.1.bias": (1e-4, 0.0),
        "pooling.p": (1e-3, 0.0),
        "projection.weight": (1e-3, 0.05),
        "projection.bias": (1e-3, 0.0),
    }


def test_a_learned_pooling_is_a_head_without_a_projection_too() -> None:
    twin = make_twin("gem", None)
    rates = {name: rate for name, (rate, _) in settings_of(make_optimiser(twin, [], CONFIG), twin).items()}
    assert rates.pop("pooling.p") == 1e-3
    assert set(rates.values()) == {1e-4}


def test_a_trained_network_without_a_head_learns_at_the_backbones_rate() -> None:
    twin = make_twin("average", None)
    assert {rate for rate, _ in settings_of(make_optimiser(twin, [], CONFIG), twin).values()} == {1e-4}


def test_a_network_that_is_trained_from_scratch_learns_at_the_heads_rate() -> None:
    twin = TwinEncoder(tiny_cnn.CONFIG, tiny_cnn.build())
    settings = settings_of(make_optimiser(twin, [], CONFIG), twin)
    assert {rate for rate, _ in settings.values()} == {1e-3}
    assert settings["backbone.0.weight"] == (1e-3, 0.05)
    assert settings["backbone.0.bias"] == (1e-3, 0.0)


def test_the_parameters_of_a_loss_learn_at_a_rate_of_their_own_without_decay() -> None:
    classifier = PairClassifier()
    group = make_optimiser(make_twin(), classifier.parameters(), CONFIG).param_groups[-1]
    assert [id(parameter) for parameter in group["params"]] == [id(each) for each in classifier.parameters()]
    assert (group["lr"], group["weight_decay"]) == (5e-3, 0.0)


def test_a_factor_scales_the_full_rates_and_not_the_present_ones() -> None:
    optimiser = make_optimiser(make_twin(), [], CONFIG)
    set_factor(optimiser, 0.5)
    set_factor(optimiser, 0.1)
    assert sorted(group["lr"] for group in optimiser.param_groups) == pytest.approx([1e-5, 1e-5, 1e-4, 1e-4])
    set_factor(optimiser, 1.0)
    assert {group["lr"] for group in optimiser.param_groups} == {1e-4, 1e-3}


def test_full_rates_come_back_with_the_optimisers_state() -> None:
    former, resumed = (make_optimiser(make_twin(), [], CONFIG) for _ in range(2))
    set_factor(former, 0.1)
    resumed.load_state_dict(former.state_dict())
    set_factor(resumed, 1.0)
    assert {group["lr"] for group in resumed.param_groups} == {1e-4, 1e-3}


# Warm-up and cosine


@pytest.mark.parametrize(
    ("progress", "warm_up", "factor"),
    [(0.0, 1.0, LEAST_FACTOR), (0.25, 1.0, 0.25), (1.0, 2.0, 0.5), (2.0, 2.0, 1.0), (7.0, 2.0, 1.0), (0.0, 0.0, 1.0)],
)
def test_a_warm_up_rises_straight(progress: float, warm_up: float, factor: float) -> None:
    assert warm_up_factor(progress, warm_up) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("progress", "factor"),
    # Up to 1 over the first fifth; half-way down at 0.6: 0.01 + 0.99 / 2; three quarters of the way, at 0.8:
    # (1 + cos(135 degrees)) / 2 = 0.14645, 0.01 + 0.99 * 0.14645 = 0.15498.
    [(0.0, 0.01), (0.1, 0.5), (0.2, 1.0), (0.6, 0.505), (0.8, 0.15498), (1.0, 0.01)],
)
def test_a_cosine_worked_by_hand(progress: float, factor: float) -> None:
    assert cosine_factor(progress, 0.2) == pytest.approx(factor, abs=1e-5)


def test_the_cosine_is_that_of_torch() -> None:
    optimiser = plain_optimiser()
    scheduler = CosineAnnealingLR(optimiser, T_max=20, eta_min=LEAST_FACTOR)
    optimiser.step()  # or it warns
    for step in range(1, 21):
        assert cosine_factor(step / 20, 0.0) == pytest.approx(stepped(scheduler, optimiser))


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_cosine_rises_to_the_full_rate_and_then_only_falls(first: float, second: float, warm_up: float) -> None:
    before, after = (cosine_factor(progress, warm_up) for progress in sorted((first, second)))
    assert min(before, after) >= LEAST_FACTOR - 1e-12
    assert max(before, after) <= 1.0
    if min(first, second) >= warm_up:
        assert after <= before
    if max(first, second) <= warm_up < 1:
        assert after >= before


def test_a_warm_up_as_long_as_the_run_never_falls() -> None:
    assert [cosine_factor(progress, 1.0) for progress in (0.5, 1.0)] == [0.5, 1.0]


# Plateau


def test_a_plateau_worked_by_hand() -> None:
    # Best 0.5 at the second epoch; with a patience of 1 the second epoch without a better one cuts, and again.
    plateau = Plateau(patience=1, factor=0.1)
    factors = []
    for metric in (0.4, 0.5, 0.5, 0.3, 0.2, 0.5, 0.6):
        plateau.observe(metric)
        factors.append(plateau.factor)
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert (plateau.best, plateau.waited) == (0.6, 0)


@given(
    metrics=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, -1.0, math.nan]), max_size=25),
    patience=st.integers(0, 3),
    factor=st.sampled_from([0.1, 0.5]),
)
def test_a_plateau_cuts_when_torch_does(metrics: list[float], patience: int, factor: float) -> None:
    optimiser = plain_optimiser()
    theirs = ReduceLROnPlateau(optimiser, mode="max", factor=factor, patience=patience, threshold=0.0, eps=0.0)
    ours = Plateau(patience, factor)
    for metric in metrics:
        ours.observe(metric)
        assert ours.factor == pytest.approx(stepped(theirs, optimiser, metric), rel=1e-9)
        assert (ours.best, ours.waited) == (theirs.best, theirs.num_bad_epochs)
