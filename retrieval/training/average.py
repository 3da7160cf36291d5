"""The network that is kept: a running average of the weights, which generalises better than any of its steps."""

import copy

import torch

from retrieval.encoder.twin import TwinEncoder

_WARM_UP = 10.0  # steps; as in TensorFlow's ExponentialMovingAverage, so that the start does not weigh for ever


class WeightAverage:
    """An exponential moving average of a network's state, part of the way back to where the network started.

    Args:
        network: what is trained, before the first step; it is copied.
        decay: how much of the average stays at a step, in [0, 1); 0 follows the network exactly.
        start_share: of the weights before the first step in those that are kept, in [0, 1). What the start knew of
            things that nothing is learned of stays in them.

    Source: Polyak and Juditsky 1992; the warm-up as in TensorFlow's ExponentialMovingAverage; weights between start and
    end as in Wortsman et al. 2022, "Robust fine-tuning of zero-shot models".
    """

    def __init__(self, network: TwinEncoder, decay: float, start_share: float = 0.0) -> None:
        self.network: TwinEncoder = copy.deepcopy(network).requires_grad_(False).eval()
        self.steps = 0
        self._decay = decay
        self._start_share = start_share
        self._start = [value.clone() for value in self.network.state_dict().values()]

    @torch.no_grad()
    def update(self, network: TwinEncoder) -> None:
        """Take one step towards the state of `network`."""
        self.steps += 1
        decay = min(self._decay, (1.0 + self.steps) / (_WARM_UP + self.steps))
        states = self.network.state_dict().values(), network.state_dict().values(), self._start
        for average, value, start in zip(*states, strict=True):
            if average.dtype.is_floating_point:
                average.lerp_(value.lerp(start, self._start_share), 1.0 - decay)
            else:
                average.copy_(value)  # a count of batches
