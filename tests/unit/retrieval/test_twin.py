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
from retrieval.encoder.twin import TwinEncoder
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
