"""Training starts from the model asked for: its weights kept, its pooling as told, its new head better than chance."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from retrieval.encoder import tiny_cnn
from retrieval.encoder.checkpoint import ModelConfig, Pooling
from retrieval.encoder.preprocess import Preprocessing
from retrieval.encoder.runtime import open_encoder
from retrieval.encoder.twin import AveragePooling, GeMPooling, TwinEncoder
from retrieval.encoder.weights import build_backbone, load_twin
from retrieval.errors import TrainingError, UnknownModel
from retrieval.training.config import TrainConfig
from retrieval.training.network import needs_projection, open_network, start_projection

TINY = "test_efficientnet"  # timm's network for tests: 160 px, 256 features, 0.1 million weights
PREPROCESSING = Preprocessing(input_px=32, resize_px=32, mean=(127.0,) * 3, std=(128.0,) * 3)
F, D = 12, 5


def make_model(folder: Path, pooling: Pooling = "average", projection_dim: int | None = 16) -> TwinEncoder:
    """A model directory with weights like no other."""
    torch.manual_seed(11)
    config = ModelConfig("shop", f"timm/{TINY}", pooling, 256, projection_dim, PREPROCESSING)
    twin = TwinEncoder(config, build_backbone(config.architecture, pooling)).eval()
    if isinstance(twin.pooling, GeMPooling):
        nn.init.constant_(twin.pooling.p, 2.25)
    twin.save(folder)
    return twin


def starting_from(model: Path | str, **settings: Any) -> TrainConfig:
    return TrainConfig("shop", "out", from_model=str(model), **{"dim": 16} | settings)


def pixels(count: int = 2, side: int = 32) -> Tensor:
    drawn = torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0))
    return drawn.to(torch.uint8)


def is_same_state(module: nn.Module, other: nn.Module) -> bool:
    state, wanted = module.state_dict(), other.state_dict()
    return state.keys() == wanted.keys() and all(torch.equal(state[name], wanted[name]) for name in state)


@pytest.fixture
def library_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name in timm whose weights, random ones, were put by hand where they are looked for."""
    monkeypatch.setenv("RETRIEVE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    torch.manual_seed(12)
    save_file(timm.create_model(TINY).state_dict(), tmp_path / "cache" / "weights" / f"{TINY}.safetensors")
    return TINY


# Model directories


def test_a_model_of_the_length_asked_for_goes_on_as_it_was(tmp_path: Path) -> None:
    saved = make_model(tmp_path / "shop")
    config = starting_from(tmp_path / "shop")

    twin = open_network(config)

    assert is_same_state(twin, saved)
    assert not needs_projection(twin, config)


@pytest.mark.parametrize("dim", [16, 8, None])
def test_every_weight_is_trained(tmp_path: Path, dim: int | None) -> None:
    make_model(tmp_path / "shop")
    assert all(
        parameter.requires_grad for parameter in open_network(starting_from(tmp_path / "shop", dim=dim)).parameters()
    )


@pytest.mark.parametrize(("freeze_backbone", "resize_px"), [(False, 224), (True, 256)])
def test_a_backbone_that_is_trained_sees_the_whole_square(freeze_backbone: bool, resize_px: int) -> None:
    twin = open_network(TrainConfig("shop", "out", from_model="efficientnet_lite0", freeze_backbone=freeze_backbone))

    assert twin.config.preprocessing.input_px == 224
    assert twin.config.preprocessing.resize_px == resize_px


@pytest.mark.parametrize("freeze_backbone", [True, False])
def test_the_model_takes_pictures_of_the_side_asked_for(tmp_path: Path, freeze_backbone: bool) -> None:
    make_model(tmp_path / "shop")
    twin = open_network(starting_from(tmp_path / "shop", embed_px=48, freeze_backbone=freeze_backbone)).eval()

    assert twin.config.preprocessing == dataclasses.replace(PREPROCESSING, input_px=48, resize_px=48)
    assert twin(pixels(side=48)).shape == (2, 16)


def test_a_side_that_a_network_is_not_built_for_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"tiny_cnn cannot take pictures of 80 px .*leave out --embed-px"):
        open_network(TrainConfig("shop", "out", from_model="tiny_cnn", embed_px=80))


