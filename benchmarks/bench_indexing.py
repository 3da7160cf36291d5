"""How close does the streaming pipeline come to what decoding and encoding leave possible?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_indexing.py [--rounds 5]

The limit is 1 / (1 / decode-only + 1 / encode-only): both parts use every core, and a picture needs both. The three
are measured in turn, round by round, on the same files in the same process; the share is the median over the rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from common import grocery_split, record, render_photos
from retrieval.encoder.preprocess import decode_min_side, preprocess
from retrieval.encoder.runtime import Encoder, open_encoder
from retrieval.images import decode, read_bytes
from retrieval.pipeline import Embedded, embed
from retrieval.records import ImageRecord
from retrieval.threads import usable_cores

MODEL = "efficientnet_lite0"


@dataclass(frozen=True)
class Limit:
    """Rates in images a second, medians over the rounds; `share` is the median of the rounds' shares."""

    decode_per_s: float
    encode_per_s: float
    limit_per_s: float
    pipeline_per_s: float
    share: float


def measure_limit(files: Sequence[Path], encoder: Encoder, rounds: int) -> Limit:
    """Measure decoding alone, encoding alone and the pipeline in turn.

    Args:
        files: pictures; each is read, decoded and resized in every round, from a warm file cache.
        encoder: on the CPU, with every core.
        rounds: of all three.
    """
    pixels = decode_all(files[: 8 * encoder.batch_size], encoder)
    steps: list[Callable[[], object]] = [
        lambda: decode_all(files, encoder, keep=False),
        lambda: encode_all(pixels, len(files), encoder),
        lambda: index_all(files, encoder),
    ]
    for step in steps:
        step()  # compiles, and fills the file cache
    rates = np.array([[len(files) / _seconds(step) for step in steps] for _ in range(rounds)])  # (rounds, 3)
    limits = 1 / (1 / rates[:, 0] + 1 / rates[:, 1])
    decode_per_s, encode_per_s, pipeline_per_s = (float(rate) for rate in np.median(rates, axis=0))
    share = statistics.median((rates[:, 2] / limits).tolist())
    return Limit(decode_per_s, encode_per_s, float(np.median(limits)), pipeline_per_s, share)


def decode_all(files: Sequence[Path], encoder: Encoder, *, keep: bool = True) -> np.ndarray:
    """Read, decode and resize on every core; (N, 3, P, P), or nothing if the pixels are not to be kept."""
    how = encoder.preprocessing

    def load(path: Path) -> np.ndarray:
        return preprocess(decode(read_bytes(path), min_side_px=decode_min_side(how)), how)

    with ThreadPoolExecutor(usable_cores()) as pool:
        kept = [pixels for pixels in pool.map(load, files) if keep]
    return np.stack(kept) if keep else np.empty(0)


def encode_all(pixels: np.ndarray, count: int, encoder: Encoder) -> None:
    """Encode `count` pictures in full batches, from memory."""
    size = encoder.batch_size
    starts = (start % (len(pixels) - size + 1) for start in range(0, count, size))
    for _ in encoder.encode_stream((None, pixels[start : start + size]) for start in starts):
        pass


def index_all(files: Sequence[Path], encoder: Encoder) -> None:
    """Run the pipeline and check that it embedded every file."""
    records = (ImageRecord(path.name, str(path), 0, 0) for path in files)
    embedded = sum(isinstance(result, Embedded) for result in embed(records, encoder))
    assert embedded == len(files), f"{len(files) - embedded} pictures were set aside"


def _seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    encoder = open_encoder(MODEL, device="cpu")
    grocery = [picture.path for picture in grocery_split("test")]
    datasets = {"Grocery test, 350 px": grocery[:400]}
    with tempfile.TemporaryDirectory() as folder:
        for megapixels, count in ((2, 120), (12, 60)):
            files = render_photos(Path(folder) / f"{megapixels}", count, megapixels, seed=1)
            datasets[f"rendered, {megapixels} megapixels"] = files
        for dataset, files in datasets.items():
            values = asdict(measure_limit(files, encoder, arguments.rounds))
            record(
                "indexing_limit",
                dataset=f"{dataset}, {len(files)} pictures",
                protocol="pipeline against decode-only and encode-only",
                model=MODEL,
                values=values,
                seed=1,
            )


if __name__ == "__main__":
    main()
