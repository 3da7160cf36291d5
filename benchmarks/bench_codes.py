"""Which short codes name the true neighbours, among how many candidates, and how fast?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_codes.py [--count 500000] [RECIPE...]

A first stage names candidates, which are scored again by the vectors themselves: with codes that find the ten nearest
among their best forty nothing is missed. Lists that miss little (64 of 1,024) are looked into, so that codes decide.
`indexer/recipe.py` has its choice from here.
"""

import argparse
import sys
import time
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from common import record
from embeddings import DIM, QUERIES, Rows, more_like, real_embeddings
from indexer.recipe import innermost
from retrieval.threads import usable_cores

RECIPES = (
    "IVF1024,SQ8",
    "IVF1024,PQ128x4fs",
    "RR256,IVF1024,PQ128x4fs",
    "RR256,IVF1024,PQ64x4fs",
    "RR256,IVF1024,PQ256x4fs",
    "RR256,IVF1024,PQ64",
    "RR256,IVF1024,RaBitQ",
    "RR256,IVF1024,RaBitQfs",
    "OPQ128_256,IVF1024,PQ128x4fs",
)
K = 10
POOLS = (1, 2, 4, 8, 16, 32, 64, 128)  # candidates for each hit
_LEARNED_FROM = 131_072
_PROBED = 64


def codes(recipe: str, rows: Rows, queries: Rows, true: NDArray[np.int64]) -> dict[str, float]:
    """Bytes a vector, seconds to build, milliseconds a query of a batch, and the share of (Q, 10) true rows by pool."""
    index = faiss.index_factory(DIM, recipe, faiss.METRIC_INNER_PRODUCT)
    start_s = time.perf_counter()
    index.train(rows[np.random.default_rng(1).choice(len(rows), min(len(rows), _LEARNED_FROM), replace=False)])
    index.add(rows)
    built_s = time.perf_counter()
    inner = innermost(index)
    inner.nprobe = _PROBED
    _, found = index.search(queries, K * POOLS[-1])
    searched_s = time.perf_counter()
    values = {
        "code_bytes": float(inner.code_size),
        "build_s": built_s - start_s,
        "query_ms": 1000 * (searched_s - built_s) / len(queries),
    }
    for pool in POOLS:
        named = [
            np.isin(wanted, candidates).mean() for wanted, candidates in zip(true, found[:, : K * pool], strict=True)
        ]
        values[f"found_among_{K * pool}"] = float(np.mean(named))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--count", type=int, default=500_000)
    parser.add_argument("--cache", type=Path, help="Where the real embeddings are kept for the next run.")
    asked = parser.parse_args()
    faiss.omp_set_num_threads(usable_cores())
    real = real_embeddings(asked.cache)
    rows, queries = more_like(real, asked.count), more_like(real, QUERIES, seed=1)
    _, true = faiss.knn(queries, rows, K, metric=faiss.METRIC_INNER_PRODUCT)
    for recipe in asked.recipes:
        record(
            "codes",
            dataset=f"{asked.count} vectors of 256 values, made from Grocery and emoji",
            protocol=f"the true ten among the best of the codes, {_PROBED} lists",
            model=recipe,
            values=codes(recipe, rows, queries, true),
            seed=0,
        )


if __name__ == "__main__":
    sys.exit(main())
