"""A model directory: config.json + weights.safetensors, bound together by a fingerprint; loading never unpickles."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrieval.encoder.preprocess import Preprocessing
from retrieval.errors import ModelDamaged, ModelError, UnknownModel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"
_FORMAT = 1

Pooling = Literal["average", "gem", "native"]
State = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ModelConfig:
    """Everything that, with the weights, determines an embedding.

    Attributes:
        name: what people call the model; the only field that is not part of its fingerprint.
        architecture: the backbone, "timm/NAME", "torchvision/NAME" or "retrieve/tiny_cnn".
        pooling: "average" and "gem" pool the backbone's feature map; "native" leaves pooling to the backbone.
        feature_dim: values that the pooled backbone yields.
        projection_dim: values after the projection, or None without one.
        preprocessing: how a picture becomes (3, P, P) pixels.
    """

    name: str
    architecture: str
    pooling: Pooling
    feature_dim: int
    projection_dim: int | None
    preprocessing: Preprocessing

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""
        return self.feature_dim if self.projection_dim is None else self.projection_dim

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "pooling": self.pooling,
            "feature_dim": self.feature_dim,
            "projection_dim": self.projection_dim,
            "preprocessing": self.preprocessing.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Rebuild from `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or has another type.
            ModelError: the preprocessing is of another version, or is none.
        """
        return cls(
            name=str(values["name"]),
            architecture=str(values["architecture"]),
            pooling=values["pooling"],
            feature_dim=int(values["feature_dim"]),
            projection_dim=None if values["projection_dim"] is None else int(values["projection_dim"]),
            preprocessing=Preprocessing.from_dict(values["preprocessing"]),
        )


def fingerprint(config: ModelConfig, state: State) -> str:
    """Name an embedding space: two models with one fingerprint give one picture the same embedding.

    Precision, runtime and library versions are left out on purpose: they change an embedding by less than 1e-3.

    Args:
        config: all but its name counts; the preprocessing brings the version of its code.
        state: the weights; order does not count.

    Returns:
        64 hex digits (sha256).
    """
    counted = {key: value for key, value in config.to_dict().items() if key != "name"}
    digest = hashlib.sha256(json.dumps(counted, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(state):
        tensor = state[name]
        digest.update(json.dumps([name, tensor.dtype.name, list(tensor.shape)], separators=(",", ":")).encode())
        digest.update(tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def save_checkpoint(folder: Path, config: ModelConfig, state: State) -> str:
    """Write a model directory whole or not at all; a model directory of that name is replaced.

    Args:
        folder: the directory to make; a link stays one.
        config: as `fingerprint` takes it.
        state: the weights by tensor name.

    Returns:
        The fingerprint.

    Raises:
        ModelError: something that is not a model directory stands at `folder`.
        OSError: the disk is full or read-only.
    """
    from safetensors.numpy import save

    if folder.exists() and not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"{folder} exists and is no model directory; choose another name or remove it")
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    identity = fingerprint(config, state)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        aside.chmod(0o755)  # mkdtemp makes it private
        # safetensors writes the buffer as it lies; unlike ascontiguousarray, this keeps a scalar's shape.
        # Its save_file makes a full disk an error of its own, without the cause, and the file private.
        (aside / WEIGHTS_FILE).write_bytes(save({name: np.asarray(one, order="C") for name, one in state.items()}))
        values = {"format": _FORMAT, **config.to_dict(), "fingerprint": identity}
        (aside / CONFIG_FILE).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
        _sync(aside)
        _replace_folder(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return identity


def read_config(folder: Path) -> tuple[ModelConfig, str]:
    """Read a model directory's configuration and the fingerprint it claims; the weights are not looked at.

    Raises:
        UnknownModel: `folder` is no model directory.
        ModelDamaged: the configuration cannot be parsed.
        ModelError: it was made for another version of the format or of the preprocessing.
    """
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_bytes())
        if values["format"] != _FORMAT:
            raise ModelError(f"it has format {values['format']}, this program reads {_FORMAT}; update the program")
        return ModelConfig.from_dict(values), str(values["fingerprint"])
    except (FileNotFoundError, NotADirectoryError):
        raise UnknownModel(f"{folder} is no model directory: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelDamaged(f"{path} cannot be read ({_in_words(error)}); copy the model directory again") from error
    except ModelError as error:
        raise ModelError(f"model {folder} cannot be used: {error}") from error


def load_checkpoint(folder: Path) -> tuple[ModelConfig, dict[str, NDArray[Any]]]:
    """Read a model directory and check that its weights are those it was saved with.

    Raises:
        UnknownModel: `folder` is no model directory.
        ModelDamaged: a file cannot be parsed, or the weights do not have the fingerprint in the configuration.
        ModelError: it was made for another version of the format or of the preprocessing.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config, claimed = read_config(folder)
    path = folder / WEIGHTS_FILE
    try:
        state = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise ModelDamaged(f"{path} cannot be read ({_in_words(error)}); copy the model directory again") from error
    found = fingerprint(config, state)
    if found != claimed:
        raise ModelDamaged(
            f"model {folder} has fingerprint {found[:12]}, its {CONFIG_FILE} says {claimed[:12]}; copy it again"
        )
    return config, state


def _replace_folder(fresh: Path, target: Path) -> None:
    """Rename `fresh` to `target`, which may exist; a reader that has the former one open keeps it."""
    former = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        if target.exists():
            target.rename(former / "former")  # rename replaces only an empty directory
        fresh.rename(target)
    finally:
        shutil.rmtree(former, ignore_errors=True)


def _in_words(error: Exception) -> str:
    return f"missing {error}" if isinstance(error, KeyError) else " ".join(str(error).split())


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
