"""Does a better order pay? Query expansion, k-reciprocal re-ranking and several crops of the query, each by itself.

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_order.py [--model NAME|DIR ...]

Grocery, the protocols "shelf" (2,485 photos against 2,936) and "catalogue" (the same against 81 pictures), answered by
the product: Recall@1, and of the first ten hits the share of the query's product, of a catalogue a tenth at most.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import grocery_iconic, grocery_split, record
from indexer.vectors import Vectors
from retrieval.engine import SearchEngine

K = 10
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "expand 3": {"expand": 3},
    "expand 10": {"expand": 10},
    "rerank": {"rerank": True},
}


def measured(engine: SearchEngine, vectors: Vectors, products: list[str], ways: dict[str, Any]) -> dict[str, float]:
    """Recall@1, and the share of the query's product among the first ten."""
    results = engine.search_vectors(vectors, K, **ways)
    is_right = np.array(
        [[hit.product_id == own for hit in result.hits] for own, result in zip(products, results, strict=True)]
    )
    return {"recall_at_1": float(is_right[:, 0].mean()), "precision_at_10": float(is_right.mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", metavar="NAME|DIR", help="Default: efficientnet_lite0.")
    asked = parser.parse_args()
    queries = grocery_split("test")
    products = [str(one.fine) for one in queries]
    galleries = {"shelf": grocery_split("train") + grocery_split("val"), "catalogue": grocery_iconic()}
    for model in asked.model or ["efficientnet_lite0"]:
        looks: dict[str, Vectors] = {}
        for protocol, gallery in galleries.items():
            with (
                tempfile.TemporaryDirectory() as folder,
                SearchEngine.create(Path(folder) / "index", model=model) as engine,
            ):
                if not looks:
                    paths = [one.path for one in queries]
                    embedder = engine._index.now.model.embedder
                    looks = {"": embedder.embed(paths), ", crops": embedder.embed_crops(paths)}
                for one in gallery:
                    engine.upsert(str(one.path), one.path, product_id=str(one.fine))
                for (look, vectors), (way, options) in itertools.product(looks.items(), WAYS.items()):
                    record(
                        "order",
                        dataset=f"Grocery, {len(queries)} queries",
                        protocol=f"{protocol}, {way}{look}",
                        model=Path(model).name,
                        values=measured(engine, vectors, products, options),
                    )


if __name__ == "__main__":
    sys.exit(main())
