"""Does an index survive `kill -9` at any moment of an indexing run, and does the next run go on where it was?

RETRIEVE_BENCH_DATA=... python benchmarks/bench_kills.py [--kills 30]
"""

import argparse
import sys
import tempfile
from pathlib import Path

from common import bench_data, record
from indexer.integrity import verify
from kills import contents, kill_and_rerun
from retrieval.engine import SearchEngine

MODEL = "efficientnet_lite0"
SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    kills = parser.parse_args().kills
    gallery = bench_data() / "grocery"
    with tempfile.TemporaryDirectory() as folder:
        with SearchEngine.create(Path(folder) / "uninterrupted", model=MODEL) as engine:
            pictures = engine.sync(gallery).added
        seen, index = kill_and_rerun(gallery, Path(folder), MODEL, kills, SEED)
        expected, found = contents(Path(folder) / "uninterrupted"), contents(index)
        values = {
            "kills": len(seen.committed),
            "indexes_filled": seen.rounds + 1,
            "problems": seen.problems,
            "left_over_files": seen.orphans,
            "committed_but_encoded_again": seen.encoded_again,
            "last_index_is_whole": verify(index).is_whole,
            "same_keys": expected.keys() == found.keys(),
            "different_vectors": sum(found.get(key) != vector for key, vector in expected.items()),
        }
    record(
        "kills",
        dataset=f"Grocery, {pictures} pictures",
        protocol="kill -9 at random moments after a commit, verify, run again",
        model=MODEL,
        values=values,
        seed=SEED,
    )


if __name__ == "__main__":
    sys.exit(main())
