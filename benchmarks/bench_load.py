"""Is the index right and steady while it is written: readers beside a writer, 20 upserts a second, backups, churn?

RETRIEVE_BENCH_DATA=... python benchmarks/bench_load.py [--history-s 60] [--upsert-s 300] [--churn-s 120]

Nought seconds leave a part out.
"""

import argparse
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path

from churn import Churn, run
from common import bench_data, grocery_split, record
from embeddings import more_like, real_embeddings
from history import observe
from retrieval.engine import SearchEngine
from upserts import upsert_steadily

MODEL = "efficientnet_lite0"
RATE_PER_S = 20
BACKUPS = 20
CHURN_BASE = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--history-s", type=float, default=60)
    parser.add_argument("--upsert-s", type=float, default=300)
    parser.add_argument("--churn-s", type=float, default=120)
    parser.add_argument("--cache", type=Path, help="Where the real embeddings are kept for the next run.")
    arguments = parser.parse_args()
    photos = [picture.path for name in ("train", "val", "test") for picture in grocery_split(name)]
    if arguments.history_s:
        watched(photos, arguments.history_s)
    if arguments.upsert_s:
        upserted(photos, arguments.upsert_s)
    if arguments.churn_s:
        churned(arguments.churn_s, arguments.cache)


def watched(photos: list[Path], seconds: float) -> None:
    """Two readers beside a writer."""
    with tempfile.TemporaryDirectory() as folder:
        seen = observe(Path(folder), photos[:300:15], MODEL, seconds)
    record(
        "history",
        dataset="Grocery, 20 photos under 25 keys",
        protocol=f"two readers beside one writer for {seconds:.0f} s; each answer lists the whole index",
        model=MODEL,
        values=asdict(seen),
        seed=0,
    )


def upserted(photos: list[Path], seconds: float) -> None:
    """Upserts, a searching process and backups."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        with SearchEngine.create(index, model=MODEL) as engine:
            engine.sync(bench_data() / "grocery")
        load = upsert_steadily(index, photos, Path(folder), RATE_PER_S, seconds, BACKUPS)
    record(
        "upserts",
        dataset=f"Grocery, {len(photos)} photos indexed, upserted again one by one",
        protocol=f"{RATE_PER_S} durable upserts a second for {seconds:.0f} s, a searching process beside",
        model=MODEL,
        values=asdict(load)
        | {
            "upserts_per_s": load.upserts / load.seconds,
            "search_ratio": load.search_during_ms / load.search_before_ms,
        },
    )


def churned(seconds: float, cache: Path | None) -> None:
    """Rows that come and go by the thousand, and a compaction, under readers."""
    with tempfile.TemporaryDirectory() as folder:
        seen = run(Path(folder), Churn(CHURN_BASE), seconds, make=partial(more_like, real_embeddings(cache)))
    record(
        "churn",
        dataset=f"{CHURN_BASE} vectors of 256 values, made from real embeddings (embeddings.py)",
        protocol=f"4 processes search for {seconds:.0f} s beside one that adds 1,000 rows a second and removes 100",
        model="none",
        values=asdict(seen) | {"throughput": seen.throughput},
    )


if __name__ == "__main__":
    sys.exit(main())
