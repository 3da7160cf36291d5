"""Both runtimes compute the same embeddings, from any thread, and the parent process never imports torch."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from retrieval.encoder.artifact import IR_FILES, Artifact, prepare_model, write_description
from retrieval.encoder.checkpoint import ModelConfig
from retrieval.encoder.openvino_runtime import OpenVinoEncoder
from retrieval.encoder.preprocess import Preprocessing
from retrieval.encoder.runtime import Encoder, describe_model, has_gpu, open_encoder
from retrieval.encoder.torch_runtime import TorchEncoder
from retrieval.encoder.twin import TwinEncoder
from retrieval.encoder.weights import build_backbone, load_twin
from retrieval.errors import DeviceUnavailable, ModelDamaged, UnknownModel

SIDE = 160
TINY = "test_efficientnet"  # timm's network for tests: 160 px, 256 features, 0.1 million weights


def make_twin(seed: int) -> TwinEncoder:
    torch.manual_seed(seed)
    preprocessing = Preprocessing(input_px=SIDE, resize_px=168, mean=(127.0,) * 3, std=(128.0,) * 3)
    config = ModelConfig("shop", f"timm/{TINY}", "average", 256, 64, preprocessing)
    return TwinEncoder(config, build_backbone(config.architecture, config.pooling)).eval()


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """One model directory, converted by two processes at once, where a conversion of former weights lies already."""
    folder = tmp_path_factory.mktemp("models") / "shop"
    twin = make_twin(3)
    twin.save(folder)
    (folder / "openvino").mkdir()
    write_description(folder / "openvino", twin.config, "f" * 64, dict.fromkeys(IR_FILES, "0" * 64))
    with ThreadPoolExecutor(2) as pool:  # each has its own child process
        return list(pool.map(lambda _: prepare_model(folder), range(2)))


@pytest.fixture(scope="module")
def model(conversions: list[Artifact]) -> Path:
    """A model directory that was converted before."""
    return conversions[0].folder.parent


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETRIEVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def encoder(model: Path, cache: Path) -> Iterator[Encoder]:
    encoder = open_encoder(model, device="cpu", threads=2)
    yield encoder
    encoder.close()


def pictures(count: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Coarse random patterns: unlike noise, no two look alike to a network."""
    coarse = np.random.default_rng(11).integers(0, 256, (count, 3, 5, 5), dtype=np.uint8)
    return coarse.repeat(side // 5 + 1, axis=2).repeat(side // 5 + 1, axis=3)[:, :, :side, :side].copy()


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.einsum("nd,nd->n", a, b)


def run_python(code: str, **environment: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return process.stdout.strip()


# What is computed


def test_openvino_computes_what_torch_computes() -> None:
    ours = open_encoder("efficientnet_lite0", device="cpu", precision="f32")
    reference = TorchEncoder(load_twin("efficientnet_lite0"), device="cpu", precision="f32")
    pixels = pictures(5, 224)

    assert ours.fingerprint == reference.fingerprint
    assert cosines(ours.encode(pixels), reference.encode(pixels)).min() > 0.9999


def test_one_picture_scores_as_itself_whichever_way_it_went() -> None:
    encoder = open_encoder("efficientnet_lite0", device="cpu")
    pixels = pictures(8, 224)
    alone = np.concatenate([encoder.encode(pixels[i : i + 1]) for i in range(8)])
    ((_, streamed),) = encoder.encode_stream([(None, pixels)])

    assert cosines(alone, streamed).min() >= 0.9999
    assert cosines(alone[:-1], alone[1:]).max() < 0.999  # or else the line above says nothing


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 8, 9, 21])
def test_any_number_of_pictures_is_embedded_in_order_as_unit_rows(encoder: Encoder, count: int) -> None:
    pixels = pictures(count)
    rows = encoder.encode(pixels)

    assert rows.shape == (count, encoder.dim)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)
    for picture, row in zip(pixels, rows, strict=True):
        assert row @ encoder.encode(picture[np.newaxis])[0] >= 0.9999


