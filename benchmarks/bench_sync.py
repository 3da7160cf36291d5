"""What does syncing an unchanged gallery cost, against walking the same tree and asking for each file's state?

    python benchmarks/bench_sync.py [--rounds 7]

Tiny real pictures (drawings of the demo gallery, one in each file); 5,000 and 100,000 of them, 100 to a folder.
Start-up is left out on both sides: both run in a process that has everything imported.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from common import record
from indexer.changes import Changes, Put
from indexer.store import IndexStore
from retrieval.encoder.runtime import describe_model
from retrieval.engine import SearchEngine
from retrieval.gallery import read_gallery

MODEL = "efficientnet_lite0"
SIZES = (5_000, 100_000)
DRAWINGS = Path(__file__).parent.parent / "data" / "gallery"
YEAR_S = 365 * 24 * 3600.0


def make_gallery(folder: Path, count: int) -> Path:
    """`count` small files in folders of 100, last changed a year ago."""
    drawings = sorted(DRAWINGS.glob("*/noto.png"), key=lambda path: path.stat().st_size)[:10]
    then = time.time() - YEAR_S
    for number in range(count):
        path = folder / f"{number // 100:04}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(drawings[number % len(drawings)], path)
        os.utime(path, (then, then))
    return folder


def fill(index_dir: Path, gallery: Path) -> SearchEngine:
    """An engine over an index that holds the gallery. Vectors are random: no sync of unchanged files looks at them."""
    described = describe_model(MODEL)
    store = IndexStore.create(index_dir, model_name=MODEL, model_fingerprint=described.fingerprint, dim=described.dim)
    listing = read_gallery(gallery)
    source = store.source(listing.source, listing.kind, "")
    numbers = np.random.default_rng(0)
    for start in range(0, len(listing.records), 2048):
        records = listing.records[start : start + 2048]
        vectors = numbers.standard_normal((len(records), described.dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        store.commit(
            Changes(
                puts=[
                    Put(r.key, v, "0" * 32, r.size_bytes, r.mtime_ns, listing.scanned_ns, source.id)
                    for r, v in zip(records, vectors, strict=True)
                ]
            )
        )
    store.close()
    return SearchEngine.open(index_dir)


def walk(folder: str) -> int:
    """The bare walk: every entry's kind, size and time."""
    seen = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                seen += walk(entry.path)
            else:
                state = entry.stat()
                seen += bool(state.st_size + state.st_mtime_ns)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    seconds_each = {}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            gallery = make_gallery(Path(folder) / "gallery", size)
            with fill(Path(folder) / "index", gallery) as engine:
                times = []
                for round_ in range(rounds + 1):
                    started = time.perf_counter()
                    report = engine.sync(gallery)
                    between = time.perf_counter()
                    assert walk(str(gallery)) == size
                    ended = time.perf_counter()
                    assert (report.unchanged, report.added, report.updated) == (size, 0, 0)
                    if round_:  # the first fills the caches
                        times.append((between - started, ended - between))
        seconds_each[size] = statistics.median(ours for ours, _ in times) / size
        record(
            "sync_unchanged",
            dataset=f"{size} small files, 100 to a folder",
            protocol="sync of an unchanged gallery against scandir + stat",
            model=MODEL,
            values={
                "sync_s": statistics.median(ours for ours, _ in times),
                "walk_s": statistics.median(bare for _, bare in times),
                "ratio": statistics.median(ours / bare for ours, bare in times),
                "microseconds_a_file": seconds_each[size] * 1e6,
                "cost_a_file_against_the_smaller_gallery": seconds_each[size] / seconds_each[SIZES[0]],
            },
            seed=0,
        )


if __name__ == "__main__":
    sys.exit(main())
