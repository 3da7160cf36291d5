"""The encoder as a network: backbone + pooling + projection + unit norm, one set of weights for both branches."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from retrieval.encoder.checkpoint import ModelConfig, fingerprint, save_checkpoint


class TwinEncoder(nn.Module):
    """Pixels to unit vectors; query and gallery pictures go through the same weights.

    Args:
        config: what the parts are; names the mean and scale that the graph subtracts and divides by.
        backbone: (N, 3, P, P) float -> (N, F, h, w) if `config.pooling` is "average", else (N, F).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: ModelConfig, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
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
        features = self.backbone((pixels.float() - self.mean) / self.scale)
        if self.config.pooling == "average":
            features = features.mean(dim=(2, 3))
        embeddings: Tensor = functional.normalize(self.projection(features.flatten(1)), dim=1)
        return embeddings

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
