"""What does a search cost as an index grows, with and without conditions, against the bare index and the exact search?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_scale.py [--count 1000000] [--recipe auto] [--recall 0.95]

Vectors are made from the embeddings of real pictures (`embeddings.py`), and as hard to search: how much so is recorded
beside those of the real ones. Searched with others of the same kind, and with real pictures that none was made from.
Bare is the same FAISS index with the same parameters, without the store around it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from common import record
from embeddings import QUERIES, Rows, difficulty, more_like, real_embeddings
from indexer.changes import Attributes, Changes, Put
from indexer.open_segment import Allowed, OpenSegment
from indexer.recipe import EXACT
from indexer.settings import SearchSettings
from indexer.store import IndexStore
from retrieval.threads import usable_cores

SELECTIVITIES = (0.0001, 0.01, 0.1, 0.5)
K = 10
BATCH = 64
ROUNDS = 24
_ROWS_A_COMMIT = 20_000

# What a process that serves searches holds for itself, after opening and after the searches.
_SERVING = """
import sys
import numpy as np
from indexer.store import IndexStore

def private_bytes():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))

import faiss
before = private_bytes()
store = IndexStore(sys.argv[1])
queries = np.load(sys.argv[2])
for query in queries:
    store.search(query[None], 10)
print(private_bytes() - before)
"""


def filled(index_dir: Path, rows: Rows) -> tuple[IndexStore, float]:
    """An index of (N, D) rows, each with a price and a random number between 0 and 1; and the seconds it took."""
    store = IndexStore.create(index_dir, model_name="made up", model_fingerprint="0", dim=rows.shape[1])
    lots = np.random.default_rng(3).random(len(rows))
    start_s = time.perf_counter()
    for start in range(0, len(rows), _ROWS_A_COMMIT):
        puts = [
            Put(f"{row}", vector, content_hash="", size_bytes=0, mtime_ns=0, scanned_ns=0, path="",
                attributes=Attributes(f"p{row // 4}", None, {"lot": float(lots[row]), "colour": "red"}))
            for row, vector in enumerate(rows[start : start + _ROWS_A_COMMIT], start)
        ]  # fmt: skip
        store.commit(Changes(puts=puts))
    return store, time.perf_counter() - start_s


def median_ms(calls: list[Callable[[], object]]) -> list[float]:
    """The median of `ROUNDS` calls of each, in turn; each behind each other, for the caches."""
    times: list[list[float]] = [[] for _ in calls]
    random = np.random.default_rng(0)
    for round_ in range(ROUNDS + 1):
        for place in random.permutation(len(calls)):
            start = time.perf_counter()
            calls[place]()
            if round_:
                times[place].append(1000 * (time.perf_counter() - start))
    return [float(np.median(seen)) for seen in times]


def recall(found: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """The share of (Q, k) true scores that (Q, k) found ones reach; equal scores count for one another."""
    return float(np.mean(found >= true[:, -1:] - 1e-6))


def bare_search(one: OpenSegment, *, is_mapped: bool) -> Callable[[Rows, int], object]:
    """The segment's FAISS index as it is searched, called by itself, in memory or mapped as ours is."""
    approximation = one.approximation
    flags = [faiss.IO_FLAG_MMAP_IFC] if is_mapped else []
    if approximation is None:
        exact = faiss.read_index(str(one.segment.path), *flags)
        return exact.search
    effort, pool = approximation.file.tuning
    first_stage = faiss.read_index(str(one.segment.path.with_name(str(one.approximation_file))), *flags)
    index = faiss.IndexRefine(first_stage, one.segment.index)
    inner: Any = faiss.SearchParametersIVF(nprobe=effort)
    if isinstance(faiss.downcast_index(first_stage), faiss.IndexPreTransform):
        inner = faiss.SearchParametersPreTransform(index_params=inner)
    parameters = faiss.IndexRefineSearchParameters(k_factor=pool, base_index_params=inner)
    return lambda queries, k: index.search(queries, k, params=parameters)


def searches(store: IndexStore, queries: Rows) -> dict[str, float]:
    """Milliseconds of single queries and of batches, ours, bare and exact, in turn."""
    (one,) = store.snapshot.segments
    bare, mapped = bare_search(one, is_mapped=False), bare_search(one, is_mapped=True)
    exact = OpenSegment(one.segment, one.removed)
    singles, batch = [queries[row : row + 1] for row in range(50)], queries[:BATCH]

    def each(search: Callable[[Rows, int], object]) -> Callable[[], object]:
        return lambda: [search(query, K) for query in singles]

    single, single_bare, single_exact = median_ms([each(store.search), each(bare), each(exact.search)])
    ours, batch_bare, batch_mapped, batch_exact = median_ms(
        [partial(search, batch, K) for search in (store.search, bare, mapped, exact.search)]
    )
    return {
        "single_ms": single / len(singles),
        "single_bare_ms": single_bare / len(singles),
        "single_exact_ms": single_exact / len(singles),
        "batch_ms": ours,
        "batch_bare_ms": batch_bare,
        "batch_ratio": ours / batch_bare,
        "batch_mapped_bare_ms": batch_mapped,
        "batch_mapped_ratio": ours / batch_mapped,
        "batch_exact_ratio": batch_exact / ours,
    }