def test_another_length_keeps_the_backbone_and_asks_for_a_new_head(tmp_path: Path) -> None:
    saved = make_model(tmp_path / "shop")
    config = starting_from(tmp_path / "shop", dim=8)

    twin = open_network(config)

    assert is_same_state(twin.backbone, saved.backbone)
    assert twin.projection.weight.shape == (8, 256)
    assert twin.config.dim == 8
    assert needs_projection(twin, config)


def test_a_new_head_is_drawn_from_the_seed(tmp_path: Path) -> None:
    make_model(tmp_path / "shop")
    first, again, other = (
        open_network(starting_from(tmp_path / "shop", dim=8, seed=seed)).projection for seed in (1, 1, 2)
    )
    assert is_same_state(first, again)
    assert not is_same_state(first, other)


@pytest.mark.parametrize("projection_dim", [16, None])
def test_without_a_length_a_model_keeps_the_head_that_it_has(tmp_path: Path, projection_dim: int | None) -> None:
    saved = make_model(tmp_path / "shop", projection_dim=projection_dim)
    config = starting_from(tmp_path / "shop", dim=None)

    twin = open_network(config)

    assert twin.config.projection_dim == projection_dim
    assert is_same_state(twin, saved)
    assert not needs_projection(twin, config)


def test_without_a_length_a_model_of_long_features_gets_a_head_of_256() -> None:
    config = starting_from("efficientnet_lite0", dim=None)

    twin = open_network(config)

    assert twin.config.projection_dim == 256
    assert needs_projection(twin, config)


def test_a_head_longer_than_the_features_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path / "shop")

    with pytest.raises(TrainingError, match="shop yields 256 values; --dim 300 must not be more"):
        open_network(starting_from(tmp_path / "shop", dim=300))


def test_a_trained_head_is_kept_in_a_directory_named_like_a_packaged_backbone(tmp_path: Path) -> None:
    saved = make_model(tmp_path / "efficientnet_lite0")
    config = starting_from(tmp_path / "efficientnet_lite0")
    twin = open_network(config)
    assert is_same_state(twin.projection, saved.projection)
    assert not needs_projection(twin, config)


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel):
        open_network(starting_from(tmp_path / "shop"))


# Pooling


@pytest.mark.parametrize(
    ("before", "after", "kind"), [("average", "gem", GeMPooling), ("gem", "average", AveragePooling)]
)
def test_another_pooling_keeps_backbone_and_head(
    tmp_path: Path, before: Pooling, after: Pooling, kind: type[nn.Module]
) -> None:
    saved = make_model(tmp_path / "shop", before)
    config = starting_from(tmp_path / "shop", pooling=after)

    twin = open_network(config)

    assert type(twin.pooling) is kind
    assert twin.config.pooling == after
    assert is_same_state(twin.backbone, saved.backbone)
    assert is_same_state(twin.projection, saved.projection)
    assert not needs_projection(twin, config)


@pytest.mark.parametrize("pooling", [None, "gem"])
def test_a_learned_exponent_outlives_a_new_head(tmp_path: Path, pooling: Any) -> None:
    make_model(tmp_path / "shop", "gem")
    assert open_network(starting_from(tmp_path / "shop", dim=8, pooling=pooling)).weights()["pooling.p"] == 2.25


def test_a_library_model_gets_a_head_and_pools_by_itself_unless_told_otherwise(library_model: str) -> None:
    config = starting_from(library_model)
    twin = open_network(config)
    assert (twin.config.pooling, twin.config.projection_dim, twin.config.name) == ("native", 16, library_model)
    assert is_same_state(twin.backbone, load_twin(library_model).backbone)
    assert needs_projection(twin, config)


