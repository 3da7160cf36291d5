"""A model directory is whole, says what it is, and never runs what it holds."""

import dataclasses
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.encoder.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    ModelConfig,
    fingerprint,
    load_checkpoint,
    read_config,
    save_checkpoint,
)
from retrieval.encoder.preprocess import Preprocessing
from retrieval.errors import ModelDamaged, ModelError, UnknownModel

CONFIG = ModelConfig(
    name="shop",
    architecture="timm/test_efficientnet",
    pooling="average",
    feature_dim=4,
    projection_dim=2,
    preprocessing=Preprocessing(input_px=8, resize_px=9, mean=(127.0,) * 3, std=(128.0,) * 3),
)


def make_state() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(7)
    return {
        "b.weight": rng.standard_normal((2, 4), np.float32),
        "a.bias": rng.standard_normal(2).astype(np.float32),
        "a.steps": np.array(3, np.int64),
    }


def test_a_saved_model_is_loaded_as_it_was(tmp_path: Path) -> None:
    state = make_state()
    save_checkpoint(tmp_path / "model", CONFIG, state)

    config, loaded = load_checkpoint(tmp_path / "model")

    assert config == CONFIG
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        np.testing.assert_array_equal(loaded[name], tensor)


def test_the_directory_tells_the_fingerprint_of_what_was_saved(tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path / "model", CONFIG, make_state())

    assert saved == fingerprint(CONFIG, make_state())
    assert read_config(tmp_path / "model") == (CONFIG, saved)


def test_fingerprint_does_not_depend_on_name_or_order() -> None:
    state = make_state()
    renamed = dataclasses.replace(CONFIG, name="another")

    assert fingerprint(renamed, dict(reversed(state.items()))) == fingerprint(CONFIG, state)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "timm/test_resnet"},
        {"pooling": "native"},
        {"feature_dim": 5},
        {"projection_dim": None},
        {"preprocessing": dataclasses.replace(CONFIG.preprocessing, resize_px=10)},
        {"preprocessing": dataclasses.replace(CONFIG.preprocessing, mean=(127.0, 127.0, 126.0))},
    ],
)
def test_whatever_changes_an_embedding_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(dataclasses.replace(CONFIG, **change), make_state()) != fingerprint(CONFIG, make_state())


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["b.weight"].__setitem__((1, 3), np.nextafter(state["b.weight"][1, 3], np.float32(9))),
        lambda state: state.update({"b.weight": state["b.weight"].reshape(4, 2)}),
        lambda state: state.update({"a.bias": state["a.bias"].view(np.int32)}),
        lambda state: state.update({"a.scale": state.pop("a.bias")}),
    ],
    ids=["one bit", "shape", "dtype", "name"],
)
def test_any_change_of_the_weights_changes_the_fingerprint(change: Any) -> None:
    changed = make_state()
    change(changed)

    assert fingerprint(CONFIG, changed) != fingerprint(CONFIG, make_state())


def test_a_flipped_byte_in_the_weights_is_damage(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", CONFIG, make_state())
    path = tmp_path / "model" / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(ModelDamaged, match=r"has fingerprint .* copy it again"):
        load_checkpoint(tmp_path / "model")


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_file_cut_short_is_damage(tmp_path: Path, file: str) -> None:
    save_checkpoint(tmp_path / "model", CONFIG, make_state())
    path = tmp_path / "model" / file
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(ModelDamaged, match=f"{file} cannot be read"):
        load_checkpoint(tmp_path / "model")


def test_missing_weights_are_damage(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", CONFIG, make_state())
    (tmp_path / "model" / WEIGHTS_FILE).unlink()

    with pytest.raises(ModelDamaged, match=WEIGHTS_FILE):
        load_checkpoint(tmp_path / "model")


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_weights_that_are_a_pickle_are_never_run(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", CONFIG, make_state())
    (tmp_path / "model" / WEIGHTS_FILE).write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))

    with pytest.raises(ModelDamaged):
        load_checkpoint(tmp_path / "model")
    assert not (tmp_path / "sprung").exists()


def test_a_folder_without_configuration_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=CONFIG_FILE):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(("field", "value"), [("format", 2), ("preprocessing", {"version": 99})])
def test_a_model_of_another_version_is_refused_and_named(tmp_path: Path, field: str, value: Any) -> None:
    save_checkpoint(tmp_path / "model", CONFIG, make_state())
    path = tmp_path / "model" / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))

    with pytest.raises(ModelError, match=f"model {tmp_path}/model cannot be used") as raised:
        read_config(tmp_path / "model")
    assert not isinstance(raised.value, ModelDamaged)


def test_saving_again_replaces_the_model_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", CONFIG, make_state())
    (tmp_path / "model" / "openvino").mkdir()  # made from the former weights
    renamed = dataclasses.replace(CONFIG, name="second")
    save_checkpoint(tmp_path / "model", renamed, make_state())

    assert read_config(tmp_path / "model")[0].name == "second"
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("is_there", [True, False])
def test_saving_through_a_link_leaves_it_one(tmp_path: Path, is_there: bool) -> None:
    if is_there:
        save_checkpoint(tmp_path / "model", CONFIG, make_state())
    (tmp_path / "link").symlink_to("model")
    save_checkpoint(tmp_path / "link", dataclasses.replace(CONFIG, name="second"), make_state())
    assert (tmp_path / "link").is_symlink()
    assert read_config(tmp_path / "model")[0].name == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "model"]


def test_a_failed_save_leaves_the_former_model(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", CONFIG, make_state())

    with pytest.raises(Exception, match="complex128"):
        save_checkpoint(tmp_path / "model", CONFIG, {"a": np.zeros(2, np.complex128)})

    load_checkpoint(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_is_no_model_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()

    with pytest.raises(ModelError, match="is no model directory"):
        save_checkpoint(tmp_path / "photos", CONFIG, make_state())
    assert (tmp_path / "photos" / "a.jpg").exists()
