"""A small network that is trained from scratch, for small pictures and quick trials."""

from torch import nn

from retrieval.encoder.checkpoint import ModelConfig
from retrieval.encoder.preprocess import Preprocessing

NAME = "tiny_cnn"
_INPUT_PX = 64
_CHANNELS = 64
_DIM = 128
_MAP_PX = (_INPUT_PX - 2) // 2  # a 3x3 convolution without a border, then 2x2 pooling

CONFIG = ModelConfig(
    name=NAME,
    architecture=f"retrieve/{NAME}",
    pooling="native",
    feature_dim=_DIM,
    projection_dim=None,
    preprocessing=Preprocessing(input_px=_INPUT_PX, resize_px=_INPUT_PX, mean=(127.5,) * 3, std=(127.5,) * 3),
)


def build() -> nn.Module:
    """Build it with random weights: (N, 3, 64, 64) -> (N, 128), none below 0."""
    return nn.Sequential(
        nn.Conv2d(3, _CHANNELS, kernel_size=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(_CHANNELS * _MAP_PX * _MAP_PX, _DIM),
        nn.ReLU(),
    )