def test_a_library_models_map_is_laid_open_for_another_pooling(library_model: str) -> None:
    native = load_twin(library_model)
    average = open_network(starting_from(library_model, pooling="average", dim=None)).eval()
    gem = open_network(starting_from(library_model, pooling="gem", dim=None)).eval()
    side = native.config.preprocessing.input_px

    with torch.inference_mode():
        torch.testing.assert_close(average.features(pixels(2, side)), native.features(pixels(2, side)))
    assert isinstance(gem.pooling, GeMPooling)
    assert is_same_state(gem.backbone, native.backbone)


def test_pooling_is_refused_for_a_model_that_can_only_pool_by_itself(tmp_path: Path) -> None:
    TwinEncoder(tiny_cnn.CONFIG, tiny_cnn.build()).save(tmp_path / "shop")
    with pytest.raises(TrainingError, match=r"^tiny_cnn pools by itself; --pooling gem needs one of timm's models$"):
        open_network(starting_from(tmp_path / "shop", pooling="gem"))


# The small network


def test_the_small_network_is_the_one_that_was_asked_for() -> None:
    # 64 x 64 x 3 -> 3x3 convolution of 64 channels, 62 x 62 -> 2x2 maximum, 31 x 31 -> 64 * 31 * 31 = 61,504 -> 128
    network = tiny_cnn.build()
    conv, relu, pool, flatten, dense, last = network.children()
    assert isinstance(conv, nn.Conv2d)
    assert (conv.in_channels, conv.out_channels, conv.kernel_size) == (3, 64, (3, 3))
    assert (conv.stride, conv.padding, conv.dilation, conv.groups) == ((1, 1), (0, 0), (1, 1), 1)
    assert isinstance(pool, nn.MaxPool2d)
    assert (pool.kernel_size, pool.stride, pool.padding) == (2, 2, 0)
    assert isinstance(dense, nn.Linear)
    assert (dense.in_features, dense.out_features) == (61_504, 128)
    assert [type(each) for each in (relu, flatten, last)] == [nn.ReLU, nn.Flatten, nn.ReLU]
    # 3 * 3 * 3 * 64 + 64 = 1,792 and 61,504 * 128 + 128 = 7,872,640
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_792 + 7_872_640


def test_the_small_networks_embeddings_are_unit_rows_of_128() -> None:
    twin = open_network(starting_from(tiny_cnn.NAME)).eval()
    with torch.inference_mode():
        embeddings = twin(pixels(3, 64))
    assert embeddings.shape == (3, 128)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    assert embeddings.min() >= 0


def test_the_small_network_starts_from_the_seed_and_without_a_head() -> None:
    config = starting_from(tiny_cnn.NAME, seed=1)
    twin = open_network(config)
    assert is_same_state(twin, open_network(config))
    assert not is_same_state(twin, open_network(dataclasses.replace(config, seed=2)))
    assert not needs_projection(twin, config)
    assert all(parameter.requires_grad for parameter in twin.parameters())


def test_a_trained_small_network_goes_on_from_its_weights(tmp_path: Path) -> None:
    saved = open_network(starting_from(tiny_cnn.NAME, seed=3))
    saved.save(tmp_path / "shop")
    assert is_same_state(open_network(starting_from(tmp_path / "shop", dim=None)), saved)


def test_the_small_network_is_saved_and_embeds_like_any_other_model(tmp_path: Path) -> None:
    twin = open_network(starting_from(tiny_cnn.NAME, seed=4)).eval()
    fingerprint = twin.save(tmp_path / "shop")

    encoder = open_encoder(tmp_path / "shop", device="cpu", threads=1, precision="f32")
    try:
        embeddings = encoder.encode(pixels(5, 64).numpy())
        assert (encoder.name, encoder.dim, encoder.fingerprint) == ("tiny_cnn", 128, fingerprint)
        assert encoder.preprocessing.input_px == 64
    finally:
        encoder.close()

    with torch.inference_mode():
        np.testing.assert_allclose(embeddings, twin(pixels(5, 64)).numpy(), atol=1e-4)


# The head's start


def make_head(dim: int = D) -> TwinEncoder:
    torch.manual_seed(5)
    config = ModelConfig("toy", "timm/toy", "average", F, dim, PREPROCESSING)
    return TwinEncoder(config, nn.Identity())


