"""How much faster does an index move to a model of which only the head is new, where the features are kept?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_head_only.py

Grocery's train.txt and val.txt, EfficientNet-Lite0. Three models are trained for an epoch, their heads alone, from
three seeds. One index moves from the first to the third by looking at every picture again, another from the first to
the second, keeping features, and then to the third by these. All in one process; the vectors of both ways are compared.
"""

import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from common import record
from indexer.store import IndexStore
from indexer.vectors import Vectors
from retrieval.engine import SearchEngine
from retrieval.refresh import move_to_model
from retrieval.training import TrainConfig, train
from training_sets import write_grocery

MODEL = "efficientnet_lite0"


def trained_head(source: Path, out: Path, seed: int) -> Path:
    """A model whose head alone was trained for an epoch."""
    train(
        TrainConfig(
            str(source), str(out), from_model=MODEL, epochs=1, validation="none", freeze_backbone=True, train_px=96,
            seed=seed,
        )
    )  # fmt: skip
    return out


def indexed(gallery: Path, index_dir: Path, model: Path) -> Path:
    """An index of the gallery."""
    with SearchEngine.create(index_dir, model=model) as engine:
        engine.sync(gallery)
    return index_dir


def compile_for(model: Path, gallery: Path, folder: Path) -> None:
    """Convert and compile a model by letting it index a few pictures; what is timed finds both at hand."""
    few = gallery.with_name("few.csv")
    few.write_text("\n".join(gallery.read_text("utf-8").splitlines()[:65]) + "\n", "utf-8")
    indexed(few, folder, model)


def seconds_to_move(index_dir: Path, model: Path, *, keep_features: bool = False) -> float:
    """Of a whole move, the encoder's opening included."""
    started_s = time.perf_counter()
    moved = move_to_model(index_dir, model, keep_features=keep_features)
    assert moved.embedded > 0
    return time.perf_counter() - started_s


def vectors_of(index_dir: Path) -> Vectors:
    """(N, D) by ascending id."""
    with closing(IndexStore(index_dir)) as store:
        ids, rows = zip(*store.snapshot.blocks(), strict=True)
        return np.concatenate(rows)[np.argsort(np.concatenate(ids))]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gallery = write_grocery(folder)["shelf"]
        first, second, third = (trained_head(gallery, folder / f"head-{seed}", seed) for seed in range(3))
        compile_for(third, gallery, folder / "compiled")
        looking, features = (indexed(gallery, folder / way, first) for way in ("looking", "features"))
        looking_s = seconds_to_move(looking, third)
        keeping_s = seconds_to_move(features, second, keep_features=True)
        features_s = seconds_to_move(features, third)
        looked, made = vectors_of(looking), vectors_of(features)
        cosines = np.einsum("nd,nd->n", looked, made)
        record(
            "head_only",
            dataset=f"Grocery, {len(made)} photos",
            protocol="a move to a model of which only the head is new",
            model=MODEL,
            values={
                "looking_seconds": looking_s,
                "keeping_features_seconds": keeping_s,
                "features_seconds": features_s,
                "times_faster": looking_s / features_s,
                "images_per_second_looking": len(made) / looking_s,
                "images_per_second_features": len(made) / features_s,
                "cosine_min": float(cosines.min()),
                "cosine_median": float(np.median(cosines)),
            },
            seed=0,
        )


if __name__ == "__main__":
    sys.exit(main())
