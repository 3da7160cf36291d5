"""What do torchvision and timm have in common? Weights in files, and errors that say where to put them."""

import pickle
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from retrieval.encoder.backbones import user_cache
from retrieval.encoder.checkpoint import ModelConfig
from retrieval.encoder.preprocess import Preprocessing
from retrieval.encoder.twin import TwinEncoder
from retrieval.errors import ModelDamaged, WeightsUnavailable


def read_state(path: Path, name: str) -> dict[str, Tensor]:
    """Read a file of weights, .safetensors or .pth; a pickle is never run.

    Args:
        path: the file.
        name: the model's, for the error.

    Raises:
        ModelDamaged: it cannot be parsed, or holds anything but tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise unfitting(name, path, error) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise unfitting(name, path, "it holds more than tensors by name; save model.state_dict()")
    return state


def as_twin(name: str, architecture: str, backbone: nn.Module, preprocessing: Preprocessing) -> TwinEncoder:
    """Wrap a network that pools by itself; its output's length is found by a trial."""
    pixels = torch.zeros(1, 3, preprocessing.input_px, preprocessing.input_px)
    with torch.inference_mode():
        feature_dim = backbone.eval()(pixels).flatten(1).shape[1]
    config = ModelConfig(name, architecture, "native", feature_dim, None, preprocessing)
    return TwinEncoder(config, backbone)


def as_preprocessing(
    input_px: int, resize_px: int, interpolation: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocessing:
    """Translate a library's description; it gives mean and std for values in [0, 1]."""
    return Preprocessing(
        input_px=input_px,
        resize_px=max(resize_px, input_px),
        interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
        mean=cast(tuple[float, float, float], tuple(255.0 * value for value in mean)),
        std=cast(tuple[float, float, float], tuple(255.0 * value for value in std)),
    )


def unfitting(name: str, path: Path | str, error: object) -> ModelDamaged:
    """The error for a file that does not hold a model's weights."""
    reason = " ".join(str(error).split())[:200]
    return ModelDamaged(f"{path} does not hold the weights of {name} ({reason}); replace or delete it")


def unavailable(name: str, url: str, error: Exception) -> WeightsUnavailable:
    """The error for weights that could not be downloaded; says which file to put where."""
    reason = (str(error).split("\n")[0] or type(error).__name__)[:120]
    return WeightsUnavailable(
        f"the weights of {name} are not on this machine and could not be downloaded ({reason}); "
        f"go online, or save {url} as {place(name, Path(url).suffix)}"
    )


def place(name: str, suffix: str) -> Path:
    """Where `local_weights` looks for a model's weights."""
    return user_cache() / "weights" / f"{name}{suffix}"
