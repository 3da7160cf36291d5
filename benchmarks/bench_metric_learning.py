"""Is `retrieve train` better than a tuned loop of pytorch-metric-learning on the same pictures, for as long?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_metric_learning.py margin --margin M          # for each of three,
    ...                                                          margin --margin M --freeze-batch-norm   # twice
    RETRIEVE_BENCH_DATA=... python benchmarks/bench_metric_learning.py loop --margin M --seed S   # the best, each seed
    RETRIEVE_BENCH_DATA=... python benchmarks/bench_training.py shelf --seed S                    # likewise
    python benchmarks/bench_metric_learning.py compare

A margin is judged on Grocery's val.txt, trained on train.txt. Loop and `retrieve train` are then trained on both, and
search for the photos of test.txt (the protocol "shelf"). Each run is kept with the queries that it found, and `compare`
reads them all: a paired interval over queries and seeds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench_training import add_budget, budget, ranked, searched
from common import RESULTS, grocery_split, packed_bits, record, unpacked_bits
from training_sets import write_grocery

NAME = "metric_learning"
LOOP_PROTOCOL = "shelf, pytorch-metric-learning"
LOOP = Path(__file__).parent / "peers" / "pytorch_metric_learning" / "train.py"
MODEL = "efficientnet_lite0"
RESAMPLES = 10_000

Found = NDArray[np.bool_]  # (queries,), or (seeds, queries): whether the nearest picture is of the query's product


def difference_interval(first: Found, second: Found, seed: int = 0) -> tuple[float, float]:
    """The 95% bootstrap interval of how many more of the queries, as a share, the first finds.

    Queries are drawn for both alike, which pairs them; seeds for each by itself, since equal seeds have nothing in
    common but their name.

    Args:
        first, second: (seeds, queries).
        seed: of the drawing.
    """
    random, differences = np.random.default_rng(seed), np.empty(RESAMPLES)
    for row in range(RESAMPLES):
        drawn = random.integers(0, first.shape[1], first.shape[1])
        means = [side[random.integers(0, len(side), len(side))][:, drawn].mean() for side in (first, second)]
        differences[row] = means[0] - means[1]
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def kept(name: str, protocol: str, trained_for: str) -> list[dict[str, Any]]:
    """The records of a protocol and a budget, in order of their seeds."""
    records = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    chosen = [one for one in records if one["protocol"] == protocol and one["model"].startswith(f"{trained_for}, ")]
    return sorted(chosen, key=lambda one: int(one["seed"]))


def found_by(runs: list[dict[str, Any]], queries: int) -> Found:
    """(seeds, queries) of what was kept."""
    return np.stack([unpacked_bits(run["values"]["found_at_1"], queries) for run in runs])


def run_loop(source: Path, out: Path, asked: argparse.Namespace) -> str:
    """Train the peer; returns its model directory."""
    chosen = ("margin", "epochs", "train_px", "embed_px", "seed", "device")
    options = {f"--{name.replace('_', '-')}": getattr(asked, name) for name in chosen}
    words = [str(word) for option, value in options.items() if value is not None for word in (option, value)]
    words += ["--freeze-batch-norm"] if asked.freeze_batch_norm else []
    subprocess.run([sys.executable, str(LOOP), str(source), str(out), "--model", MODEL, *words], check=True)
    return str(out)


def compare(trained_for: str) -> None:
    """Record how much better ours is than the loop, over the seeds that both were run with."""
    queries = len(grocery_split("test"))
    ours, theirs = kept("training", "shelf", trained_for), kept(NAME, LOOP_PROTOCOL, trained_for)
    seeds = [one["seed"] for one in ours]
    if not seeds or seeds != [one["seed"] for one in theirs]:
        sys.exit(f"ours was run with the seeds {seeds}, the loop with {[one['seed'] for one in theirs]}; run the rest")
    first, second = found_by(ours, queries), found_by(theirs, queries)
    low, high = difference_interval(first, second)
    record(
        NAME,
        dataset=f"Grocery, {queries} queries",
        protocol="shelf, retrieve train against the loop",
        model=f"{trained_for}, seeds {', '.join(map(str, seeds))}",
        values={
            "recall_at_1": float(first.mean()),
            "loop_recall_at_1": float(second.mean()),
            "difference": float(first.mean() - second.mean()),
            "difference_interval": [low, high],
            "map_at_r": float(np.mean([one["values"]["shelf_map_at_r"] for one in ours])),
            "loop_map_at_r": float(np.mean([one["values"]["map_at_r"] for one in theirs])),
        },
        seed=0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("margin", "loop", "compare"))
    parser.add_argument("--margin", type=float, default=0.2)
    parser.add_argument("--freeze-batch-norm", action="store_true")
    add_budget(parser)
    asked = parser.parse_args()
    trained_for = budget(MODEL, asked)
    if asked.what == "compare":
        compare(trained_for)
        return
    is_tuning = asked.what == "margin"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = write_grocery(folder)
        queries, gallery = (sets["val"], sets["train"]) if is_tuning else (sets["test"], sets["shelf"])
        scores = ranked(searched(queries, gallery, run_loop(gallery, folder / "model", asked)))
    statistics = f"batch statistics {'frozen' if asked.freeze_batch_norm else 'learned'}"
    record(
        NAME,
        dataset=f"Grocery, {len(scores.rows)} queries",
        protocol="val.txt, pytorch-metric-learning" if is_tuning else LOOP_PROTOCOL,
        model=f"{trained_for}, margin {asked.margin:g}, {statistics}, seed {asked.seed}",
        values={
            "recall_at_1": scores.recall_at(1),
            "map_at_r": scores.map_at_r,
            "found_at_1": packed_bits(scores.found_at(1)),
        },
        seed=asked.seed,
    )


if __name__ == "__main__":
    sys.exit(main())
