"""A setting that means nothing is refused before anything is trained, and every setting can be written down."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from retrieval.images import DecodeLimits
from retrieval.training.augment import Augmentation
from retrieval.training.config import MARGINS, TrainConfig

CONFIG = TrainConfig("shop", "models/shop")


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("dim", 1, 2),
        ("epochs", 0, 1),
        ("classes_per_batch", 1, 2),
        ("pictures_per_class", 1, 2),
        ("mine_every", 0, 1),
        ("train_px", 15, 16),
        ("embed_px", 15, 16),
        ("patience", -1, 0),
        ("threads", 0, 1),
        ("seed", -1, 0),
    ],
)
def test_a_number_too_small_is_refused_with_its_limit_and_the_limit_is_not(name: str, value: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value}; it must be at least {least}$"):
        dataclasses.replace(CONFIG, **{name: value})  # type: ignore[arg-type]
    assert getattr(dataclasses.replace(CONFIG, **{name: least}), name) == least  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["backbone_rate", "head_rate", "temperature", "clip"])
@pytest.mark.parametrize("value", [0.0, -1e-3, math.nan])
def test_what_must_be_above_zero_is_refused_otherwise(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value}; it must be above 0$"):
        dataclasses.replace(CONFIG, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["average", "start_share"])
@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_weights_that_never_move_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value}; it must be at least 0 and below 1$"):
        dataclasses.replace(CONFIG, **{name: value})


@pytest.mark.parametrize("window", [(3, 3), (5, 2), (-1, 4)])
def test_a_window_without_ranks_is_refused(window: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="it must be two ranks, the first below the last"):
        dataclasses.replace(CONFIG, window=window)


def test_an_unknown_miner_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r'miner is "hardest"; it must be one of .*semi_hard, hard'):
        dataclasses.replace(CONFIG, miner="hardest")  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["contrastive", "pair", "MultiSimilarityLoss"])
@pytest.mark.parametrize("miner", ["index", "hard", "semi_hard", "distance_weighted"])
def test_a_miner_of_triplets_is_refused_where_the_loss_takes_none(loss: str, miner: Any) -> None:
    with pytest.raises(ValueError, match=f"miner {miner} chooses triplets, which the loss {loss} does not take"):
        dataclasses.replace(CONFIG, loss=loss, miner=miner)


@pytest.mark.parametrize("loss", ["triplet", "soft_triplet"])
@pytest.mark.parametrize("miner", ["curriculum", "index", "all", "semi_hard", "hard", "distance_weighted"])
def test_triplet_losses_take_every_miner(loss: str, miner: Any) -> None:
    assert dataclasses.replace(CONFIG, loss=loss, miner=miner).miner == miner


def test_every_loss_takes_the_miner_that_it_is_given_without_asking() -> None:
    assert TrainConfig("shop", "model", loss="contrastive").loss == "contrastive"


def test_an_unfinished_run_lies_beside_the_model() -> None:
    assert CONFIG.run_dir == Path("models/shop.run")


def test_every_setting_can_be_written_as_json_and_read_back() -> None:
    config = dataclasses.replace(
        CONFIG,
        margin=0.3,
        window=(3, 9),
        dim=None,
        augmentation=Augmentation(flip=0.0),
        limits=DecodeLimits(7.0),
        train_px=128,
    )

    plain = json.loads(json.dumps(config.to_dict()))

    assert plain == config.to_dict()
    assert set(plain) == {field.name for field in dataclasses.fields(TrainConfig)}
    rebuilt = TrainConfig(
        **plain
        | {
            "window": tuple(plain["window"]),
            "augmentation": Augmentation(**plain["augmentation"]),
            "limits": DecodeLimits(**plain["limits"]),
        }
    )
    assert rebuilt == config


def test_the_margin_is_that_of_the_loss_unless_one_is_given() -> None:
    assert TrainConfig("shop", "model", loss="triplet").loss_margin == MARGINS["triplet"] > 0
    assert TrainConfig("shop", "model", loss="proxy").loss_margin == 0.0
    assert TrainConfig("shop", "model", loss="triplet", margin=0.0).loss_margin == 0.0
    assert TrainConfig("shop", "model", loss="triplet").to_dict()["margin"] == MARGINS["triplet"]