def test_a_stream_keeps_its_order_and_takes_batches_of_any_fill(encoder: Encoder) -> None:
    pixels = pictures(40)
    cuts = [0, 8, 8, 9, 17, 17, 20, 28, 36, 40]
    batches = [(start, pixels[start:end]) for start, end in itertools.pairwise(cuts)]
    expected = encoder.encode(pixels)

    results = list(encoder.encode_stream(batches))

    assert [tag for tag, _ in results] == [tag for tag, _ in batches]
    assert [len(rows) for _, rows in results] == [len(batch) for _, batch in batches]
    assert cosines(np.concatenate([rows for _, rows in results]), expected).min() >= 0.9999


def test_the_array_of_a_batch_may_be_reused_for_the_next(encoder: Encoder) -> None:
    pixels = pictures(32)
    slots = np.empty((8, 3, SIDE, SIDE), np.uint8)

    def batches() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for start in range(0, 32, 8):
            slots[:] = pixels[start : start + 8]
            yield start, slots

    streamed = np.concatenate([rows for _, rows in encoder.encode_stream(batches())])

    assert cosines(streamed, encoder.encode(pixels)).min() >= 0.9999


def test_several_batches_are_in_flight_but_not_all(encoder: Encoder) -> None:
    asked = 0

    def batches() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        nonlocal asked
        for asked in range(1, 51):
            yield asked, pictures(1)

    stream = encoder.encode_stream(batches())
    next(stream)

    assert 2 <= asked <= 20


def test_a_stream_given_up_early_leaves_the_encoder_usable(encoder: Encoder) -> None:
    pixels = pictures(8)
    expected = encoder.encode(pixels)
    for _ in range(3):
        stream = encoder.encode_stream((i, pixels[::-1]) for i in range(10))
        next(stream)
        stream.close()  # type: ignore[attr-defined]

    assert cosines(encoder.encode(pixels), expected).min() >= 0.9999


def test_threads_share_an_encoder(encoder: Encoder) -> None:
    pixels = pictures(16)
    expected = encoder.encode(pixels)

    with ThreadPoolExecutor(6) as pool:
        alone = list(pool.map(lambda i: encoder.encode(pixels[i : i + 1])[0], [*range(16)] * 3))
        together = list(pool.map(lambda _: encoder.encode(pixels), range(4)))

    assert cosines(np.stack(alone), np.tile(expected, (3, 1))).min() >= 0.9999
    assert all(cosines(rows, expected).min() >= 0.9999 for rows in together)


def test_torch_and_openvino_refuse_the_same_pixels(encoder: Encoder, model: Path) -> None:
    for runtime in (encoder, TorchEncoder(load_twin(str(model)), device="cpu", batch_size=8)):
        with pytest.raises(ValueError, match=r"expected \(N, 3, 160, 160\) uint8"):
            runtime.encode(np.zeros((1, 160, 160, 3), np.uint8))
        with pytest.raises(ValueError, match="uint8"):
            runtime.encode(np.zeros((1, 3, 160, 160), np.float32))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="holds 9 pictures, the encoder takes 8"):
            list(runtime.encode_stream([(0, pictures(9))]))
        runtime.close()
        with pytest.raises(ValueError, match="is closed"):
            runtime.encode(pictures(1))


def test_torch_streams_like_openvino(encoder: Encoder, model: Path) -> None:
    reference = TorchEncoder(load_twin(str(model)), device="cpu", batch_size=8)
    batches = [("a", pictures(8)), ("empty", pictures(0)), ("b", pictures(3))]

    theirs, ours = list(reference.encode_stream(batches)), list(encoder.encode_stream(batches))

    assert [(tag, rows.shape) for tag, rows in theirs] == [(tag, rows.shape) for tag, rows in ours]
    assert cosines(theirs[2][1], ours[2][1]).min() > 0.999  # ours may be in bfloat16


