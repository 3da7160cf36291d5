"""A tuned loop of pytorch-metric-learning: TripletMarginLoss and BatchHardMiner, with everything else as ours has it.

    python benchmarks/peers/pytorch_metric_learning/train.py SOURCE OUT [--margin 0.2] [--epochs 12] [--seed 0] ...

The backbone, the head with its start, augmentation, batches, rates, schedule, number of pictures seen and precision are
those of `retrieve train`, whose parts it calls, and so are the speed-ups of the CPU. Loss and miner are the library's.
The weights of the last step are kept, as the library's examples do; `--average` keeps ours, to tell the two apart.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner

from retrieval.threads import thread_budget
from retrieval.training.average import WeightAverage
from retrieval.training.batch_norm import freeze_batch_norm
from retrieval.training.config import TrainConfig
from retrieval.training.dataset import open_training_set
from retrieval.training.depthwise import speed_up_depthwise
from retrieval.training.embedding import features_of_rows
from retrieval.training.loader import BatchLoader
from retrieval.training.memory import keep_freed_memory
from retrieval.training.network import open_network, start_projection
from retrieval.training.precision import choose_precision
from retrieval.training.rates import cosine_factor, make_optimiser, set_factor
from retrieval.training.samplers import batches_of_groups, groups_of_classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--margin", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--train-px", type=int, default=160)
    parser.add_argument("--embed-px", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--average", type=float, default=0.0)
    parser.add_argument("--freeze-batch-norm", action="store_true")
    asked = parser.parse_args()
    config = TrainConfig(
        asked.source, asked.out, from_model=asked.model, epochs=asked.epochs, train_px=asked.train_px,
        embed_px=asked.embed_px, seed=asked.seed, validation="none", schedule="cosine", warm_up=0.2 * asked.epochs,
        average=asked.average, device=asked.device, threads=asked.threads,
    )  # fmt: skip
    keep_freed_memory()
    torch.set_num_threads(thread_budget(config.threads).total)
    pictures = open_training_set(config).pictures
    precision = choose_precision(config)
    network = open_network(config).to(precision.device).to(memory_format=torch.channels_last)
    loader = BatchLoader(
        pictures.records, network.config.preprocessing, config.augmentation, asked.train_px, config.limits,
        thread_budget(config.threads).decoding,
    )  # fmt: skip
    some = np.sort(np.random.default_rng(config.seed).permutation(len(pictures))[:2048])
    start_projection(network, features_of_rows(network, loader, some, precision))
    if precision.device.type == "cpu" and precision.is_bf16:
        speed_up_depthwise(network)
    optimiser = make_optimiser(network, [], config)
    average = WeightAverage(network, config.average)
    miner, loss = BatchHardMiner(), TripletMarginLoss(margin=asked.margin)
    for epoch in range(config.epochs):
        random = np.random.default_rng([config.seed, epoch])
        groups = groups_of_classes(pictures.labels, config.pictures_per_class, random)
        batches = batches_of_groups(groups, pictures.labels, config.classes_per_batch)
        network.train()
        if asked.freeze_batch_norm:
            freeze_batch_norm(network)
        total = 0.0
        for number, pixels in enumerate(loader.training_batches(batches, [config.seed, epoch])):
            progress = (epoch + number / len(batches)) / config.epochs
            set_factor(optimiser, cosine_factor(progress, config.warm_up / config.epochs))
            with precision.autocast():
                embeddings = network(precision.pixels(pixels))
            labels = torch.from_numpy(pictures.labels[batches[number]]).to(precision.device)
            cost = loss(embeddings.float(), labels, miner(embeddings.float(), labels))
            optimiser.zero_grad(set_to_none=True)
            cost.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            optimiser.step()
            average.update(network)
            total += float(cost.detach())
        print(f"epoch {epoch + 1}/{config.epochs}: loss {total / len(batches):.4f}", file=sys.stderr, flush=True)
    twin = average.network
    twin.config = dataclasses.replace(twin.config, name=Path(asked.out).name)
    twin.save(Path(asked.out))


if __name__ == "__main__":
    sys.exit(main())
