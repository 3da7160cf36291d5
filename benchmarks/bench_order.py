"""Does a better order pay? Query expansion, k-reciprocal re-ranking and several crops of the query, each by itself.

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_order.py [--model NAME|DIR ...]

Grocery, the protocols "shelf" (2,485 photos against 2,936) and "catalogue" (the same against 81 pictures), answered by
the product: Recall@1, and of the first ten hits the share of the query's product, of a catalogue a tenth at most.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import LabelledPicture, grocery_iconic, grocery_split, record
from retrieval.engine import SearchEngine

K = 10
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "expand 3": {"expand": 3},
    "expand 10": {"expand": 10},
    "rerank": {"rerank": True},
    "crops": {"crops": True},
    "crops and rerank": {"crops": True, "rerank": True},
}


def measured(engine: SearchEngine, queries: list[LabelledPicture], ways: dict[str, Any]) -> dict[str, float]:
    """Recall@1, precision of the first ten, and milliseconds of a query without its embedding where there is one."""
    start = time.perf_counter()
    results = engine.search([one.path for one in queries], K, **ways)
    seconds = time.perf_counter() - start
    is_right = np.array(
        [[hit.product_id == str(one.fine) for hit in result.hits] for one, result in zip(queries, results, strict=True)]
    )
    return {
        "recall_at_1": float(is_right[:, 0].mean()),
        "precision_at_10": float(is_right.mean()),
        "ms_a_query": 1000 * seconds / len(queries),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", metavar="NAME|DIR", help="Default: efficientnet_lite0.")
    asked = parser.parse_args()
    queries = grocery_split("test")
    galleries = {"shelf": grocery_split("train") + grocery_split("val"), "catalogue": grocery_iconic()}
    for model in asked.model or ["efficientnet_lite0"]:
        for protocol, gallery in galleries.items():
            with (
                tempfile.TemporaryDirectory() as folder,
                SearchEngine.create(Path(folder) / "index", model=model) as engine,
            ):
                for one in gallery:
                    engine.upsert(str(one.path), one.path, product_id=str(one.fine))
                for way, options in WAYS.items():
                    record(
                        "order",
                        dataset=f"Grocery, {len(queries)} queries",
                        protocol=f"{protocol}, {way}",
                        model=Path(model).name,
                        values=measured(engine, queries, options),
                    )


if __name__ == "__main__":
    sys.exit(main())
