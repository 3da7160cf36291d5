"""The encoder as a network."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from retrieval.encoder.checkpoint import WEIGHTS_FILE, ModelConfig, fingerprint, read_config, save_checkpoint
from retrieval.encoder.preprocess import Preprocessing
from retrieval.encoder.twin import GeMPooling, TwinEncoder
from retrieval.encoder.weights import build_backbone, load_twin
from retrieval.errors import ModelDamaged

PREPROCESSING = Preprocessing(input_px=2, resize_px=2, mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0))
CONFIG = ModelConfig("toy", "timm/test_efficientnet", "average", 3, None, PREPROCESSING)


def test_an_embedding_worked_by_hand() -> None:
    # Scaled: red (12-10)/1 = 2, green (26-20)/2 = 3, blue (54-30)/4 = 6 everywhere; the mean over the map is the
    # same, its length is sqrt(4 + 9 + 36) = 7.
    pixels = torch.tensor([12, 26, 54], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)

    embedding = TwinEncoder(CONFIG, nn.Identity())(pixels)

    torch.testing.assert_close(embedding, torch.tensor([[2 / 7, 3 / 7, 6 / 7]]))


def test_average_pooling_averages_over_the_map() -> None:
    # Red is 10 and 14 in equal parts: scaled 0 and 4, mean 2; green and blue are at their means, so 0.
    pixels = torch.tensor([[10, 14], [14, 10]], dtype=torch.uint8).expand(1, 3, 2, 2).clone()
    pixels[:, 1], pixels[:, 2] = 20, 30

    embedding = TwinEncoder(CONFIG, nn.Identity())(pixels)

    torch.testing.assert_close(embedding, torch.tensor([[1.0, 0.0, 0.0]]))


def test_a_projection_changes_the_dimension_and_keeps_rows_at_unit_length() -> None:
    torch.manual_seed(1)
    twin = TwinEncoder(dataclasses.replace(CONFIG, projection_dim=5), nn.Identity())

    embeddings = twin(torch.randint(0, 256, (4, 3, 2, 2), dtype=torch.uint8))

    assert embeddings.shape == (4, 5)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))


def test_mean_and_scale_are_configuration_and_no_weights() -> None:
    assert TwinEncoder(CONFIG, nn.Identity()).weights() == {}


@pytest.fixture
def twin() -> TwinEncoder:
    torch.manual_seed(2)
    preprocessing = Preprocessing(input_px=160, resize_px=168, mean=(127.0,) * 3, std=(128.0,) * 3)
    config = ModelConfig("shop", "timm/test_efficientnet", "average", 256, 16, preprocessing)
    return TwinEncoder(config, build_backbone(config.architecture, config.pooling)).eval()


def test_a_saved_encoder_comes_back_as_the_same_function(tmp_path: Path, twin: TwinEncoder) -> None:
    saved = twin.save(tmp_path / "shop")
    pixels = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)

    loaded = load_twin(str(tmp_path / "shop"))

    assert saved == twin.fingerprint() == loaded.fingerprint() == read_config(tmp_path / "shop")[1]
    with torch.inference_mode():
        torch.testing.assert_close(loaded(pixels), twin(pixels), rtol=0, atol=0)


def test_weights_of_another_architecture_are_damage(tmp_path: Path, twin: TwinEncoder) -> None:
    save_checkpoint(tmp_path / "shop", dataclasses.replace(twin.config, projection_dim=8), twin.weights())

    with pytest.raises(ModelDamaged, match="do not fit timm/test_efficientnet"):
        load_twin(str(tmp_path / "shop"))


def test_exchanged_weights_are_damage_even_where_they_fit(tmp_path: Path, twin: TwinEncoder) -> None:
    twin.save(tmp_path / "shop")
    others = {name: np.asarray(tensor + 1) for name, tensor in twin.weights().items()}
    assert fingerprint(twin.config, others) != twin.fingerprint()
    save_file(others, tmp_path / "shop" / WEIGHTS_FILE)

    with pytest.raises(ModelDamaged, match="has fingerprint"):
        load_twin(str(tmp_path / "shop"))


# Generalised-mean pooling


def pooled(values: list[list[float]], p: float) -> float:
    """One channel's map, pooled with the exponent p."""
    pooling = GeMPooling()
    with torch.no_grad():
        pooling.p.fill_(p)
        return float(pooling(torch.tensor(values)[None, None]))


def test_a_generalised_mean_worked_by_hand() -> None:
    # (1 + 8 + 27 + 64) / 4 = 25, the cube root of which is 2.924.
    assert pooled([[1, 2], [3, 4]], 3.0) == pytest.approx(2.924, abs=1e-3)


def test_with_an_exponent_of_one_it_is_the_mean_and_with_a_large_one_nearly_the_maximum() -> None:
    assert pooled([[1, 2], [3, 4]], 1.0) == pytest.approx(2.5)
    assert pooled([[1, 2], [3, 4]], 50.0) == pytest.approx(4.0, rel=0.03)


def test_values_below_zero_count_as_none() -> None:
    assert pooled([[-5, 0], [0, 2]], 1.0) == pytest.approx(0.5, abs=1e-5)


def test_every_channel_is_pooled_for_itself() -> None:
    maps = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) + 0.1
    alone = torch.stack([GeMPooling()(maps[:, [channel]])[:, 0] for channel in range(3)], dim=1)
    torch.testing.assert_close(GeMPooling()(maps), alone)


def test_a_map_without_any_response_has_a_gradient_that_is_a_number() -> None:
    maps = torch.zeros(1, 2, 3, 3, requires_grad=True)
    pooling = GeMPooling()
    pooling(maps).sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    assert pooling.p.grad is not None
    assert pooling.p.grad.isfinite()


def test_the_exponent_is_a_weight_that_learns() -> None:
    twin = TwinEncoder(dataclasses.replace(CONFIG, pooling="gem"), nn.Identity())
    pixels = torch.randint(30, 256, (2, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    twin(pixels)[:, 0].sum().backward()
    (exponent,) = twin.parameters()
    assert list(twin.weights()) == ["pooling.p"]
    assert exponent.grad is not None
    assert exponent.grad != 0


def test_features_are_what_the_projection_is_given() -> None:
    torch.manual_seed(1)
    twin = TwinEncoder(dataclasses.replace(CONFIG, pooling="gem", projection_dim=5), nn.Identity())
    pixels = torch.randint(0, 256, (4, 3, 2, 2), dtype=torch.uint8)
    features = twin.features(pixels)
    assert features.shape == (4, 3)
    torch.testing.assert_close(twin(pixels), nn.functional.normalize(twin.projection(features), dim=1))


def test_a_saved_encoder_comes_back_with_the_exponent_that_it_learned(tmp_path: Path, twin: TwinEncoder) -> None:
    torch.manual_seed(2)
    gem = TwinEncoder(dataclasses.replace(twin.config, pooling="gem"), twin.backbone).eval()
    assert isinstance(gem.pooling, GeMPooling)
    nn.init.constant_(gem.pooling.p, 2.25)
    gem.save(tmp_path / "shop")
    pixels = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)

    loaded = load_twin(str(tmp_path / "shop"))

    assert loaded.config.pooling == "gem"
    assert loaded.weights()["pooling.p"] == 2.25
    with torch.inference_mode():
        torch.testing.assert_close(loaded(pixels), gem(pixels), rtol=0, atol=0)
