"""Losses of pytorch-metric-learning by name: one call, their weights in the optimiser, errors of one line."""

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses as library
from torch import Tensor

from retrieval.errors import TrainingError
from retrieval.training.foreign_losses import foreign_loss_names, open_foreign_loss

CLASSES, DIM = 5, 8
LABELS = torch.arange(10) % CLASSES
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
# These have no defaults in the library.
OPTIONS = {"RankedListLoss": {"margin": 0.4, "Tn": 10 / 4}}


def rows(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(10, DIM, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()


# HistogramLoss indexes with a list, which torch still reads as the tuple that is meant; the large-margin softmax passes
# a tensor to scipy.
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
@pytest.mark.parametrize("name", foreign_loss_names())
def test_every_named_loss_measures_a_labelled_batch(name: str) -> None:
    loss = open_foreign_loss(name, classes=CLASSES, dim=DIM, **OPTIONS.get(name, NO_OPTIONS))
    embeddings = rows()

    value = loss(embeddings, LABELS)
    value.backward()

    assert value.shape == ()
    assert value.item() > 0
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.any()


@pytest.mark.parametrize("name", ["GenericPairLoss", "BaseMetricLossFunction", "VICRegLoss", "SelfSupervisedLoss"])
def test_what_cannot_measure_a_labelled_batch_has_no_name(name: str) -> None:
    assert name not in foreign_loss_names()


def test_the_value_is_the_librarys_own() -> None:
    loss = open_foreign_loss("MultiSimilarityLoss", classes=CLASSES, dim=DIM, alpha=3)
    torch.testing.assert_close(loss(rows(), LABELS), library.MultiSimilarityLoss(alpha=3)(rows(), LABELS))


@pytest.mark.parametrize(
    ("name", "weights", "shape"),
    [
        ("ProxyAnchorLoss", "proxies", (CLASSES, DIM)),
        ("NormalizedSoftmaxLoss", "W", (DIM, CLASSES)),
        ("CosFaceLoss", "W", (DIM, CLASSES)),  # its parent takes the sizes
        ("SubCenterArcFaceLoss", "W", (DIM, CLASSES * 3)),  # three centres a class
        ("P2SGradLoss", "weight", (DIM, CLASSES)),  # calls the sizes otherwise
    ],
)
def test_weights_of_a_loss_have_their_size_and_reach_the_optimiser(
    name: str, weights: str, shape: tuple[int, ...]
) -> None:
    loss = open_foreign_loss(name, classes=CLASSES, dim=DIM)
    parameters = dict(loss.named_parameters())
    assert {each: tuple(parameter.shape) for each, parameter in parameters.items()} == {f"loss.{weights}": shape}
    before = parameters[f"loss.{weights}"].detach().clone()

    optimiser = torch.optim.SGD(loss.parameters(), lr=0.1)
    loss(rows(), LABELS).backward()
    optimiser.step()

    assert not torch.equal(parameters[f"loss.{weights}"], before)


def test_sizes_that_a_loss_does_not_require_are_left_to_its_defaults() -> None:
    # MarginLoss with num_classes has a border for each class, without one for all.
    assert open_foreign_loss("MarginLoss", classes=CLASSES, dim=DIM).loss.beta.shape == (1,)


@pytest.mark.parametrize("name", ["TripletMarginLoss", "CosFaceLoss"])
def test_neither_bfloat16_rows_nor_autocast_round_the_loss(name: str) -> None:
    loss = open_foreign_loss(name, classes=CLASSES, dim=DIM)
    embeddings = rows(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(embeddings, LABELS)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(embeddings.float(), LABELS))


def test_a_batch_with_nothing_to_compare_costs_a_zero_that_can_be_differentiated() -> None:
    embeddings = rows()
    value = open_foreign_loss("TripletMarginLoss", classes=1, dim=DIM)(embeddings, torch.zeros(10, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    with pytest.raises(TrainingError, match=r"run: pip install 'retrieval-engine\[losses\]'$"):
        open_foreign_loss("ProxyAnchorLoss", classes=CLASSES, dim=DIM)


def test_a_misspelt_name_is_answered_with_close_ones() -> None:
    with pytest.raises(TrainingError, match="is named 'ProxyAnkerLoss'; did you mean ProxyAnchorLoss"):
        open_foreign_loss("ProxyAnkerLoss", classes=CLASSES, dim=DIM)


def test_a_name_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(TrainingError) as raised:
        open_foreign_loss("xyzzy", classes=CLASSES, dim=DIM)
    assert str(raised.value).endswith(f"'xyzzy'; there are {', '.join(foreign_loss_names())}")


def test_an_unknown_option_is_answered_with_those_there_are() -> None:
    with pytest.raises(TrainingError, match=r"are \{'margn': 0.1\}, it takes .*margin=0.35, scale=64 .*'margn'"):
        open_foreign_loss("CosFaceLoss", classes=CLASSES, dim=DIM, margn=0.1)


def test_a_missing_option_is_named() -> None:
    with pytest.raises(TrainingError, match=r"are \{\}, it takes margin, Tn, .*'margin' and 'Tn'"):
        open_foreign_loss("RankedListLoss", classes=CLASSES, dim=DIM)


def test_a_batch_that_a_loss_does_not_take_is_refused_in_one_line() -> None:
    loss = open_foreign_loss("SmoothAPLoss", classes=2, dim=DIM)
    with pytest.raises(TrainingError, match="SmoothAPLoss refused a batch of 10: All classes must have") as raised:
        loss(rows(), torch.tensor([0] * 7 + [1] * 3))
    assert "\n" not in str(raised.value)
