"""Statistics of the activations that a backbone came with, kept while it is trained on."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def freeze_batch_norm(network: nn.Module) -> None:
    """Let batch normalisation use the statistics that it has, until the network is put into training mode again.

    Its scales and offsets are trained as before. Source: Musgrave et al. 2020, "A Metric Learning Reality Check", which
    freezes them in every run.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
