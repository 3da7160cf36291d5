"""Where and how exactly is it computed? The device, bfloat16 where that is faster, and the layout that suits both."""

import contextlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.encoder.runtime import has_gpu
from retrieval.encoder.torch_runtime import check_device
from retrieval.errors import DeviceUnavailable
from retrieval.training.config import TrainConfig


@dataclass(frozen=True)
class Precision:
    """A device, and whether the forward pass is in bfloat16; losses are always computed in float32.

    Attributes:
        device: of the network.
        is_bf16: autocast to bfloat16, which needs no scaling of the loss.
    """

    device: torch.device
    is_bf16: bool

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context of a forward pass."""
        if self.is_bf16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def pixels(self, pixels: NDArray[np.uint8]) -> Tensor:
        """(N, 3, P, P) pixels on the device, channels last."""
        return torch.from_numpy(pixels).to(self.device).contiguous(memory_format=torch.channels_last)


def choose_precision(config: TrainConfig) -> Precision:
    """The device that the configuration names, and what is fastest there.

    Raises:
        DeviceUnavailable: torch cannot use that device, or it lacks the precision asked for.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if has_gpu() and torch.cuda.is_available() else "cpu"
    device = check_device(name)
    # OpenVINO, which indexing asks, is not: it and torch in one process do not survive a Ctrl-C.
    has_bf16 = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if config.precision == "bf16" and not has_bf16:
        raise DeviceUnavailable("this CPU does not compute in bfloat16; use precision f32 or auto")
    return Precision(device, has_bf16 and config.precision != "f32")