def filtered(store: IndexStore, queries: Rows) -> dict[str, float]:
    """Milliseconds and recall under conditions, each asked for the first time and again."""
    (one,) = store.snapshot.segments
    exact = OpenSegment(one.segment, one.removed)
    store.search(queries[:1], K, where="lot < 0.5")  # reads the attributes
    values = {}
    for share in SELECTIVITIES:
        first = []
        for row, query in enumerate(queries[:30]):
            start = time.perf_counter()
            store.search(query[None], K, where=f"lot < {share * (1 + row / 1e6)}")
            first.append(1000 * (time.perf_counter() - start))
        again = []
        for query in queries[:30]:
            start = time.perf_counter()
            store.search(query[None], K, where=f"lot < {share}")
            again.append(1000 * (time.perf_counter() - start))
        allowed = store.meeting(store.snapshot, f"lot < {share}")
        found = store.snapshot.search(queries, K, allowed=allowed)
        true = exact.search(queries, K, Allowed(allowed))
        values |= {
            f"filtered_{share:g}_ms": float(np.median(first)),
            f"filtered_{share:g}_again_ms": float(np.median(again)),
            f"filtered_{share:g}_recall": recall(found.scores[:, : true.scores.shape[1]], true.scores),
        }
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--recipe", default="auto")
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--memory", type=int, help="Bytes, for the first stage.")
    parser.add_argument("--cache", type=Path, help="Where the real embeddings are kept for the next run.")
    asked = parser.parse_args()
    real = real_embeddings(asked.cache)
    drawn = np.random.default_rng(0).permutation(len(real))
    real_queries, origins = real[drawn[:QUERIES]], real[drawn[QUERIES:]]
    rows = more_like(origins, asked.count)
    queries = more_like(origins, QUERIES, seed=1)
    hard, hard_real = difficulty(rows, queries), difficulty(origins, real_queries)
    values: dict[str, Any] = {
        "local_intrinsic_dimension": hard.local_intrinsic_dimension,
        "real_local_intrinsic_dimension": hard_real.local_intrinsic_dimension,
        "relative_contrast": hard.relative_contrast,
        "real_relative_contrast": hard_real.relative_contrast,
    }
    faiss.omp_set_num_threads(usable_cores())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, values["commit_s"] = filled(folder / "index", rows)
        del rows  # ten gigabytes of ten million
        with store.job("compact"):
            done = store.compact(SearchSettings(asked.recipe, asked.recall, asked.memory))
        recipe, measured = store.recipe()
        values |= {
            "compact_s": done.seconds if done else 0.0,
            "measured_recall": measured,
            "memory_bytes": done.memory_bytes if done else 0,
            "disk_bytes": store.sizes()["total"],
            "segments_bytes": store.sizes()["segments"],
        }
        (one,) = store.snapshot.segments
        if one.approximation:
            values |= {"effort": one.approximation.file.tuning.effort, "pool": one.approximation.file.tuning.pool}
        exact = OpenSegment(one.segment, one.removed)
        for kind, asked_with in (("recall_at_10", queries), ("recall_at_10_real", real_queries)):
            values[kind] = recall(store.search(asked_with, K).scores, exact.search(asked_with, K).scores)
        values |= searches(store, queries)
        values |= filtered(store, queries)
        values |= opening(folder / "index", store, queries, folder)
        store.close()
    record(
        "scale",
        dataset=f"{asked.count} vectors of 256 values, made from Grocery and emoji",
        protocol=f"{asked.recipe}, recall {asked.recall:g}" + (f", memory {asked.memory}" if asked.memory else ""),
        model=recipe if recipe != EXACT else "exact",
        values=values,
        seed=0,
    )


def opening(index_dir: Path, store: IndexStore, queries: Rows, folder: Path) -> dict[str, float]:
    """Seconds to open the index and to read its FAISS files, and private bytes of a process that serves it."""
    (one,) = store.snapshot.segments
    names = [one.segment.path.name, one.approximation_file]
    files = [one.segment.path.with_name(name) for name in names if name]
    opened, read = [], []
    for _ in range(5):
        start = time.perf_counter()
        IndexStore(index_dir).close()
        opened.append(time.perf_counter() - start)
        start = time.perf_counter()
        for path in files:
            faiss.read_index(str(path))
        read.append(time.perf_counter() - start)
    np.save(folder / "queries.npy", queries)
    served = subprocess.run(
        [sys.executable, "-c", _SERVING, str(index_dir), str(folder / "queries.npy")],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    return {
        "open_s": float(np.median(opened)),
        "read_faiss_s": float(np.median(read)),
        "private_bytes": float(served.stdout),
    }


if __name__ == "__main__":
    sys.exit(main())
