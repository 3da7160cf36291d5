"""Does a CUDA device compute what the CPU computes? Run by make test-gpu, where there is one."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.encoder.compiled import Precision
from retrieval.encoder.preprocess import Preprocessing, preprocess
from retrieval.encoder.runtime import open_encoder
from retrieval.encoder.torch_runtime import TorchEncoder
from retrieval.encoder.weights import load_twin
from retrieval.engine import SearchEngine
from retrieval.images import decode
from retrieval.training import TrainProgress, train
from training_pictures import quick, write_views

pytestmark = pytest.mark.gpu

MODEL = "efficientnet_lite0"


def demo_pixels(demo_gallery: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """(100, 3, P, P)."""
    return np.stack([preprocess(decode(str(path)), preprocessing) for path in sorted(demo_gallery.glob("*/*.*"))])


def cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.einsum("nd,nd->n", first, second)


class TrainProgressKept:
    """The loss of each epoch, and how many triplets were active in the last."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.active = 0.0

    def __call__(self, state: TrainProgress) -> None:
        if state.done == state.total:
            self.losses.append(state.loss)
            self.active = state.active


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Path:
    """Fifty things, six views each. Read it, do not write to it."""
    return write_views(demo_gallery, tmp_path_factory.mktemp("catalogue") / "catalogue")


@pytest.mark.parametrize(("precision", "least"), [("f32", 0.9999), ("bf16", 0.99)])
def test_embeddings_are_those_of_the_cpu(demo_gallery: Path, precision: Precision, least: float) -> None:
    on_cpu = TorchEncoder(load_twin(MODEL), device="cpu", precision="f32")
    on_gpu = open_encoder(MODEL, device="cuda", precision=precision)
    pixels = demo_pixels(demo_gallery, on_cpu.preprocessing)
    assert isinstance(on_gpu, TorchEncoder)
    assert cosines(on_gpu.encode(pixels), on_cpu.encode(pixels)).min() > least


def test_an_index_made_on_the_gpu_answers_with_what_it_holds(tmp_path: Path, demo_gallery: Path) -> None:
    with SearchEngine.create(tmp_path / "index", model=MODEL, device="cuda") as engine:
        report = engine.sync(demo_gallery)
        assert report.added == 100
        hit = engine.search(demo_gallery / "apple" / "noto.png", k=1).hits[0]
    assert hit.key.endswith("apple/noto.png")
    assert hit.score == pytest.approx(1.0, abs=1e-3)


def test_training_tells_classes_apart_that_it_never_saw(tmp_path: Path, catalogue: Path) -> None:
    config = quick(catalogue, tmp_path / "model", epochs=3, backbone_rate=1e-3, device="cuda")
    report = train(dataclasses.replace(config, classes_per_batch=16))
    assert report.before is not None
    assert report.after is not None
    assert report.after["recall_at_1"] > report.before["recall_at_1"] + 0.1


def test_a_trained_model_says_the_same_on_the_cpu(tmp_path: Path, catalogue: Path, demo_gallery: Path) -> None:
    config = quick(catalogue, tmp_path / "model", from_model=MODEL, embed_px=96, validation="none", device="cuda")
    trained = train(config).model
    on_gpu, on_cpu = (TorchEncoder(load_twin(trained), device=device, precision="f32") for device in ("cuda", "cpu"))
    pixels = demo_pixels(demo_gallery, on_cpu.preprocessing)
    assert cosines(on_gpu.encode(pixels), on_cpu.encode(pixels)).min() > 0.999


@pytest.mark.parametrize("loss", ["proxy", "tuplet", "soft_triplet", "contrastive", "pair", "MultiSimilarityLoss"])
def test_every_loss_trains(tmp_path: Path, catalogue: Path, loss: str) -> None:
    told = TrainProgressKept()
    train(quick(catalogue, tmp_path / "model", loss=loss, miner="all", device="cuda", epochs=4), on_progress=told)
    assert told.losses[-1] < told.losses[0]


@pytest.mark.parametrize("miner", ["curriculum", "index", "all", "semi_hard", "hard", "distance_weighted"])
def test_every_miner_trains(tmp_path: Path, catalogue: Path, miner: str) -> None:
    told = TrainProgressKept()
    train(quick(catalogue, tmp_path / "model", loss="triplet", miner=miner, device="cuda", epochs=2), on_progress=told)
    assert told.active > 0


def test_a_run_that_was_stopped_resumes(tmp_path: Path, catalogue: Path) -> None:
    config = quick(catalogue, tmp_path / "model", device="cuda", epochs=3)

    def stop(state: TrainProgress) -> None:
        if state.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, on_progress=stop)
    train(config, resume=True)
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3]
