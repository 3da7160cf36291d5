"""Why is a depthwise convolution trained in two precisions on a CPU? Because its bfloat16 gradient is slow there."""

from typing import Any

import torch
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional

# oneDNN's gradient of a depthwise convolution falls back to plain loops in bfloat16, but for 3x3 kernels at stride 1.
# A batch of 64, two cores of an AMD EPYC (Zen 4), forward and backward, ms, bfloat16 -> float32 gradient:
# 144 channels 5x5 stride 2 at 59 px: 529 -> 84; 96 channels 3x3 stride 2 at 113 px: 487 -> 125;
# 672 channels 5x5 at 14 px: 110 -> 48; 144 channels 3x3 at 56 px: 68 -> 82, left alone.
# EfficientNet-Lite0 as a whole: 14.6 -> 23.1 pictures a second.


def speed_up_depthwise(network: nn.Module) -> None:
    """Replace, in place, the depthwise convolutions whose gradient is slow in bfloat16; the weights stay the same.

    Names of tensors do not change, so the state is that of the former network. Meant for training on a CPU under
    bfloat16 autocast; elsewhere it changes nothing but speed.
    """
    for name, child in network.named_children():
        if isinstance(child, nn.Conv2d) and _is_slow(child):
            setattr(network, name, _DepthwiseConv2d(child))
        else:
            speed_up_depthwise(child)


def _is_slow(conv: nn.Conv2d) -> bool:
    is_depthwise = conv.groups == conv.in_channels == conv.out_channels and conv.groups > 1 and conv.bias is None
    is_plain = type(conv) is nn.Conv2d and not isinstance(conv.padding, str) and conv.padding_mode == "zeros"
    return is_depthwise and (is_plain or _pads_same(conv)) and (conv.stride != (1, 1) or conv.kernel_size != (3, 3))


def _pads_same(conv: nn.Module) -> bool:
    return type(conv).__name__ == "Conv2dSame"  # timm's, with TensorFlow's uneven border


class _DepthwiseConv2d(nn.Module):
    """The same convolution under the same name of its weight."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight
        self._stride, self._dilation, self._kernel = conv.stride, conv.dilation, conv.kernel_size
        self._padding = (0, 0) if _pads_same(conv) else conv.padding
        self._pads_same = _pads_same(conv)

    def forward(self, features: Tensor) -> Tensor:
        if self._pads_same:
            features = pad_same(features, self._kernel, self._stride, self._dilation)
        convolved: Tensor = _MixedGradient.apply(features, self.weight, self._stride, self._padding, self._dilation)
        return convolved


class _MixedGradient(torch.autograd.Function):
    """Forward in the features' own precision, backward in float32."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.geometry = (stride, padding, dilation)
        return functional.conv2d(
            features, weight.to(features.dtype), stride=stride, padding=padding, dilation=dilation, groups=len(weight)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        features, weight = ctx.saved_tensors
        of_features, of_weight, _ = torch.ops.aten.convolution_backward(
            gradients[0].float(), features.float(), weight.float(), None, *ctx.geometry,
            False, [0, 0], len(weight), [True, True, False],
        )  # fmt: skip
        return of_features.to(features.dtype), of_weight.to(weight.dtype), None, None, None
