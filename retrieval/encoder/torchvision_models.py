"""How does a name in torchvision become a TwinEncoder? Its default weights, its preprocessing, without its head."""

import itertools
import re
from typing import Any

import torchvision
from torch import Tensor, nn

from retrieval.encoder.backbones import local_weights
from retrieval.encoder.library import as_preprocessing, as_twin, read_state, unavailable, unfitting
from retrieval.encoder.twin import TwinEncoder

_HEADS = ("fc", "classifier", "heads", "head")

# These two were trained with auxiliary classifiers, and on pixels scaled otherwise, which `transform_input` undoes;
# torchvision sets both by itself, but only where it loads the weights itself.
_WITHOUT_AUXILIARIES = {"aux_logits": False, "transform_input": True, "init_weights": False}
_OPTIONS: dict[str, dict[str, Any]] = {"googlenet": _WITHOUT_AUXILIARIES, "inception_v3": _WITHOUT_AUXILIARIES}
_AUXILIARY = re.compile(r"(aux1|aux2|AuxLogits)\.")
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")  # as in the published files


def names() -> list[str]:
    """List torchvision's classification models (those for detection, segmentation and video yield no one vector)."""
    return [str(name) for name in torchvision.models.list_models(module=torchvision.models)]


def load(name: str) -> TwinEncoder:
    """Build a model with its default weights, from a file put by hand or a download whose hash is checked.

    Raises:
        WeightsUnavailable: they are not on this machine and could not be downloaded.
        ModelDamaged: the file put by hand does not fit.
    """
    choice = torchvision.models.get_model_weights(name)["DEFAULT"]
    how = choice.transforms()
    path = local_weights(name)
    state = _download(name, choice) if path is None else read_state(path, name)
    network = torchvision.models.get_model(name, weights=None, **_OPTIONS.get(name, {}))
    try:
        network.load_state_dict(_renamed(state), strict=True)
    except RuntimeError as error:
        raise unfitting(name, path or choice.url, error) from error
    preprocessing = as_preprocessing(how.crop_size[0], how.resize_size[0], how.interpolation.value, how.mean, how.std)
    return as_twin(name, f"torchvision/{name}", _without_head(network), preprocessing)


def build(name: str) -> nn.Module:
    """Build a network without trained weights and without its head."""
    return _without_head(torchvision.models.get_model(name, weights=None, **_OPTIONS.get(name, {})))


def _download(name: str, choice: Any) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = choice.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise unavailable(name, choice.url, error) from error
    return state


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name tensors as today's networks do, and leave out auxiliary classifiers, as torchvision's own loaders do."""
    kept = {name: tensor for name, tensor in state.items() if not _AUXILIARY.match(name)}
    return {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in kept.items()}


def _without_head(network: Any) -> nn.Module:
    """Cut a network's head off before its first linear layer; norms and pooling before it stay."""
    assert isinstance(network, nn.Module)
    head = next(name for name in _HEADS if hasattr(network, name))
    layers = [getattr(network, head)]
    if isinstance(layers[0], nn.Sequential):
        layers = list(layers[0])
    kept = list(itertools.takewhile(lambda layer: not isinstance(layer, nn.Linear), layers))
    if len(kept) == len(layers):  # SqueezeNet classifies by a convolution
        kept = [nn.AdaptiveAvgPool2d(1)]
    setattr(network, head, nn.Sequential(*kept))
    return network
