"""How close does `retrieve index` come to the speed that decoding and encoding leave possible?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_indexing.py [--rounds 5] [--skip-growth]

The limit is 1 / (1 / decode-only + 1 / encode-only): both parts use every core, and a picture needs both. Encode-only
is OpenVINO alone, in the precision and batch that the product uses, on batches that are in memory already. In each
round the two parts and the product are measured in turn on the same files; the product is the whole process
`retrieve index`, from which the time of indexing 8 pictures, its start-up, is subtracted. The share is the median
over the rounds. Growth compares the product's own speed at 2,500 and at 20,000 pictures.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from common import Measured, bench_data, grocery_split, record, render_photos, run_measured
from retrieval.encoder.artifact import prepare_model
from retrieval.encoder.compiled import cpu_precision
from retrieval.encoder.openvino_import import import_openvino
from retrieval.encoder.preprocess import decode_min_side, preprocess
from retrieval.encoder.runtime import Encoder, open_encoder
from retrieval.images import decode, read_bytes
from retrieval.threads import usable_cores

MODEL = "efficientnet_lite0"
START_UP_PICTURES = 8
RENDERED = ((2, 60, 600), (12, 40, 240))  # megapixels, different pictures, files
GROWTH = (2_500, 20_000)
SEED = 1


def measure(gallery: Path, encoder: Encoder, rounds: int) -> dict[str, Any]:
    """Measure decoding alone, encoding alone and the product in turn, from a warm file cache."""
    files = sorted(gallery.iterdir())
    pixels = decode_all(files[: 8 * encoder.batch_size], encoder)
    queue = bare_queue(encoder)
    steps: list[Callable[[], float]] = [
        lambda: seconds(lambda: decode_all(files, encoder, keep=False)),
        lambda: seconds(lambda: encode_all(pixels, len(files), queue, encoder.batch_size)),
    ]
    for step in steps:
        step()  # compiles, and fills the file cache
    rates, peaks = [], []
    for _ in range(rounds):
        decode_s, encode_s = (step() for step in steps)
        product_s, peak = index_without_start_up(gallery)
        rates.append([len(files) / each for each in (decode_s, encode_s, decode_s + encode_s, product_s)])
        peaks.append(peak)
    decode_per_s, encode_per_s, limit_per_s, product_per_s = np.median(np.array(rates), axis=0).tolist()
    return {
        "decode_only_per_s": decode_per_s,
        "encode_only_per_s": encode_per_s,
        "limit_per_s": limit_per_s,
        "retrieve_index_per_s": product_per_s,
        "share_of_limit": statistics.median(product / limit for _, _, limit, product in rates),
        "share_of_limit_each_round": [round(product / limit, 3) for _, _, limit, product in rates],
        "peak_memory_mb": max(peaks) / 1e6,
    }


def decode_all(files: Sequence[Path], encoder: Encoder, *, keep: bool = True) -> np.ndarray:
    """Read, decode and resize on every core; (N, 3, P, P), or nothing if they are not to be kept."""
    how = encoder.preprocessing

    def load(path: Path) -> np.ndarray:
        return preprocess(decode(read_bytes(path), min_side_px=decode_min_side(how)), how)

    with ThreadPoolExecutor(usable_cores()) as pool:
        kept = [pixels for pixels in pool.map(load, files) if keep]
    return np.stack(kept) if keep else np.empty(0)


def bare_queue(encoder: Encoder) -> Any:
    """OpenVINO's own queue of requests over the model as the product compiles it."""
    openvino = import_openvino()
    core = openvino.Core()
    model = core.read_model(prepare_model(MODEL).verified_ir())
    side = encoder.preprocessing.input_px
    model.reshape([encoder.batch_size, 3, side, side])
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": cpu_precision("auto")}
    compiled = core.compile_model(model, "CPU", hints)
    return openvino.AsyncInferQueue(compiled, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1)


