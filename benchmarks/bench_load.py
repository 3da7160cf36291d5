"""Is the index right and steady while it is written: readers beside a writer, 20 upserts a second, backups?

RETRIEVE_BENCH_DATA=... python benchmarks/bench_load.py [--history-s 60] [--upsert-s 300]
"""

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from common import bench_data, grocery_split, record
from history import observe
from retrieval.engine import SearchEngine
from upserts import upsert_steadily

MODEL = "efficientnet_lite0"
RATE_PER_S = 20
BACKUPS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--history-s", type=float, default=60)
    parser.add_argument("--upsert-s", type=float, default=300)
    arguments = parser.parse_args()
    photos = [picture.path for name in ("train", "val", "test") for picture in grocery_split(name)]
    with tempfile.TemporaryDirectory() as folder:
        seen = observe(Path(folder), photos[:300:15], MODEL, arguments.history_s)
    record(
        "history",
        dataset="Grocery, 20 photos under 25 keys",
        protocol=f"two readers beside one writer for {arguments.history_s:.0f} s; each answer lists the whole index",
        model=MODEL,
        values=asdict(seen),
        seed=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        with SearchEngine.create(index, model=MODEL) as engine:
            engine.sync(bench_data() / "grocery")
        load = upsert_steadily(index, photos, Path(folder), RATE_PER_S, arguments.upsert_s, BACKUPS)
    record(
        "upserts",
        dataset=f"Grocery, {len(photos)} photos indexed, upserted again one by one",
        protocol=f"{RATE_PER_S} durable upserts a second for {arguments.upsert_s:.0f} s, a searching process beside",
        model=MODEL,
        values=asdict(load)
        | {
            "upserts_per_s": load.upserts / load.seconds,
            "search_ratio": load.search_during_ms / load.search_before_ms,
        },
    )


if __name__ == "__main__":
    sys.exit(main())
