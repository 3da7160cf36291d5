"""Durable single upserts at a steady rate: are they sustained, what grows on disk, what do searches feel?"""

import multiprocessing
import statistics
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from indexer.integrity import verify
from retrieval.engine import SearchEngine


@dataclass
class Load:
    """What a stretch of steady upserts has shown.

    Attributes:
        upserts, seconds: committed, each durable before the next was due, and in what time.
        late: upserts that started more than one interval after they were due.
        upsert_ms: the median of an upsert.
        files_before, files_after: in the index.
        search_before_ms, search_during_ms: medians in another process, refreshing before each search.
        bad_backups: copies that `verify` refused or that did not answer.
    """

    upserts: int = 0
    seconds: float = 0.0
    late: int = 0
    upsert_ms: float = 0.0
    files_before: int = 0
    files_after: int = 0
    search_before_ms: float = 0.0
    search_during_ms: float = 0.0
    backups: int = 0
    bad_backups: list[str] = field(default_factory=list)


def upsert_steadily(index: Path, pictures: list[Path], folder: Path, rate: float, seconds: float, backups: int) -> Load:
    """Upsert `rate` pictures a second for `seconds`, with a searching process and `backups` backups beside it.

    Args:
        index: an index with pictures in it.
        pictures: upserted in turn, under new keys; the first is also the query.
        folder: for the backups.
    """
    load = Load(files_before=_files(index))
    context = multiprocessing.get_context("spawn")
    begun, done, latencies = context.Event(), context.Event(), context.SimpleQueue()
    reader = context.Process(target=_search_on, args=(index, pictures[0], begun, done, latencies))
    reader.start()
    load.search_before_ms = latencies.get()
    copying = threading.Thread(target=_backup_on, args=(index, pictures[0], folder, backups, seconds, load))
    begun.set()
    copying.start()
    _upsert_on(index, pictures, rate, seconds, load)
    done.set()
    load.search_during_ms = latencies.get()
    reader.join()
    copying.join()
    load.files_after = _files(index)
    return load


def _upsert_on(index: Path, pictures: list[Path], rate: float, seconds: float, load: Load) -> None:
    took_ms = []
    with SearchEngine.open(index) as engine:
        engine.embed(pictures[:1])  # opens the encoder
        begun_s = time.monotonic()
        while load.upserts < rate * seconds:
            due_s = begun_s + load.upserts / rate
            time.sleep(max(0.0, due_s - time.monotonic()))
            started_s = time.monotonic()
            load.late += started_s - due_s > 1 / rate
            engine.upsert(
                f"upsert {load.upserts}", pictures[load.upserts % len(pictures)], metadata={"n": load.upserts}
            )
            took_ms.append((time.monotonic() - started_s) * 1e3)
            load.upserts += 1
        load.seconds = time.monotonic() - begun_s
    load.upsert_ms = statistics.median(took_ms)


def _search_on(index: Path, query: Path, begun: Event, done: Event, latencies: Any) -> None:
    with SearchEngine.open(index) as engine:
        for _ in range(20):
            engine.search(query)
        latencies.put(_median_ms(engine, query, lambda times: len(times) >= 100))
        begun.wait()
        latencies.put(_median_ms(engine, query, lambda times: done.is_set()))


def _median_ms(engine: SearchEngine, query: Path, is_enough: Any) -> float:
    times: list[float] = []
    while not is_enough(times):
        started_s = time.perf_counter()
        engine.refresh()
        engine.search(query)
        times.append((time.perf_counter() - started_s) * 1e3)
        time.sleep(0.1)
    return statistics.median(times)


def _backup_on(index: Path, query: Path, folder: Path, backups: int, seconds: float, load: Load) -> None:
    for number in range(backups):
        time.sleep(seconds / (backups + 1))
        with SearchEngine.open(index) as engine:
            copy = engine.backup(folder / f"backup-{number}")
        load.backups += 1
        problems = verify(copy.path).problems
        with SearchEngine.open(copy.path) as engine:
            hits = engine.search(query, k=1).hits
            if engine.generation != copy.generation or not hits or hits[0].score < 0.999:
                problems.append(f"generation {engine.generation} of {copy.generation} answered {hits}")
        load.bad_backups += problems


def _files(index: Path) -> int:
    return sum(path.is_file() for path in index.rglob("*"))
