"""Where do a network's weights come from? Builds every kind of model as a TwinEncoder; imports torch and timm."""

import difflib
import hashlib
import itertools
import math
import pickle
import re
from pathlib import Path
from typing import Any, Literal, cast

import timm
import torch
import torchvision
from torch import nn

from retrieval.encoder.backbones import BACKBONES, PackagedBackbone, local_weights, resolve_model, user_cache
from retrieval.encoder.checkpoint import ModelConfig, load_checkpoint
from retrieval.encoder.preprocess import Preprocessing
from retrieval.encoder.twin import TwinEncoder
from retrieval.errors import ModelDamaged, UnknownModel, WeightsUnavailable

HUB_FILE = "model.safetensors"  # what timm calls the weights on the hub
_TORCHVISION_HEADS = ("fc", "classifier", "heads", "head")
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
        twin = _torchvision_twin(name) if library == "torchvision" else _timm_twin(name)
    return twin.eval().requires_grad_(False)


def build_backbone(architecture: str, pooling: Literal["average", "native"]) -> nn.Module:
    """Build a backbone without its classifier and without trained weights.

    Args:
        architecture: "timm/NAME" or "torchvision/NAME".
        pooling: "average" leaves the feature map unpooled (timm only); "native" lets the network pool.
    """
    library, _, name = architecture.partition("/")
    if library == "torchvision":
        return _without_classifier(torchvision.models.get_model(name, weights=None))
    return cast(nn.Module, _timm_without_classifier(timm.create_model(name), pooling))


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
    of_torchvision = torchvision_names()
    if library in ("", "torchvision") and bare in of_torchvision:
        return "torchvision", bare
    if library in ("", "timm") and timm.is_model(bare):
        return "timm", bare
    known = [*BACKBONES, *of_torchvision, *timm.list_models()]
    close = difflib.get_close_matches(bare, known, n=3, cutoff=0.6)
    hint = f"did you mean {', '.join(close)}?" if close else "run: retrieve models"
    raise UnknownModel(f"no model is named {name!r}; {hint}")


def torchvision_names() -> list[str]:
    """List torchvision's classification models (those for detection, segmentation and video yield no one vector)."""
    return [str(name) for name in torchvision.models.list_models(module=torchvision.models)]


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
    return TwinEncoder(config, _timm_without_classifier(network, "average"))


def _checkpoint_twin(folder: Path) -> TwinEncoder:
    config, state = load_checkpoint(folder)
    try:
        twin = TwinEncoder(config, build_backbone(config.architecture, config.pooling))
        twin.load_weights(state)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelDamaged(f"the weights of {folder} do not fit {config.architecture} ({reason})") from error
    return twin


def _torchvision_twin(name: str) -> TwinEncoder:
    choice = torchvision.models.get_model_weights(name)["DEFAULT"]
    how = choice.transforms()
    preprocessing = _preprocessing(how.crop_size[0], how.resize_size[0], how.interpolation.value, how.mean, how.std)
    path = local_weights(name)
    if path is not None:
        network = torchvision.models.get_model(name, weights=None, **_inception_options(name))
        _load_file(network, path, name)
    else:
        try:
            network = torchvision.models.get_model(name, weights=choice, progress=False)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
            raise _unavailable(name, choice.url, error) from error
    return _library_twin(name, f"torchvision/{name}", _without_classifier(network), preprocessing)


def _inception_options(name: str) -> dict[str, Any]:
    """Options that torchvision sets by itself only when it loads the weights itself."""
    return {"transform_input": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}


def _timm_twin(name: str) -> TwinEncoder:
    cfg = timm.get_pretrained_cfg(name)
    path = local_weights(name)
    if path is None:
        path = _download_from_hub(name, cfg)
    try:
        # With its classifier, so that timm compares names strictly and no tensor stays random.
        network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)})
    except (RuntimeError, KeyError, ValueError) as error:
        raise _unfitting(name, path, error) from error
    how = timm.data.resolve_model_data_config(network)
    input_px = int(how["input_size"][1])
    preprocessing = _preprocessing(
        input_px,
        math.floor(input_px / how["crop_pct"]),
        how["interpolation"],
        how["mean"],
        how["std"],
    )
    return _library_twin(name, f"timm/{name}", _timm_without_classifier(network, "native"), preprocessing)


def _download_from_hub(name: str, cfg: Any) -> Path:
    """Download a timm model's weights, or find them in the hub's cache, and check their sha256."""
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository = getattr(cfg, "hf_hub_id", None)
    if not repository:
        raise WeightsUnavailable(f"timm publishes no weights for {name}; save your own as {_place(name, '.pth')}")
    file = cfg.hf_hub_filename or HUB_FILE
    try:
        path = Path(hf_hub_download(repository, file))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, RuntimeError) as error:
        raise _unavailable(name, hf_hub_url(repository, file), error) from error
    blob = path.resolve()  # the cache names large files by their sha256
    if _SHA256.fullmatch(blob.name) and hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name:
        raise ModelDamaged(f"the download of {name} is damaged; delete {blob} and run again")
    return path


def _library_twin(name: str, architecture: str, backbone: nn.Module, preprocessing: Preprocessing) -> TwinEncoder:
    pixels = torch.zeros(1, 3, preprocessing.input_px, preprocessing.input_px)
    with torch.inference_mode():
        feature_dim = backbone.eval()(pixels).flatten(1).shape[1]
    config = ModelConfig(name, architecture, "native", feature_dim, None, preprocessing)
    return TwinEncoder(config, backbone)


def _preprocessing(
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


def _timm_without_classifier(network: Any, pooling: Literal["average", "native"]) -> Any:
    if pooling == "average":
        network.reset_classifier(0, "")
    else:
        network.reset_classifier(0)
    return network


def _without_classifier(network: nn.Module) -> nn.Module:
    """Cut a torchvision network's head off before its first linear layer; norms and pooling before it stay."""
    head = next(name for name in _TORCHVISION_HEADS if hasattr(network, name))
    layers = [getattr(network, head)]
    if isinstance(layers[0], nn.Sequential):
        layers = list(layers[0])
    kept = list(itertools.takewhile(lambda layer: not isinstance(layer, nn.Linear), layers))
    if len(kept) == len(layers):  # SqueezeNet classifies by a convolution
        kept = [nn.AdaptiveAvgPool2d(1)]
    setattr(network, head, nn.Sequential(*kept))
    return network


def _load_file(network: nn.Module, path: Path, name: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state, strict=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise _unfitting(name, path, error) from error


def _unfitting(name: str, path: Path, error: Exception) -> ModelDamaged:
    reason = " ".join(str(error).split())[:200]
    return ModelDamaged(f"{path} does not hold the weights of {name} ({reason}); replace or delete it")


def _unavailable(name: str, url: str, error: Exception) -> WeightsUnavailable:
    reason = (str(error).split("\n")[0] or type(error).__name__)[:120]
    return WeightsUnavailable(
        f"the weights of {name} are not on this machine and could not be downloaded ({reason}); "
        f"go online, or save {url} as {_place(name, Path(url).suffix)}"
    )


def _place(name: str, suffix: str) -> Path:
    return user_cache() / "weights" / f"{name}{suffix}"