def backbone_features(count: int = 60, length: float = 3.0) -> Tensor:
    """Rows of one length around a common direction, more spread in some directions than in others."""
    generator = torch.Generator().manual_seed(6)
    spread = torch.randn(count, F, generator=generator) * torch.linspace(2.0, 0.1, F)
    turn = torch.linalg.qr(torch.randn(F, F, generator=generator))[0]
    return length * functional.normalize(spread @ turn + 1.5, dim=1)


def embedded(twin: TwinEncoder, features: Tensor) -> Tensor:
    with torch.inference_mode():
        return functional.normalize(twin.projection(features), dim=1)


def whitened(features: Tensor, dim: int) -> Tensor:
    """The oracle, from the covariance: principal components, divided by the fourth root of their variance."""
    unit = functional.normalize(features.double(), dim=1)
    centred = unit - unit.mean(dim=0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    kept = directions[:, -dim:] * variances[-dim:] ** -0.25
    return functional.normalize(centred @ kept, dim=1)


def test_a_new_head_embeds_as_whitened_principal_components_do() -> None:
    twin, features = make_head(), backbone_features()

    start_projection(twin, features)

    cosines = embedded(twin, features) @ embedded(twin, features).T
    expected = whitened(features, D) @ whitened(features, D).T
    torch.testing.assert_close(cosines, expected.float(), atol=1e-4, rtol=0)


def test_pictures_that_the_head_was_not_made_from_are_projected_likewise() -> None:
    twin, features = make_head(), backbone_features()
    start_projection(twin, features[:40])
    centred = functional.normalize(features, dim=1) - functional.normalize(features[:40], dim=1).mean(dim=0)
    # Another basis of the same principal directions, so cosines with them whitened are the same.
    _, spread, directions = torch.linalg.svd(centred[:40], full_matrices=False)
    wanted = functional.normalize(centred @ (directions[:D] / spread[:D, None].sqrt()).T, dim=1)
    found = embedded(twin, features[40:])
    torch.testing.assert_close(found @ found.T, wanted[40:] @ wanted[40:].T, atol=1e-4, rtol=0)


def test_the_heads_outputs_are_about_of_unit_length() -> None:
    twin, features = make_head(), backbone_features()
    start_projection(twin, features)
    with torch.inference_mode():
        assert float(twin.projection(features).norm(dim=1).mean()) == pytest.approx(1.0, abs=1e-3)


def test_how_long_a_backbones_features_are_does_not_matter() -> None:
    short, long = make_head(), make_head()
    start_projection(short, backbone_features(length=0.5))
    start_projection(long, backbone_features(length=40.0))
    torch.testing.assert_close(
        embedded(short, backbone_features(length=0.5)),
        embedded(long, backbone_features(length=40.0)),
        atol=1e-4,
        rtol=0,
    )


def test_with_fewer_pictures_than_directions_the_rest_stays_small() -> None:
    # Four pictures span three directions around their mean; the head has five.
    twin, features = make_head(), backbone_features(4)
    start_projection(twin, features)
    found, expected = embedded(twin, features), whitened(features, 3)
    torch.testing.assert_close(found @ found.T, (expected @ expected.T).float(), atol=0.02, rtol=0)
    assert isinstance(twin.projection, nn.Linear)
    assert (twin.projection.weight[3:].norm(dim=1) > 0).all()  # but not nothing: they can be learned
    assert twin.projection.weight[3:].norm() < 0.1 * twin.projection.weight[:3].norm()


def test_a_head_longer_than_the_features_is_started_as_far_as_they_reach() -> None:
    twin, features = make_head(2 * F), backbone_features()
    start_projection(twin, features)
    found, expected = embedded(twin, features), whitened(features, F)
    torch.testing.assert_close(found @ found.T, (expected @ expected.T).float(), atol=0.02, rtol=0)


@pytest.mark.parametrize("count", [1, 7])
def test_pictures_that_all_look_the_same_leave_a_head_of_numbers(count: int) -> None:
    twin = make_head()
    start_projection(twin, backbone_features(1).repeat(count, 1))
    assert all(parameter.isfinite().all() for parameter in twin.projection.parameters())
