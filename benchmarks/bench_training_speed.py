"""What does decoding, augmenting and mining cost a training, against bare steps on batches that lie in memory?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_training_speed.py [--train-px 224] [--rounds 3]

The bare step is forward, loss, backward and the optimiser on the same batch shapes, in the same process and with the
same kernels; "plain torch" is that without what `retrieve train` does to the network and the allocator, in a process
of its own. All take turns.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from common import bench_data, grocery_split, record
from retrieval.training import TrainConfig, train
from retrieval.training.depthwise import speed_up_depthwise
from retrieval.training.memory import keep_freed_memory
from retrieval.training.network import open_network
from retrieval.training.objective import open_objective
from retrieval.training.precision import choose_precision
from retrieval.training.rates import make_optimiser
from training_sets import write_manifest

MODEL = "efficientnet_lite0"
BATCHES = 10
WARM_UP = 3


def configuration(source: Path, out: Path, train_px: int) -> TrainConfig:
    """Two epochs on everything; the second is measured."""
    return TrainConfig(
        source=str(source),
        out=str(out),
        from_model=MODEL,
        train_px=train_px,
        epochs=2,
        validation="none",
        miner="index",
    )


def bare_images_per_second(train_px: int, *, is_plain: bool) -> float:
    """The speed of steps on one batch that lies in memory."""
    config = configuration(Path(), Path(), train_px)
    if not is_plain:
        keep_freed_memory()
    precision = choose_precision(config)
    network = open_network(config).to(memory_format=torch.channels_last).train()
    if not is_plain:
        speed_up_depthwise(network)
    objective = open_objective(config, config.classes_per_batch, network.config.dim)
    optimiser = make_optimiser(network, [], config)
    size = config.classes_per_batch * config.pictures_per_class
    pixels = np.random.default_rng(0).integers(0, 256, (size, 3, train_px, train_px), np.uint8)
    labels = torch.arange(config.classes_per_batch).repeat_interleave(config.pictures_per_class)
    started_s = 0.0
    for number in range(WARM_UP + BATCHES):
        if number == WARM_UP:
            started_s = time.perf_counter()
        with precision.autocast():
            embeddings = network(precision.pixels(pixels))
        embeddings = torch.nn.functional.normalize(embeddings.float(), dim=1)
        cost = objective(embeddings, labels, torch.arange(size), None)
        optimiser.zero_grad(set_to_none=True)
        cost.loss.backward()
        optimiser.step()
    return size * BATCHES / (time.perf_counter() - started_s)


def in_a_process(*arguments: str) -> float:
    """What this script prints when it measures one thing."""
    command = [sys.executable, __file__, *arguments]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def training_images_per_second(train_px: int) -> float:
    """The speed of the second epoch of a training: decoding, augmenting and steps."""
    with tempfile.TemporaryDirectory() as name:
        source = write_manifest(Path(name) / "train.csv", grocery_split("train")[::3])
        config = configuration(source, Path(name) / "model", train_px)
        train(config)
        lines = (Path(config.out) / "metrics.jsonl").read_text("utf-8").splitlines()
        return float(json.loads(lines[-1])["images_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-px", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("bare", "plain", "training"), help="measure one thing here and print it")
    asked = parser.parse_args()
    bench_data()
    if asked.only == "training":
        print(training_images_per_second(asked.train_px))
        return
    if asked.only is not None:
        print(bare_images_per_second(asked.train_px, is_plain=asked.only == "plain"))
        return
    found: dict[str, list[float]] = {"training": [], "bare": [], "plain": []}
    for _ in range(asked.rounds):
        for name, speeds in found.items():
            speeds.append(in_a_process("--only", name, "--train-px", str(asked.train_px)))
    ratios = [one / other for one, other in zip(found["training"], found["bare"], strict=True)]
    gains = [one / other for one, other in zip(found["bare"], found["plain"], strict=True)]
    record(
        "training_speed",
        dataset=f"Grocery, {len(grocery_split('train')[::3])} photos",
        protocol=f"{asked.train_px} px, batches of 16 x 4",
        model=MODEL,
        values={
            "training_per_s": statistics.median(found["training"]),
            "bare_steps_per_s": statistics.median(found["bare"]),
            "plain_torch_per_s": statistics.median(found["plain"]),
            "training_share_of_bare": statistics.median(ratios),
            "bare_against_plain_torch": statistics.median(gains),
        },
        seed=0,
    )


if __name__ == "__main__":
    sys.exit(main())
