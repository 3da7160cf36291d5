"""What can `--model` name, and which weights are on this machine?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from retrieval.encoder.artifact import DESCRIPTION_FILE, read_artifact
from retrieval.encoder.backbones import BACKBONES, WEIGHT_SUFFIXES, user_cache
from retrieval.encoder.child import call_child


@dataclass(frozen=True)
class ModelListing:
    """A model that can be named.

    Attributes:
        name: what to pass as `--model`.
        source: where it comes from: "packaged" with the installation, "converted" and "file" are in the user's cache
            (converted before, or put there by hand), "torchvision" and "timm" know its name.
        is_at_hand: it opens without a network.
    """

    name: str
    source: Literal["packaged", "converted", "file", "torchvision", "timm"]
    is_at_hand: bool


def list_models(*, everything: bool = False) -> list[ModelListing]:
    """List models by name, packaged ones first, each once.

    Args:
        everything: also ask torchvision and timm, in a child process that takes some seconds: about 1,800 names.
    """
    rows = [ModelListing(name, "packaged", backbone.is_installed()) for name, backbone in BACKBONES.items()]
    rows += sorted(_in_user_cache(), key=lambda row: row.name)
    if everything:
        rows += [ModelListing(name, source, at_hand) for name, source, at_hand in call_child("retrieval.encoder.names")]
    first: dict[str, ModelListing] = {}
    for row in rows:
        first.setdefault(row.name, row)
    return list(first.values())


def _in_user_cache() -> Iterator[ModelListing]:
    cache = user_cache()
    for description in cache.glob(f"models/[!.]*/{DESCRIPTION_FILE}"):
        artifact = read_artifact(description.parent)
        if artifact is not None and artifact.description.name not in BACKBONES:
            yield ModelListing(artifact.description.name, "converted", True)
    for suffix in WEIGHT_SUFFIXES:
        for path in cache.glob(f"weights/*{suffix}"):
            yield ModelListing(path.name.removesuffix(suffix), "file", True)
