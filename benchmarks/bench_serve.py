"""What does a search over HTTP cost, for one caller, for sixteen, and for four times as many as can be answered?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_serve.py [--seconds 60]

5,000 Grocery photos, EfficientNet-Lite0, photos of test.txt as queries, sent by wrk, which has to be installed. Bare is
the processor time of decoding and embedding the same photos in this process, in batches, as an indexing run does it.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from common import grocery_split, record
from retrieval.encoder.runtime import open_encoder
from retrieval.engine import SearchEngine
from retrieval.pipeline import embed
from training_sets import write_manifest

MODEL = "efficientnet_lite0"
PICTURES = 5000
CALLERS = 16
CALLERS_TOO_MANY = 256
ROUNDS = 7
LUA = Path(__file__).parent / "photos.lua"
_TICKS = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Of a process: seconds of processor time, and bytes of memory that are its own."""

    cpu_s: float
    private_bytes: int


def usage_of(pid: int) -> Usage:
    """From /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    private = next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, private)


@contextmanager
def server(index: Path, port: int, *options: str) -> Iterator[tuple[int, httpx2.Client]]:
    """`retrieve serve`, once it is ready: its process and a client."""
    command = [sys.executable, "-m", "retrieval.cli", "serve", "--index", str(index), "--port", str(port), *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            while True:
                with suppress(httpx2.TransportError):
                    if client.get("/readyz").is_success:
                        break
                time.sleep(0.1)
            yield process.pid, client
        process.send_signal(signal.SIGTERM)


def wrk(port: int, callers: int, seconds: float, photos: Path) -> dict[str, Any]:
    """What so many callers without pause come to."""
    url = f"http://127.0.0.1:{port}"
    command = ["wrk", "-t", "1", "-c", str(callers), "-d", f"{seconds:.0f}s", "--timeout", "30s", "-s", str(LUA), url]
    done = subprocess.run([*command, "--", str(photos)], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def bare_cpu_s(paths: list[Path], folder: Path) -> float:
    """Processor seconds a photo of decoding and embedding, as an indexing run does it."""
    from retrieval.gallery import read_gallery

    records = read_gallery(write_manifest(folder / "bare.csv", grocery_split("test"))).records[: len(paths)]
    encoder = open_encoder(MODEL)
    list(embed(records[:64], encoder))
    before = time.process_time()
    count = sum(1 for _ in embed(records, encoder))
    seconds = time.process_time() - before
    encoder.close()
    return seconds / count


def single(port: int, client: httpx2.Client, index: Path, photos: Path) -> dict[str, float]:
    """Milliseconds of one caller's search: by wrk, in this process and by a client in Python, in turn."""
    contents = [Path(name).read_bytes() for name in photos.read_text("utf-8").splitlines()]
    by_wrk, here, by_python, ratios = [], [], [], []
    headers = {"content-type": "image/jpeg"}
    with SearchEngine.open(index) as engine:
        median_ms(lambda content: engine.search(content, k=10), contents[:50])
        wrk(port, 1, 1, photos)
        for _ in range(ROUNDS):
            here.append(median_ms(lambda content: engine.search(content, k=10), contents))
            by_wrk.append(wrk(port, 1, 3, photos)["p50_ms"])
            again = median_ms(lambda content: engine.search(content, k=10), contents)
            ratios.append(by_wrk[-1] / statistics.mean([here[-1], again]))
            by_python.append(
                median_ms(lambda sent: client.post("/v1/search?k=10", content=sent, headers=headers).json(), contents)
            )
    return {
        "single_ms": statistics.median(by_wrk),
        "single_python_ms": statistics.median(by_python),
        "in_process_ms": statistics.median(here),
        "single_ratio": statistics.median(ratios),
    }


def median_ms(call: Callable[[bytes], object], contents: list[bytes]) -> float:
    """Of a call for each."""
    times = []
    for content in contents:
        start = time.perf_counter()
        call(content)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def recovery_s(client: httpx2.Client, path: Path, normal_ms: float) -> float:
    """Seconds until a single search takes no longer than before, within a half."""
    start = time.perf_counter()
    while True:
        asked = time.perf_counter()
        answer = client.post("/v1/search?k=10", content=path.read_bytes(), headers={"content-type": "image/jpeg"})
        took_ms = 1000 * (time.perf_counter() - asked)
        if answer.is_success and took_ms < 1.5 * normal_ms:
            return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--port", type=int, default=8765)
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    gallery = [picture for name in ("train", "val", "test") for picture in grocery_split(name)][:PICTURES]
    paths = [picture.path for picture in grocery_split("test")][:1000]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").write_text("\n".join(map(str, paths[:400])) + "\n", "utf-8")
        with SearchEngine.create(folder / "index", model=MODEL) as engine:
            engine.sync(write_manifest(folder / "gallery.csv", gallery))
        bare_before = bare_cpu_s(paths, folder)
        values: dict[str, Any] = {}
        with server(folder / "index", asked.port, "--read-only") as (pid, client):
            values |= single(asked.port, client, folder / "index", folder / "photos")
            wrk(asked.port, CALLERS, 5, folder / "photos")
            before = usage_of(pid)
            load = wrk(asked.port, CALLERS, asked.seconds, folder / "photos")
            after = usage_of(pid)
            values |= {f"load_{key}": value for key, value in load.items()}
            values["load_searches_per_s"] = load["ok"] / load["seconds"]
            values["cpu_ms"] = 1000 * (after.cpu_s - before.cpu_s) / load["ok"]
            values["bare_cpu_ms"] = 1000 * statistics.mean([bare_before, bare_cpu_s(paths, folder)])
            values["cpu_ratio"] = values["cpu_ms"] / values["bare_cpu_ms"]
            values["p99_over_p50"] = load["p99_ms"] / load["p50_ms"]
            flood = wrk(asked.port, CALLERS_TOO_MANY, asked.seconds, folder / "photos")
            flooded = usage_of(pid)
            values |= {f"flood_{key}": value for key, value in flood.items()}
            values["flood_searches_per_s"] = flood["ok"] / flood["seconds"]
            values["flood_private_over_loaded"] = flooded.private_bytes / after.private_bytes
            values["flood_recovery_s"] = recovery_s(client, paths[0], values["single_ms"])
    record(
        "serve",
        dataset=f"Grocery, {PICTURES} photos",
        protocol=f"{CALLERS} callers for {asked.seconds:.0f} s, then {CALLERS_TOO_MANY}; one caller before",
        model=MODEL,
        values=values,
    )


if __name__ == "__main__":
    sys.exit(main())
