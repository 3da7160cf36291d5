"""How much faster than DeepImageSearch is `retrieve index`, on the same files with the same network?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_peers.py [--rounds 3]

Both take turns. The peer runs in its own environment (peers/deepimagesearch/setup.sh), with its default batch of 64
and with 16; its clock leaves out imports, building the network and listing the folder. Ours is the whole process less
its start-up, the time of indexing 8 pictures.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench_indexing import MODEL, copy_grocery, index_without_start_up, link_files
from common import bench_data, record, render_photos

PEER = Path(__file__).parent / "peers" / "deepimagesearch"
BATCHES = (64, 16)


def peer(gallery: Path, batch_size: int) -> dict[str, Any]:
    """What the peer prints of itself."""
    python = PEER / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit(f"the peer has no environment yet: run {PEER.relative_to(Path.cwd())}/setup.sh")
    command = [str(python), str(PEER / "index_images.py"), str(gallery), "--batch-size", str(batch_size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(gallery: Path, rounds: int) -> dict[str, Any]:
    """Speeds in turn, and their ratios pair by pair."""
    pictures = sum(1 for _ in gallery.iterdir())
    index_without_start_up(gallery)  # fills the file cache
    ours, ours_peaks = [], []
    theirs: dict[int, list[dict[str, Any]]] = {size: [] for size in BATCHES}
    for _ in range(rounds):
        seconds, peak = index_without_start_up(gallery)
        ours.append(pictures / seconds)
        ours_peaks.append(peak)
        for size in BATCHES:
            theirs[size].append(peer(gallery, size))
    values = {"retrieve_per_s": statistics.median(ours), "retrieve_peak_mb": max(ours_peaks) / 1e6}
    for size in BATCHES:
        speeds = [one["images_per_second"] for one in theirs[size]]
        values |= {
            f"peer_batch_{size}_per_s": statistics.median(speeds),
            f"peer_batch_{size}_peak_mb": max(one["peak_memory_bytes"] for one in theirs[size]) / 1e6,
            f"ratio_batch_{size}": statistics.median(our / their for our, their in zip(ours, speeds, strict=True)),
        }
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    bench_data()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grocery = link_files(copy_grocery(folder / "grocery")[::8], folder / "350 px", 600)
        large = link_files(render_photos(folder / "rendered", 40, 2, seed=1), folder / "2 MP", 240)
        for dataset, gallery in (("Grocery, 350 px, 600 files", grocery), ("rendered, 2 megapixels, 240 files", large)):
            record(
                "peers",
                dataset=dataset,
                protocol="retrieve index against DeepImageSearch 3.0.3, random weights there",
                model=MODEL,
                values=compare(gallery, rounds),
                seed=1,
            )


if __name__ == "__main__":
    sys.exit(main())
