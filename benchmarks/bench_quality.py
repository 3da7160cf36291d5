"""How good are the answers of the product on the Grocery protocols, and what does bfloat16 cost?

RETRIEVE_BENCH_DATA=... python benchmarks/bench_quality.py
"""

import csv
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import LabelledPicture, bench_data, grocery_iconic, grocery_split, record
from indexer.store import IndexStore
from retrieval.embedder import Embedder
from retrieval.encoder.compiled import Precision
from retrieval.encoder.runtime import describe_model, open_encoder
from retrieval.engine import SearchEngine
from retrieval.images import DecodeLimits
from retrieval.index_model import IndexModel, ModelOptions

MODELS = ("efficientnet_lite2", "efficientnet_lite0")
QUERIES_AT_ONCE = 256


def recall_at_1(
    gallery: Sequence[LabelledPicture], queries: Sequence[LabelledPicture], model: str, precision: Precision
) -> float:
    """The share of queries whose best hit is of the same product, indexed and asked through `SearchEngine`."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "gallery.csv"
        with manifest.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "product_id"])
            rows.writerows([picture.path, f"product {picture.fine}"] for picture in gallery)
        with open_engine(Path(folder) / "index", model, precision) as engine:
            report = engine.sync(manifest)
            assert report.added == len(gallery), report.skipped
            correct = 0
            for start in range(0, len(queries), QUERIES_AT_ONCE):
                asked = queries[start : start + QUERIES_AT_ONCE]
                answers = engine.search([query.path for query in asked], k=1)
                correct += sum(
                    answer.hits[0].product_id == f"product {query.fine}"
                    for query, answer in zip(asked, answers, strict=True)
                )
    return correct / len(queries)


def open_engine(index_dir: Path, model: str, precision: Precision) -> SearchEngine:
    """An engine over a new index whose encoder computes in `precision`."""
    described = describe_model(model)
    store = IndexStore.create(
        index_dir, model_name=described.name, model_fingerprint=described.fingerprint, dim=described.dim
    )
    embedder = Embedder(lambda: open_encoder(model, device="cpu", precision=precision), DecodeLimits())
    return SearchEngine(store, IndexModel(store.space, model, embedder, None), ModelOptions())


def main() -> None:
    bench_data()
    queries = grocery_split("test")
    protocols = {"shelf": grocery_split("train") + grocery_split("val"), "catalogue": grocery_iconic()}
    for model in MODELS:
        for protocol, gallery in protocols.items():
            bf16, f32 = (recall_at_1(gallery, queries, model, precision) for precision in ("auto", "f32"))
            record(
                "quality",
                dataset=f"Grocery, {len(queries)} queries against {len(gallery)} pictures",
                protocol=protocol,
                model=model,
                values={"recall_at_1": bf16, "recall_at_1_float32": f32, "bfloat16_minus_float32": bf16 - f32},
            )


if __name__ == "__main__":
    sys.exit(main())
