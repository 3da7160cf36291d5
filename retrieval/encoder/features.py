"""What a model computes before its head, as a model of its own, so that another head needs no picture again."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoder.checkpoint import ModelConfig, fingerprint, load_checkpoint, save_checkpoint

_WEIGHT, _BIAS = "projection.weight", "projection.bias"  # of `TwinEncoder`


def features_fingerprint(model: Path) -> str:
    """The fingerprint of `save_features_model` of a model directory, without writing it.

    Raises:
        UnknownModel, ModelDamaged
    """
    return fingerprint(*_features_model(model))


def save_features_model(model: Path, folder: Path) -> str:
    """Write the model whose embeddings are the features that the head of another is given.

    An embedding is the F features and a 1, scaled to unit length: homogeneous coordinates, of which `head_of` makes the
    other model's embedding whatever the features' own length was.

    Args:
        model: a model directory.
        folder: to write.

    Returns:
        The fingerprint: the same for all models that differ in their heads alone.

    Raises:
        UnknownModel, ModelDamaged
    """
    return save_checkpoint(folder, *_features_model(model))


def head_of(model: Path) -> NDArray[np.float32]:
    """(D, F + 1): times the embedding of its features model, and scaled to unit length, it gives a model's embedding.

    Raises:
        UnknownModel, ModelDamaged
    """
    config, state = load_checkpoint(model)
    if config.projection_dim is None:
        return np.eye(config.feature_dim, config.feature_dim + 1, dtype=np.float32)
    return np.hstack([state[_WEIGHT], state[_BIAS][:, None]]).astype(np.float32)


def _features_model(model: Path) -> tuple[ModelConfig, dict[str, NDArray[Any]]]:
    config, state = load_checkpoint(model)
    features = config.feature_dim
    head = {
        _WEIGHT: np.eye(features + 1, features, dtype=np.float32),
        _BIAS: np.eye(1, features + 1, features, dtype=np.float32)[0],
    }
    named = {"name": f"features of {config.architecture.rpartition('/')[2]}", "projection_dim": features + 1}
    return ModelConfig.from_dict(config.to_dict() | named), {**state, **head}
