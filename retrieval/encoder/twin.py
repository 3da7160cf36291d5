"""The encoder as a network: backbone + pooling + projection + unit norm, one set of weights for both branches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from retrieval.encoder.checkpoint import ModelConfig, Pooling, fingerprint, save_checkpoint


class AveragePooling(nn.Module):
    """(N, F, h, w) -> (N, F): the mean over the map."""

    def forward(self, features: Tensor) -> Tensor:  # noqa: D102 - see the class
        return features.mean(dim=(2, 3))


class GeMPooling(nn.Module):
    """(N, F, h, w) -> (N, F): the generalised mean, (mean of x^p)^(1/p), with a learned p; p = 1 is the mean.

    Source: Radenovic, Tolias and Chum 2018, "Fine-tuning CNN Image Retrieval with No Human Annotation".
    """

    _LEAST = 1e-6  # below it the gradient of x^p explodes

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(3.0))  # the value that the source starts from

    def forward(self, features: Tensor) -> Tensor:  # noqa: D102 - see the class
        powers = features.float().clamp(min=self._LEAST) ** self.p
        return powers.mean(dim=(2, 3)) ** (1.0 / self.p)


_POOLINGS: dict[Pooling, Callable[[], nn.Module]] = {
    "average": AveragePooling,
    "gem": GeMPooling,
    "native": nn.Identity,
}


class TwinEncoder(nn.Module):
    """Pixels to unit vectors; query and gallery pictures go through the same weights.

    Args:
        config: what the parts are; names the mean and scale that the graph subtracts and divides by.
        backbone: (N, 3, P, P) float -> (N, F, h, w) if `config.pooling` is "average" or "gem", else (N, F).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: ModelConfig, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.pooling = _POOLINGS[config.pooling]()
        self.projection: nn.Module = nn.Identity()
        if config.projection_dim is not None:
            self.projection = nn.Linear(config.feature_dim, config.projection_dim)
        # Constants of the configuration, not weights: they are no part of the state.
        self.register_buffer("mean", torch.tensor(config.preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(config.preprocessing.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            pixels: (N, 3, P, P) uint8, RGB.

        Returns:
            (N, D) float, unit rows.
        """
        embeddings: Tensor = functional.normalize(self.projection(self.features(pixels)), dim=1)
        return embeddings

    def features(self, pixels: Tensor) -> Tensor:
        """What the projection is given: (N, F) pooled values of the backbone for (N, 3, P, P) uint8 pixels."""
        pooled: Tensor = self.pooling(self.backbone((pixels.float() - self.mean) / self.scale))
        return pooled.flatten(1)

    def weights(self) -> dict[str, NDArray[Any]]:
        """The state as arrays on the CPU, by tensor name."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}

    def fingerprint(self) -> str:
        """Name the embedding space of the present weights."""
        return fingerprint(self.config, self.weights())

    def save(self, folder: Path) -> str:
        """Write a model directory, as `save_checkpoint` does, and return its fingerprint."""
        return save_checkpoint(folder, self.config, self.weights())

    def load_weights(self, state: dict[str, NDArray[Any]]) -> None:
        """Replace the weights.

        Raises:
            RuntimeError: names or shapes are not those of this network.
        """
        self.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in state.items()})
