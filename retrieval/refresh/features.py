"""Where only the head of a model has changed, its vectors come from features that are kept, and no picture is read."""

import tempfile
from pathlib import Path

from indexer.spaces import Space
from indexer.store import IndexStore
from retrieval.encoder.backbones import resolve_model
from retrieval.encoder.checkpoint import CONFIG_FILE, read_config
from retrieval.encoder.features import features_fingerprint, head_of, save_features_model
from retrieval.encoder.rows import unit_rows
from retrieval.encoder.runtime import describe_model
from retrieval.index_model import model_address
from retrieval.refresh.models import open_space


def features_space(store: IndexStore, space: Space, *, keep: bool = False) -> Space | None:
    """The space of features that a space's vectors can be made of: those that its model's head is given.

    Args:
        store: the index.
        space: of it.
        keep: make it where there is none that has vectors.

    Raises:
        ModelDamaged
        IndexReadOnly, IndexBusy, DiskFull
    """
    model = Path(model_address(store.index_dir, space))
    if not (model / CONFIG_FILE).is_file():
        return None  # a model with a name has no head of ours
    wanted = features_fingerprint(model)
    for one in store.spaces():
        if one.model_fingerprint == wanted and store.snapshot_of(one).images:
            return one
    if not keep:
        return None
    with tempfile.TemporaryDirectory(prefix="retrieve-features-") as folder:
        save_features_model(model, Path(folder) / "features")
        return open_space(store, Path(folder) / "features")


def apply_head(store: IndexStore, features: Space, space: Space) -> int:
    """Give pictures whose features are kept their vectors in a space; returns how many had none before.

    Raises:
        ModelDamaged
        IndexReadOnly, IndexBusy, DiskFull
    """
    head = head_of(Path(model_address(store.index_dir, space)))  # (D, F + 1)
    wanting = store.count_without_vector(space)
    for ids, kept in store.snapshot_of(features).blocks():
        store.fill(space, dict(zip(ids.tolist(), unit_rows(kept @ head.T), strict=True)))
    return wanting - store.count_without_vector(space)


def features_dim(model: str) -> int:
    """How many values the features of a model have that are kept, by its name or model directory.

    Raises:
        UnknownModel, ModelDamaged
    """
    folder = resolve_model(model).folder
    return (describe_model(model).dim if folder is None else read_config(folder)[0].feature_dim) + 1