def encode_all(pixels: np.ndarray, count: int, queue: Any, size: int) -> None:
    """Encode `count` pictures in full batches, from memory; nobody looks at the embeddings."""
    for start in range(0, count, size):
        first = start % (len(pixels) - size + 1)
        queue.start_async({0: pixels[first : first + size]})
    queue.wait_all()


def index_without_start_up(gallery: Path) -> tuple[float, int]:
    """Seconds for the pictures of a gallery, without what 8 of them take; peak memory of the whole in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        few = link_files(sorted(gallery.iterdir())[:START_UP_PICTURES], Path(folder) / "few", START_UP_PICTURES)
        whole, start_up = (index(one, Path(folder)) for one in (gallery, few))
    pictures = sum(1 for _ in gallery.iterdir())
    return (whole.seconds - start_up.seconds) * pictures / (pictures - START_UP_PICTURES), whole.peak_bytes


def index(gallery: Path, folder: Path) -> Measured:
    """Run `retrieve index` on a new index."""
    retrieve = str(Path(sys.executable).with_name("retrieve"))
    destination = folder / f"index of {gallery.name}"
    command = [retrieve, "index", str(gallery), "--index", str(destination), "--model", MODEL]
    return run_measured(["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh", *command])


def link_files(files: Sequence[Path], folder: Path, count: int) -> Path:
    """A gallery of `count` files: the given ones again and again, under names of their own, without copies."""
    folder.mkdir()
    for number in range(count):
        os.link(files[number % len(files)], folder / f"{number:06}.jpg")
    return folder


def seconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def copy_grocery(folder: Path) -> list[Path]:
    """All 5,421 photos, copied to where they can be linked to."""
    folder.mkdir()
    photos = [picture.path for name in ("train", "val", "test") for picture in grocery_split(name)]
    for number, path in enumerate(photos):
        (folder / f"{number:05}.jpg").write_bytes(path.read_bytes())
    return sorted(folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-growth", action="store_true")
    arguments = parser.parse_args()
    bench_data()
    encoder = open_encoder(MODEL, device="cpu")
    encoder.encode(np.zeros((1, 3, encoder.preprocessing.input_px, encoder.preprocessing.input_px), np.uint8))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = copy_grocery(folder / "grocery")
        galleries = {"Grocery, 350 px": link_files(photos[::2], folder / "350 px", 2_500)}
        for megapixels, different, files in RENDERED:
            rendered = render_photos(folder / f"rendered {megapixels}", different, megapixels, seed=SEED)
            galleries[f"rendered, {megapixels} megapixels"] = link_files(rendered, folder / f"{megapixels} MP", files)
        subprocess.run(["sync"], check=True)
        for dataset, gallery in galleries.items():
            record(
                "indexing",
                dataset=f"{dataset}, {sum(1 for _ in gallery.iterdir())} files",
                protocol="retrieve index against decode-only and encode-only",
                model=MODEL,
                values=measure(gallery, encoder, arguments.rounds),
                seed=SEED,
            )
        encoder.close()
        if not arguments.skip_growth:
            sizes = [link_files(photos, folder / f"{size} pictures", size) for size in GROWTH]
            pairs = [[index_without_start_up(gallery) for gallery in sizes] for _ in range(3)]
            rates = [[size / took for size, (took, _) in zip(GROWTH, pair, strict=True)] for pair in pairs]
            record(
                "indexing",
                dataset=f"Grocery, 350 px, {GROWTH[0]} and {GROWTH[1]} files",
                protocol="speed of retrieve index as the gallery grows",
                model=MODEL,
                values={
                    "small_per_s": statistics.median(small for small, _ in rates),
                    "large_per_s": statistics.median(large for _, large in rates),
                    "large_against_small": statistics.median(large / small for small, large in rates),
                    "peak_memory_mb": max(peak for pair in pairs for _, peak in pair) / 1e6,
                },
            )


if __name__ == "__main__":
    sys.exit(main())
