"""Where do a network's weights come from? Builds every kind of model as a TwinEncoder; imports torch and timm."""

import difflib
from pathlib import Path

import timm
import torch
from torch import nn

from retrieval.encoder import timm_models, tiny_cnn, torchvision_models
from retrieval.encoder.backbones import BACKBONES, PackagedBackbone, resolve_model
from retrieval.encoder.checkpoint import ModelConfig, Pooling, load_checkpoint
from retrieval.encoder.twin import TwinEncoder
from retrieval.errors import ModelDamaged, UnknownModel


def load_twin(model: str) -> TwinEncoder:
    """Build the model that a name or directory stands for, with its weights, in evaluation mode.

    Raises:
        UnknownModel: no such name or directory; close names are listed.
        WeightsUnavailable: the weights are not on this machine and could not be downloaded.
        ModelDamaged: weights differ from their checksum or do not fit the network.
    """
    reference = resolve_model(model)
    if reference.kind == "packaged":
        twin = _packaged_twin(BACKBONES[reference.name])
    elif reference.folder is not None:
        twin = _checkpoint_twin(reference.folder)
    else:
        library, name = find_in_library(reference.name)
        twin = torchvision_models.load(name) if library == "torchvision" else timm_models.load(name)
    return twin.eval().requires_grad_(False)


def build_backbone(architecture: str, pooling: Pooling) -> nn.Module:
    """Build a backbone without its classifier and without trained weights.

    Args:
        architecture: "timm/NAME", "torchvision/NAME" or "retrieve/tiny_cnn".
        pooling: "average" and "gem" leave the feature map unpooled (timm only); "native" lets the network pool.
    """
    library, _, name = architecture.partition("/")
    if library == "retrieve":
        return tiny_cnn.build()
    return torchvision_models.build(name) if library == "torchvision" else timm_models.build(name, pooling)


def find_in_library(name: str) -> tuple[str, str]:
    """Say which library knows a name.

    Args:
        name: "NAME", "torchvision/NAME" or "timm/NAME"; a timm name may carry its weights' tag ("NAME.TAG").

    Returns:
        The library and the bare name.

    Raises:
        UnknownModel: neither does; close names are listed.
    """
    library, _, bare = name.rpartition("/")
    of_torchvision = torchvision_models.names()
    if library in ("", "torchvision") and bare in of_torchvision:
        return "torchvision", bare
    if library in ("", "timm") and timm.is_model(bare):
        return "timm", bare
    known = [*BACKBONES, *of_torchvision, *timm.list_models()]
    close = difflib.get_close_matches(bare, known, n=3, cutoff=0.6)
    hint = f"did you mean {', '.join(close)}?" if close else "run: retrieve models"
    raise UnknownModel(f"no model is named {name!r}; {hint}")


def _packaged_twin(backbone: PackagedBackbone) -> TwinEncoder:
    saved = torch.load(backbone.weights_path(), map_location="cpu", weights_only=True)
    network = timm.create_model(backbone.architecture)
    # The packages name their tensors by another implementation of the same network; both list them in its order.
    names = list(network.state_dict())
    network.load_state_dict(dict(zip(names, saved.values(), strict=True)), strict=True)
    config = ModelConfig(
        name=backbone.name,
        architecture=f"timm/{backbone.architecture}",
        pooling="average",
        feature_dim=backbone.dim,
        projection_dim=None,
        preprocessing=backbone.preprocessing,
    )
    return TwinEncoder(config, timm_models.without_classifier(network, "average"))


def _checkpoint_twin(folder: Path) -> TwinEncoder:
    config, state = load_checkpoint(folder)
    try:
        twin = TwinEncoder(config, build_backbone(config.architecture, config.pooling))
        twin.load_weights(state)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelDamaged(f"the weights of {folder} do not fit {config.architecture} ({reason})") from error
    return twin
