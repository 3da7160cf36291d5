"""How does a training survive a kill? Its state after every epoch, on disk whole or not at all; never unpickled."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from retrieval.errors import TrainingDiverged, TrainingError
from retrieval.files import one_line

_FORMAT = 1
_INDEX = "state.json"
_WEIGHTS = ("network", "average")


@dataclass(frozen=True)
class SavedState:
    """Everything that the next epoch depends on.

    Attributes:
        tensors: by name: "network.", "average.", "optimiser.", "objective." and "catalogue." in front.
        values: JSON-plain: history and whatever else is no tensor.
    """

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, by their own names."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): tensor for key, tensor in self.tensors.items() if key.startswith(prefix)}


def has_state(folder: Path) -> bool:
    """Whether a state was written there, whole or damaged since."""
    return (folder / _INDEX).is_file()


def save_state(folder: Path, state: SavedState) -> None:
    """Write a state; the one before it stays whole until this one is.

    The tensors get a file of their own name; the index, which is renamed into place last, names it with its checksum.

    Raises:
        TrainingDiverged: a weight is no number any more; the former state is untouched.
        TrainingError: there is no space, or no permission; the former state is untouched.
    """
    if not all(bool(tensor.isfinite().all()) for part in _WEIGHTS for tensor in state.part(part).values()):
        raise TrainingDiverged(
            "the weights are no numbers any more; lower --rates or --clip; what was saved before is untouched"
        )
    content = save({name: tensor.detach().contiguous().cpu() for name, tensor in state.tensors.items()})
    checksum = hashlib.sha256(content).hexdigest()
    file = f"state-{checksum[:16]}.safetensors"
    values = dict(state.values)
    index = {"format": _FORMAT, "file": file, "sha256": checksum, "values_sha256": _checksum(values), "values": values}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / file, content)
        _write(folder / _INDEX, json.dumps(index).encode())
    except OSError as error:
        in_force = (_INDEX, _named(folder))
        for path in folder.glob("state*"):
            if path.name not in in_force:
                with contextlib.suppress(OSError):
                    path.unlink()
        raise unwritable_checkpoint(folder, error) from error
    for path in folder.glob("state-*"):
        if path.name != file:
            path.unlink(missing_ok=True)


def load_state(folder: Path) -> SavedState | None:
    """Read the last state that was written whole; None where there is none.

    Raises:
        TrainingError: it is damaged, or was written by a newer version.
    """
    remedy = f"delete {folder.parent} and train afresh"
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        version = index["format"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"checkpoint {folder / _INDEX} cannot be read ({one_line(error)}); {remedy}") from error
    if version != _FORMAT:
        raise TrainingError(
            f"checkpoint {folder} has format {version}, this version reads {_FORMAT}; upgrade retrieval-engine, or "
            f"{remedy}"
        )
    try:
        file, checksum, values = str(index["file"]), index["sha256"], index["values"]
        if _checksum(values) != index["values_sha256"]:
            raise ValueError("its values differ from their checksum")
    except (KeyError, ValueError) as error:
        raise TrainingError(f"checkpoint {folder / _INDEX} is damaged ({one_line(error)}); {remedy}") from error
    try:
        content = (folder / file).read_bytes()
        if hashlib.sha256(content).hexdigest() != checksum:
            raise ValueError("it differs from its checksum")
        return SavedState(load(content), values)
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(f"checkpoint {folder / file} is damaged ({one_line(error)}); {remedy}") from error


def unwritable_checkpoint(folder: Path, error: OSError) -> TrainingError:
    """The error for a checkpoint, of whichever file, that the disk does not take."""
    return TrainingError(
        f"checkpoint {folder} cannot be written ({error.strerror or error}); the one before it is whole: free some "
        "space and run the same command with --resume"
    )


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments as named tensors; its rates are set anew at every step."""
    return {
        f"{number}.{name}": value
        for number, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put moments back that `optimiser_tensors` named."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, moment = name.partition(".")
        state.setdefault(int(number), {})[moment] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f"{path.name}.part")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _named(folder: Path) -> str:
    """The file of the state that is in force."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / _INDEX).read_bytes())["file"])
    return ""


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
