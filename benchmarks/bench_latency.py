"""What does a query cost, cold and warm, against the bare work that nobody can avoid?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_latency.py [--rounds 15]

Cold: the whole process `retrieve query PICTURE` against 5,000 pictures, and beside it, in turn, a bare script that
imports numpy, faiss and openvino, loads the same compiled model from the cache and encodes the same picture.
Warm: `SearchEngine.search` of one picture in a process that has answered before, and beside it, in turn, the bare
decode + preprocess + encode of the same picture in the same process.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import bench_data, grocery_split, record, run_measured
from retrieval.encoder.backbones import user_cache
from retrieval.encoder.preprocess import decode_min_side, preprocess
from retrieval.encoder.runtime import open_encoder
from retrieval.engine import SearchEngine
from retrieval.images import decode

MODELS = ("efficientnet_lite2", "efficientnet_lite0")
PICTURES = 5000
BARE = Path(__file__).parent / "bare_query.py"


def cold(index: Path, picture: Path, model: str, rounds: int) -> dict[str, float]:
    """Seconds of whole processes, ours and the bare script, in turn."""
    ours = [str(Path(sys.executable).with_name("retrieve")), "query", str(picture), "--paths", "--index", str(index)]
    bare = [sys.executable, str(BARE), str(picture), *compiled_model(model, picture)]
    ratios, seconds, bare_seconds = [], [], []
    for round_ in range(rounds + 1):
        pair = [_quiet(command) for command in (ours, bare)]
        if round_:  # the first fills the file cache
            seconds.append(pair[0])
            bare_seconds.append(pair[1])
            ratios.append(pair[0] / pair[1])
    return {
        "cold_s": statistics.median(seconds),
        "cold_bare_s": statistics.median(bare_seconds),
        "cold_ratio": statistics.median(ratios),
    }


def warm(index: Path, picture: Path, model: str, rounds: int) -> dict[str, float]:
    """Milliseconds of a search and of its bare decode + encode, in turn, in one process."""
    with SearchEngine.open(index) as engine:
        encoder = open_encoder(model)
        how = encoder.preprocessing

        def bare() -> object:
            pixels = preprocess(decode(picture, min_side_px=decode_min_side(how)), how)
            return encoder.encode(pixels[None])

        def ours() -> object:
            return engine.search(picture, k=10)

        for step in (bare, ours) * 5:
            step()
        times = [(_milliseconds(ours), _milliseconds(bare)) for _ in range(rounds * 20)]
        encoder.close()
    return {
        "warm_ms": statistics.median(ours_ms for ours_ms, _ in times),
        "warm_bare_ms": statistics.median(bare_ms for _, bare_ms in times),
        "warm_ratio": statistics.median(ours_ms / bare_ms for ours_ms, bare_ms in times),
    }


def compiled_model(model: str, picture: Path) -> list[str]:
    """What the bare script needs to know: the file that a query loads, and the sizes of the picture it takes."""
    encoder = open_encoder(model)
    how = encoder.preprocessing
    encoder.encode(preprocess(decode(picture), how)[None])
    encoder.close()
    files = (user_cache() / "compiled").glob(f"{encoder.fingerprint[:16]}-1-*.blob")
    newest = max(files, key=lambda path: path.stat().st_mtime)
    return [str(newest), str(how.input_px), str(how.resize_px)]


def fill(folder: Path, model: str) -> Path:
    """An index of 5,000 Grocery pictures."""
    gallery = folder / "gallery"
    gallery.mkdir()
    pictures = [picture.path for name in ("train", "val", "test") for picture in grocery_split(name)][:PICTURES]
    for number, path in enumerate(pictures):
        shutil.copyfile(path, gallery / f"{number:05}.jpg")
    with SearchEngine.create(folder / "index", model=model) as engine:
        report = engine.sync(gallery)
        assert report.added == PICTURES, report.skipped
    return folder / "index"


def _quiet(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _milliseconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return (time.perf_counter() - started) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    bench_data()
    picture = grocery_split("test")[-1].path
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            index = fill(Path(folder), model)
            values = cold(index, picture, model, rounds) | warm(index, picture, model, rounds)
            query = [sys.executable, "-m", "retrieval.cli", "query", str(picture), "--index", str(index), "--paths"]
            peak = run_measured(["sh", "-c", 'exec "$@" >/dev/null', "sh", *query])
        record(
            "latency",
            dataset=f"Grocery, {PICTURES} pictures, one query",
            protocol="cold and warm",
            model=model,
            values=values | {"cold_peak_bytes": peak.peak_bytes},
        )


if __name__ == "__main__":
    sys.exit(main())
