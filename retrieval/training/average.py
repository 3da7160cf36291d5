"""The network that is kept: a running average of the weights, which generalises better than any of its steps."""

import copy

import torch

from retrieval.encoder.twin import TwinEncoder

_WARM_UP = 10.0  # steps; as in TensorFlow's ExponentialMovingAverage, so that the start does not weigh for ever


class WeightAverage:
    """An exponential moving average of a network's state.

    Args:
        network: what is trained; it is copied.
        decay: how much of the average stays at a step, in [0, 1); 0 follows the network exactly.

    Source: Polyak and Juditsky 1992; the warm-up as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, network: TwinEncoder, decay: float) -> None:
        self.network: TwinEncoder = copy.deepcopy(network).requires_grad_(False).eval()
        self.steps = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, network: TwinEncoder) -> None:
        """Take one step towards the state of `network`."""
        self.steps += 1
        decay = min(self._decay, (1.0 + self.steps) / (_WARM_UP + self.steps))
        for average, value in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if average.dtype.is_floating_point:
                average.lerp_(value, 1.0 - decay)
            else:
                average.copy_(value)  # a count of batches
