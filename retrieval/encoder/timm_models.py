"""How does a name in timm become a TwinEncoder? Its pretrained weights, its preprocessing, without its classifier."""

import hashlib
import math
import re
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from torch import nn

from retrieval.encoder.backbones import local_weights
from retrieval.encoder.checkpoint import Pooling
from retrieval.encoder.library import as_preprocessing, as_twin, place, read_state, unavailable, unfitting
from retrieval.encoder.twin import TwinEncoder
from retrieval.errors import ModelDamaged, WeightsUnavailable

HUB_FILE = "model.safetensors"  # what timm calls the weights on the hub
_SHA256 = re.compile(r"[0-9a-f]{64}")


def load(name: str) -> TwinEncoder:
    """Build a model with its pretrained weights, from a file put by hand or a download whose sha256 is checked.

    Raises:
        WeightsUnavailable: they are not on this machine and could not be downloaded.
        ModelDamaged: the download differs from its checksum, or a file does not fit.
    """
    path = local_weights(name) or _download(name)
    state = read_state(path, name)
    try:
        # With its classifier, so that timm compares names strictly and no tensor stays random.
        network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    except (RuntimeError, KeyError, ValueError) as error:
        raise unfitting(name, path, error) from error
    how = timm.data.resolve_model_data_config(network)
    input_px = int(how["input_size"][1])
    resize_px = math.floor(input_px / how["crop_pct"])  # as timm.data.create_transform does
    preprocessing = as_preprocessing(input_px, resize_px, how["interpolation"], how["mean"], how["std"])
    return as_twin(name, f"timm/{name}", without_classifier(network, "native"), preprocessing)


def build(name: str, pooling: Pooling) -> nn.Module:
    """Build a network without trained weights and without its classifier; only "native" pooling is its own."""
    return without_classifier(timm.create_model(name), pooling)


def without_classifier(network: Any, pooling: Pooling) -> nn.Module:
    """Remove a network's classifier in place, and its pooling unless that is the "native" one."""
    if pooling == "native":
        network.reset_classifier(0)
    else:
        network.reset_classifier(0, "")
    assert isinstance(network, nn.Module)
    return network


def _download(name: str) -> Path:
    """Download weights, or find them in the hub's cache, and check their sha256."""
    cfg = timm.get_pretrained_cfg(name)
    repository = getattr(cfg, "hf_hub_id", None)
    if not repository:
        raise WeightsUnavailable(
            f"timm publishes no weights for {name}; save your own as {place(name, '.safetensors')}"
        )
    file = cfg.hf_hub_filename or HUB_FILE
    try:
        path = Path(hf_hub_download(repository, file))
    except (OSError, HfHubHTTPError, RuntimeError) as error:  # offline is an OSError
        raise unavailable(name, hf_hub_url(repository, file), error) from error
    blob = path.resolve()  # the cache names large files by their sha256
    if _SHA256.fullmatch(blob.name) and hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name:
        raise ModelDamaged(f"the download of {name} is damaged; delete {blob} and run again")
    return path
