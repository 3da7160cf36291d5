"""A replaced depthwise convolution computes the same, under the same names, with a better gradient in bfloat16."""

import copy
from typing import Any

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from retrieval.training.depthwise import speed_up_depthwise

CHANNELS = 6


def make_conv(kind: type[nn.Conv2d] = nn.Conv2d, *, kernel: int = 5, seed: int = 0, **options: Any) -> nn.Conv2d:
    torch.manual_seed(seed)
    return kind(CHANNELS, CHANNELS, kernel, **{"groups": CHANNELS, "bias": False} | options)


def sped_up(conv: nn.Module) -> nn.Module:
    """A copy of `conv`, replaced if it is slow."""
    network = nn.Sequential(copy.deepcopy(conv))
    speed_up_depthwise(network)
    return network[0]


def is_replaced(conv: nn.Module) -> bool:
    return type(sped_up(conv)) is not type(conv)


def features(side: int = 13, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return torch.randn(2, CHANNELS, side, side + 2, generator=torch.Generator().manual_seed(seed)).to(dtype)


def output_and_gradients(network: nn.Module, pixels: Tensor, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Output, gradient of the input, gradients of the weights; under bfloat16 autocast if `dtype` says so."""
    pixels = pixels.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        output = network(pixels)
    # The gradient that arrives is exact in bfloat16.
    weigh = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).bfloat16().to(pixels.dtype)
    (output.to(weigh.dtype) * weigh).sum().backward()
    assert pixels.grad is not None
    return [
        output.detach(),
        pixels.grad,
        *(parameter.grad for parameter in network.parameters() if parameter.grad is not None),
    ]


GEOMETRIES = [
    {"kernel": 5},
    {"kernel": 5, "padding": 2},
    {"kernel": 3, "stride": 2, "padding": 1},
    {"kernel": 5, "stride": 2, "padding": 2},
    {"kernel": 5, "stride": (1, 2), "padding": (0, 2)},
    {"kernel": 5, "dilation": 2, "padding": 4},
    {"kernel": 7, "padding": 3},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_outputs_and_gradients_are_those_of_the_plain_convolution(geometry: dict[str, Any]) -> None:
    conv = make_conv(**geometry)
    assert is_replaced(conv)
    torch.testing.assert_close(
        output_and_gradients(sped_up(conv), features()), output_and_gradients(conv, features()), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("side", [12, 13])
@pytest.mark.parametrize(
    "geometry", [{"kernel": 3, "stride": 2}, {"kernel": 5, "stride": 2}, {"kernel": 5}, {"kernel": 5, "dilation": 2}]
)
def test_a_border_as_tensorflow_pads_it_stays_uneven(geometry: dict[str, Any], side: int) -> None:
    conv = make_conv(Conv2dSame, **geometry)
    assert is_replaced(conv)
    torch.testing.assert_close(
        output_and_gradients(sped_up(conv), features(side)),
        output_and_gradients(conv, features(side)),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "conv",
    [
        make_conv(kernel=3, padding=1),  # quick as it is
        make_conv(bias=True),
        make_conv(groups=1),
        make_conv(groups=CHANNELS // 2),
        make_conv(padding="same"),
        make_conv(padding=2, padding_mode="reflect"),
        nn.Conv2d(CHANNELS, 2 * CHANNELS, 5, groups=CHANNELS, bias=False),
        nn.Conv2d(1, 1, 5, bias=False),
        nn.ConvTranspose2d(CHANNELS, CHANNELS, 5, groups=CHANNELS, bias=False),
    ],
    ids=["3x3", "bias", "plain", "grouped", "padding by name", "reflected", "multiplied", "one channel", "transposed"],
)
def test_other_convolutions_are_left_alone(conv: nn.Module) -> None:
    assert not is_replaced(conv)


def test_a_convolution_of_a_class_of_its_own_is_left_alone() -> None:
    class Scaled(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    assert not is_replaced(make_conv(Scaled))


def whole_network() -> nn.Module:
    """EfficientNet-Lite0 with its kinds of depthwise convolutions and random weights."""
    torch.manual_seed(3)
    return timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def lite() -> tuple[nn.Module, nn.Module]:
    """A network, and a copy that was replaced in place."""
    network = whole_network()
    replaced = copy.deepcopy(network)
    speed_up_depthwise(replaced)
    return network, replaced


def test_names_order_and_values_of_the_state_stay(lite: tuple[nn.Module, nn.Module]) -> None:
    before, after = (network.state_dict() for network in lite)
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_whole_network_has_its_slow_convolutions_replaced_and_no_other(lite: tuple[nn.Module, nn.Module]) -> None:
    slow = {
        name
        for name, module in lite[0].named_modules()
        if isinstance(module, nn.Conv2d)
        and module.groups > 1
        and (module.kernel_size != (3, 3) or module.stride != (1, 1))
    }
    after = dict(lite[1].named_modules())
    replaced = {name for name, module in lite[0].named_modules() if type(after[name]) is not type(module)}
    assert replaced == slow
    assert len(slow) > 5


def test_a_whole_network_computes_the_same(lite: tuple[nn.Module, nn.Module]) -> None:
    pixels = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(4))
    plain, replaced = (output_and_gradients(network, pixels) for network in lite)
    assert len(plain) == len(replaced) > 100
    for one, other in zip(plain, replaced, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5 * float(one.abs().max()))


def test_an_optimiser_made_before_trains_the_replaced_network() -> None:
    network = nn.Sequential(make_conv())
    before = list(network.parameters())
    speed_up_depthwise(network)
    assert [id(parameter) for parameter in network.parameters()] == [id(parameter) for parameter in before]


def test_a_replaced_network_can_be_copied_and_loaded() -> None:
    replaced = sped_up(make_conv(seed=1))
    other = copy.deepcopy(replaced)
    other.load_state_dict(make_conv(seed=2).state_dict())
    torch.testing.assert_close(other(features()), make_conv(seed=2)(features()))
    torch.testing.assert_close(replaced(features()), make_conv(seed=1)(features()))


# bfloat16


@pytest.mark.parametrize("geometry", [{"kernel": 5, "padding": 2}, {"kernel": 3, "stride": 2, "padding": 1}], ids=str)
def test_the_output_in_bfloat16_is_that_of_the_plain_convolution(geometry: dict[str, Any]) -> None:
    conv, pixels = make_conv(**geometry), features(dtype=torch.bfloat16)
    plain, replaced = (output_and_gradients(network, pixels, torch.bfloat16) for network in (conv, sped_up(conv)))
    assert [tensor.dtype for tensor in replaced] == [torch.bfloat16, torch.bfloat16, torch.float32]
    torch.testing.assert_close(replaced[0], plain[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("geometry", [{"kernel": 5, "padding": 2}, {"kernel": 3, "stride": 2, "padding": 1}], ids=str)
def test_the_weights_gradient_in_bfloat16_is_closer_to_the_truth(geometry: dict[str, Any], seed: int) -> None:
    conv, pixels = make_conv(**geometry), features(29, torch.bfloat16, seed)
    truth = output_and_gradients(copy.deepcopy(conv).double(), pixels.double())[2]
    plain = output_and_gradients(conv, pixels, torch.bfloat16)[2]
    replaced = output_and_gradients(sped_up(conv), pixels, torch.bfloat16)[2]
    assert (replaced - truth).norm() < 0.01 * (plain - truth).norm()
