"""Is a served index right while it is written to, searched and given another model, and what do its callers feel?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_serve_writes.py [--seconds 60]

5,000 Grocery photos with EfficientNet-Lite0. Eight callers search without pause, eight others put a photo in and take
it out again, 20 changes a second together; after so many seconds `retrieve refresh` gives the index EfficientNet-Lite2,
and it goes on for as long.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from bench_serve import MODEL, PICTURES, server
from common import grocery_split, record
from retrieval.engine import SearchEngine
from served_writes import Load
from training_sets import write_manifest

BETTER = "efficientnet_lite2"
CALLERS = 8
CHANGES_PER_S = 20
QUERIES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="Before the refresh, and after it.")
    parser.add_argument("--port", type=int, default=8765)
    asked = parser.parse_args()
    photos = [picture for name in ("train", "val", "test") for picture in grocery_split(name)]
    gallery, (written, *_) = photos[:PICTURES], photos[PICTURES:]
    values = {}
    with tempfile.TemporaryDirectory() as name:
        index = Path(name) / "index"
        with SearchEngine.create(index, model=MODEL) as engine:
            engine.sync(write_manifest(Path(name) / "gallery.csv", gallery))

        def another_model(load: Load) -> None:
            time.sleep(asked.seconds)
            command = [sys.executable, "-m", "retrieval.cli", "refresh", "--model", BETTER, "--index", str(index)]
            start_s = time.monotonic()
            subprocess.run([*command, "--gate", "recall_at_1 >= 0"], check=True, stdout=subprocess.DEVNULL)
            values["refresh_s"] = time.monotonic() - start_s
            load.wait_for_models(2)
            time.sleep(asked.seconds)

        with server(index, asked.port) as (_, client):
            load = Load(str(client.base_url), [picture.path for picture in gallery[:QUERIES]], written.path)
            seen = load.run(another_model, askers=CALLERS, writers=CALLERS, changes_per_s=CHANGES_PER_S)
    record(
        "serve_writes",
        dataset=f"Grocery, {PICTURES} photos",
        protocol=f"{CALLERS} callers, {CHANGES_PER_S} changes a second, {BETTER} after {asked.seconds:.0f} s",
        model=MODEL,
        values=values | asdict(seen) | {"writes_per_s": seen.writes / seen.seconds},
    )


if __name__ == "__main__":
    sys.exit(main())
