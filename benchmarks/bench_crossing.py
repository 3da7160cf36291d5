"""From which share of the pictures on is a first stage faster than comparing all that a condition leaves?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_crossing.py [--count 200000] [RECIPE...]

For each recipe and share: milliseconds of a single search by the first stage, asked as thoroughly as the share demands,
over those of comparing all that may be found; and what it finds of the true ten nearest. `indexer/open_segment.py` has
its limits from here.
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from bench_scale import K, filled, median_ms, recall
from common import record
from embeddings import QUERIES, more_like, real_embeddings
from indexer.approximation import Tuning
from indexer.open_segment import Allowed, OpenSegment
from indexer.segments import only
from indexer.settings import SearchSettings
from retrieval.threads import usable_cores

RECIPES = ("RR256,IVF512,PQ128x4fs", "IVF2048,SQ8", "HNSW32,SQ8", "SQ8")
SHARES = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
TIMED = 30


def crossing(one: OpenSegment, queries: Any, share: float) -> dict[str, float]:
    """How the first stage does where this share of a segment's pictures may be found."""
    approximation = one.approximation
    assert approximation is not None
    mask = np.random.default_rng(0).random(int(one.segment.ids[-1]) + 1) < share
    allowed = Allowed(mask)
    of_rows = allowed.among(one.segment.ids)
    rows, count = only(of_rows), np.count_nonzero(of_rows)
    effort, pool = approximation.file.tuning
    tuning = Tuning(math.ceil(effort * len(one.segment.ids) / max(1, count)), pool)
    found = approximation.search(queries, K, tuning, rows)
    compared = OpenSegment(one.segment, one.removed)
    true = compared.search(queries, K, allowed)
    singles = [queries[row : row + 1] for row in range(TIMED)]
    first, exact = median_ms(
        [
            lambda: [approximation.search(query, K, tuning, rows) for query in singles],
            lambda: [compared.search(query, K, allowed) for query in singles],
        ]
    )
    lists = {} if approximation.lists is None else {f"{share:g}_of_lists": tuning.effort / approximation.lists}
    return {
        f"{share:g}_ms": first / TIMED,
        f"{share:g}_over_exact": first / exact,
        f"{share:g}_recall": recall(found.scores, true.scores),
        **lists,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--cache", type=Path, help="Where the real embeddings are kept for the next run.")
    asked = parser.parse_args()
    real = real_embeddings(asked.cache)
    rows = more_like(real, asked.count)
    queries = more_like(real, QUERIES, seed=1)
    faiss.omp_set_num_threads(usable_cores())
    with tempfile.TemporaryDirectory() as name:
        store, _ = filled(Path(name) / "index", rows)
        for recipe in asked.recipes:
            with store.job("compact"):
                store.compact(SearchSettings(recipe))
            (one,) = store.snapshot.segments
            assert one.approximation is not None
            tuning = one.approximation.file.tuning
            values: dict[str, Any] = {"effort": tuning.effort, "pool": tuning.pool}
            for share in SHARES:
                values |= crossing(one, queries, share)
            record(
                "crossing",
                dataset=f"{asked.count} vectors of 256 values, made from Grocery and emoji",
                protocol="the first stage against comparing what may be found, single searches",
                model=recipe,
                values=values,
                seed=0,
            )
        store.close()


if __name__ == "__main__":
    sys.exit(main())