# Devices


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:x", "CPU"])
def test_an_unknown_device_is_refused_with_the_known_ones(device: str) -> None:
    with pytest.raises(DeviceUnavailable, match="use auto, cpu, cuda or cuda:0"):
        open_encoder(device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    with pytest.raises(DeviceUnavailable, match=f"device {device} is not available.*--device cpu"):
        open_encoder(device=device)


@pytest.mark.skipif(has_gpu(), reason="needs a machine without a GPU")
def test_torch_names_a_gpu_that_it_does_not_find() -> None:
    with pytest.raises(DeviceUnavailable, match="device cuda:7 is not available: torch finds no CUDA device"):
        TorchEncoder(make_twin(0), device="cuda:7")


# What the process loads


def test_a_cpu_encoder_loads_neither_torch_nor_timm_and_leaves_the_home_folder_alone(
    model: Path, cache: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = f"""
import sys, numpy
from retrieval.encoder.runtime import open_encoder
encoder = open_encoder({str(model)!r})
encoder.encode(numpy.zeros((1, 3, {SIDE}, {SIDE}), numpy.uint8))
print(sorted({{"torch", "timm", "torchvision", "openvino_telemetry"}} & set(sys.modules)))
"""
    loaded = run_python(code, HOME=str(home), CUDA_VISIBLE_DEVICES="")

    assert loaded == "[]"
    assert list(home.iterdir()) == []


# Conversion and caches


def test_a_model_directory_carries_its_conversion(model: Path) -> None:
    assert (model / "openvino" / "model.xml").is_file()
    assert describe_model(model).dim == 64


def test_processes_that_convert_at_once_do_not_harm_each_other(conversions: list[Artifact]) -> None:
    first, second = conversions

    assert first == second
    assert first.verified_ir().is_file()
    assert sorted(path.name for path in first.folder.parent.iterdir()) == [
        "config.json",
        "openvino",
        "weights.safetensors",
    ]


def test_a_conversion_of_former_weights_is_replaced(conversions: list[Artifact]) -> None:
    assert conversions[0].description.fingerprint == make_twin(3).fingerprint()


def test_where_no_cache_can_be_written_a_model_is_converted_for_now(cache: Path) -> None:
    (cache / "weights").mkdir(parents=True)
    torch.manual_seed(6)
    save_file(timm.create_model(TINY).state_dict(), cache / "weights" / f"{TINY}.safetensors")
    (cache / "models").touch()  # a file where a folder has to be: nobody can write there
    (cache / "compiled").touch()

    encoder = open_encoder(TINY, device="cpu")

    assert encoder.encode(pictures(1)).shape == (1, 256)


def test_a_failed_conversion_says_why_and_leaves_nothing_behind(cache: Path) -> None:
    with pytest.raises(UnknownModel, match="did you mean efficientnet"):
        prepare_model("efficientnet_lit0")

    assert list((cache / "models").iterdir()) == []


def test_a_damaged_portable_model_is_named(model: Path, cache: Path, tmp_path: Path) -> None:
    artifact = prepare_model(model)
    damaged = tmp_path / "openvino"
    damaged.mkdir()
    for path in artifact.folder.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    content = bytearray((damaged / "model.bin").read_bytes())
    content[100] ^= 1
    (damaged / "model.bin").write_bytes(content)
    copy = Artifact(artifact.description, damaged, artifact.checksums)

    with pytest.raises(ModelDamaged, match=f"delete {damaged}"):
        OpenVinoEncoder(copy, threads=1, batch_size=8, precision="f32").encode(pictures(1))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_compilation_is_made_anew(model: Path, cache: Path, damage: str) -> None:
    expected = open_encoder(model, device="cpu").encode(pictures(1))
    (path,) = (cache / "compiled").iterdir()
    whole = path.read_bytes()
    flipped = whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
    damaged = {"flip": flipped, "cut": whole[:-1000], "empty": b""}[damage]
    path.unlink()  # never written in place: a process may have it mapped
    path.write_bytes(damaged)

    rows = open_encoder(model, device="cpu").encode(pictures(1))

    assert cosines(rows, expected).min() >= 0.9999
    assert path.read_bytes() != damaged
    assert path.stat().st_size == len(whole)


def test_a_kept_compilation_is_enough(model: Path, cache: Path) -> None:
    expected = open_encoder(model, device="cpu").encode(pictures(1))
    hidden = model / "openvino" / "hidden.bin"
    (model / "openvino" / "model.bin").rename(hidden)
    try:
        rows = open_encoder(model, device="cpu").encode(pictures(1))
    finally:
        hidden.rename(model / "openvino" / "model.bin")

    np.testing.assert_array_equal(rows, expected)


def test_precisions_are_compiled_apart(model: Path, cache: Path) -> None:
    for _ in range(2):
        open_encoder(model, device="cpu", precision="f32").encode(pictures(1))
    open_encoder(model, device="cpu", precision="f32", threads=1).encode(pictures(1))

    assert len(list((cache / "compiled").glob("*.blob"))) == 2


def test_a_batch_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        open_encoder(batch_size=0)
