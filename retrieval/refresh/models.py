"""The models that an index keeps for itself: a trained one exists nowhere else, and the way back needs it."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from indexer.files import translated_os_errors
from indexer.spaces import MODELS_FOLDER, Space
from indexer.store import IndexStore
from retrieval.encoder.backbones import resolve_model
from retrieval.encoder.runtime import describe_model
from retrieval.index_model import model_address

_STAND_IN_FILE = "stand_in.json"


def keep_model(index_dir: Path, model: str | os.PathLike[str]) -> str:
    """Copy a model directory into the index, whole or not at all; a model with a name of its own needs no copy.

    Returns:
        What the model's space is to be opened by.

    Raises:
        UnknownModel, ModelDamaged
        DiskFull, IndexReadOnly
    """
    reference = resolve_model(model)
    if reference.folder is None:
        return reference.address
    models = index_dir.resolve() / MODELS_FOLDER
    if reference.folder.parent == models:
        return f"{MODELS_FOLDER}/{reference.folder.name}"
    name = f"{reference.name}-{describe_model(model).fingerprint[:8]}"
    if not (models / name).is_dir():
        with translated_os_errors(models):
            models.mkdir(exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=models))
            try:
                shutil.copytree(reference.folder, aside, dirs_exist_ok=True)
                aside.rename(models / name)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    return f"{MODELS_FOLDER}/{name}"


def open_space(store: IndexStore, model: str | os.PathLike[str]) -> Space:
    """The space of a model in an index, which gets a copy of the model where it needs one.

    Raises:
        UnknownModel, WeightsUnavailable, ModelDamaged
        IndexReadOnly, DiskFull
    """
    described = describe_model(model)
    return store.open_space(
        model_name=keep_model(store.index_dir, model), model_fingerprint=described.fingerprint, dim=described.dim
    )


def drop_model(index_dir: Path, space: Space) -> None:
    """Remove a space's model from the index, if it is kept there."""
    if space.model_name.startswith(f"{MODELS_FOLDER}/"):
        shutil.rmtree(index_dir / space.model_name, ignore_errors=True)


def is_there(index_dir: Path, space: Space) -> bool:
    """Whether a space's model was not dropped; one that the index does not keep may be anywhere."""
    return not space.model_name.startswith(f"{MODELS_FOLDER}/") or (index_dir / space.model_name).is_dir()


def stand_in(store: IndexStore, space: Space) -> Space:
    """The model that is judged in another's place: itself, unless it has seen the pictures that are held out."""
    try:
        path = Path(model_address(store.index_dir, space)) / _STAND_IN_FILE
        fingerprint = json.loads(path.read_bytes())["fingerprint"]
    except (OSError, ValueError, KeyError):
        return space
    return next((one for one in store.spaces() if one.model_fingerprint == fingerprint), space)


def set_stand_in(store: IndexStore, space: Space, other: Space) -> None:
    """Let another model of the index be judged in this one's place from now on.

    Raises:
        DiskFull, IndexReadOnly
    """
    path = Path(model_address(store.index_dir, space)) / _STAND_IN_FILE
    with translated_os_errors(path):
        path.write_text(json.dumps({"fingerprint": other.model_fingerprint}) + "\n", "utf-8")
