"""The model that an index's vectors are of: its encoder, opened when it is needed, and what it knows of matches."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import ModelMismatch
from indexer.spaces import MODELS_FOLDER, Space
from retrieval.calibration import Matcher, find_matcher_if_whole
from retrieval.embedder import Embedder
from retrieval.encoder.runtime import Encoder, open_encoder
from retrieval.errors import UnknownModel
from retrieval.images import DecodeLimits


@dataclass(frozen=True)
class IndexModel:
    """A model as an index uses it.

    Attributes:
        space: the embedding space of its vectors.
        address: what opens it, a name or a model directory.
        embedder: pictures to its vectors.
        matcher: what it knows of matches, or None.
    """

    space: Space
    address: str
    embedder: Embedder
    matcher: Matcher | None


@dataclass(frozen=True)
class ModelOptions:
    """How the models of an index are opened on this machine; see `open_encoder` and `DecodeLimits`."""

    device: str = "auto"
    threads: int | None = None
    batch_size: int | None = None
    limits: DecodeLimits = DecodeLimits()


def open_index_model(
    index_dir: Path,
    space: Space,
    options: ModelOptions = ModelOptions(),
    moved_to: str | os.PathLike[str] | None = None,
) -> IndexModel:
    """The model of one of an index's spaces. Its encoder is opened by the first picture, and checked to be that one.

    Args:
        index_dir: where the index is.
        space: of the index.
        options: how to open it.
        moved_to: where the model is now; None: where the index says.
    """
    address = model_address(index_dir, space) if moved_to is None else os.fspath(moved_to)
    return IndexModel(
        space,
        address,
        Embedder(_opening(index_dir, space, address, options), options.limits),
        find_matcher_if_whole(address, space.model_fingerprint),
    )


def model_address(index_dir: Path, space: Space) -> str:
    """What opens a space's model: a name, or the absolute path of a model directory, which may lie in the index."""
    is_inside = space.model_name.startswith(f"{MODELS_FOLDER}/")
    return str(index_dir / space.model_name) if is_inside else space.model_name


def check_model(index_dir: Path, space: Space, name: str, fingerprint: str) -> None:
    """Raise unless a model is the one that a space's vectors are of.

    Raises:
        ModelMismatch: names both.
    """
    if fingerprint != space.model_fingerprint:
        raise ModelMismatch(
            f"index {index_dir} was built by {space.model_name}@{space.model_fingerprint[:8]}, the query encoder "
            f"is {name}@{fingerprint[:8]}; pass the former with --model, or index into another folder with --index"
        )


def _opening(index_dir: Path, space: Space, address: str, options: ModelOptions) -> Callable[[], Encoder]:
    def open_model() -> Encoder:
        try:
            encoder = open_encoder(
                address, device=options.device, threads=options.threads, batch_size=options.batch_size
            )
        except UnknownModel as error:
            raise UnknownModel(
                f"index {index_dir} was built by {space.model_name}, which is not there ({error}); put it back, or say "
                "with --model where it is now"
            ) from error
        try:
            check_model(index_dir, space, encoder.name, encoder.fingerprint)
        except ModelMismatch:
            encoder.close()
            raise
        return encoder

    return open_model
