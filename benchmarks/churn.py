"""An index whose rows come and go by the thousand, while others search it: is each answer of one generation, and whole?

Generation g of the index holds, by construction, exactly the rows that `Churn.rows` says, so that every answer can be
checked against the generation that it says it is of.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.changes import Changes, Put
from indexer.settings import SearchSettings
from indexer.store import IndexStore
from retrieval.threads import usable_cores

DIM = 256
ROWS = "rows.npy"  # beside the index
_K = 10
_QUERIES = 200  # of each reader
_REFRESH_EVERY_S = 0.1
_NICENESS = 5  # of the writer, who has to keep up
_NICENESS_OF_JOBS = 10

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Churn:
    """How rows come and go.

    Attributes:
        base: rows at the start, in generation 1.
        adds, removes: rows of each later generation, the removed ones from the oldest on.
        commits_per_s: generations a second.
    """

    base: int
    adds: int = 100
    removes: int = 10
    commits_per_s: int = 10

    def rows(self, generation: int) -> tuple[int, int]:
        """The first row that generation holds, and the first beyond its last."""
        return self.removes * (generation - 1), self.base + self.adds * (generation - 1)


@dataclass
class Seen:
    """What readers saw.

    Attributes:
        answers: searches beside the writer and the compaction.
        before, after: searches in half as many seconds without them; the index grows meanwhile.
        generations: that the writer made.
        wrong: answers that are not of their generation, half of one, or of one that was old at a refresh.
        errors: of readers and the writer.
    """

    answers: int = 0
    before: int = 0
    after: int = 0
    generations: int = 0
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def throughput(self) -> float:
        """Of the undisturbed, the share that is left beside the writer."""
        return self.answers / max(self.before + self.after, 1)


def made_up(count: int) -> Rows:
    """(count, 256) unit rows, each near some others."""
    random = np.random.default_rng(0)
    places = random.standard_normal((2000, DIM), dtype=np.float32)
    rows = places[np.arange(count) % 2000] + 0.7 * random.standard_normal((count, DIM), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def run(
    folder: Path,
    churn: Churn,
    seconds: float,
    readers: int = 4,
    recipe: str = "auto",
    make: Callable[[int], Rows] = made_up,
) -> Seen:
    """Let readers search beside a writer and, half-way, a compaction, both niced; as long without, before and after.

    Args:
        make: so many rows: the first are those of the index, the last the queries.
    """
    index_dir = folder / "index"
    most = churn.rows(1 + round(seconds * churn.commits_per_s))[1]
    np.save(folder / ROWS, make(most + readers * _QUERIES))
    with closing(IndexStore.create(index_dir, model_name="made up", model_fingerprint="0", dim=DIM)) as store:
        store.commit(Changes(puts=_puts(index_dir, range(churn.base))))
        with store.job("compact"):
            store.compact(SearchSettings(recipe, 0.9))
    context = multiprocessing.get_context("spawn")
    done, ready = context.Event(), context.Barrier(readers + 1)
    newest = context.Value("q", 1)
    reports = context.Queue()
    children = [
        context.Process(target=_read, args=(index_dir, churn, turn, newest, ready, done, reports))
        for turn in range(readers)
    ]
    for child in children:
        child.start()
    ready.wait()
    began = time.monotonic()
    time.sleep(seconds / 2)
    writer = context.Process(target=_write, args=(index_dir, churn, seconds, newest, reports))
    disturbed = time.monotonic()
    writer.start()
    time.sleep(seconds / 2)
    compaction = context.Process(target=_compact, args=(index_dir, reports))
    compaction.start()
    writer.join()
    compaction.join()
    still = time.monotonic()
    time.sleep(seconds / 2)
    ended = time.monotonic()
    done.set()
    seen = Seen()
    for _ in range(readers + 2):
        kind, *report, errors = reports.get()
        seen.errors += errors
        if kind == "writer":
            (seen.generations,) = report
        elif kind == "reader":
            times, wrong = report
            seen.wrong += wrong
            seen.before += round(seconds / 2 * _rate(times, began, disturbed))
            seen.after += round(seconds / 2 * _rate(times, still, ended))
            seen.answers += round(seconds * _rate(times, disturbed, still))
    for child in children:
        child.join()
    return seen


def _rate(times: list[float], start: float, stop: float) -> float:
    answered = np.array(times)
    return float(np.count_nonzero((answered >= start) & (answered < stop)) / (stop - start))


def _compact(index_dir: Path, reports: Any) -> None:
    os.nice(_NICENESS_OF_JOBS)
    errors = []
    try:
        with closing(IndexStore(index_dir)) as store, store.job("compact"):
            store.compact()
    except Exception as error:  # an edge: whatever it is, it is reported
        errors.append(f"compaction: {type(error).__name__}: {error}")
    reports.put(("compaction", errors))


def _puts(index_dir: Path, rows: range) -> list[Put]:
    vectors = np.load(index_dir.parent / ROWS, mmap_mode="r")
    return [
        Put(f"{row}", np.array(vectors[row]), content_hash="", size_bytes=0, mtime_ns=0, scanned_ns=0, path="")
        for row in rows
    ]


def _write(index_dir: Path, churn: Churn, seconds: float, newest: "Synchronized[int]", reports: Any) -> None:
    os.nice(_NICENESS)
    errors = []
    generation = 1
    try:
        with closing(IndexStore(index_dir)) as store:
            start = time.monotonic()
            while generation < 1 + round(seconds * churn.commits_per_s) and time.monotonic() - start < seconds:
                before, after = churn.rows(generation), churn.rows(generation + 1)
                puts = _puts(index_dir, range(before[1], after[1]))
                removes = {f"{row}": -1 for row in range(before[0], after[0])}
                generation = store.commit(Changes(puts=puts, removes=removes)).generation
                newest.value = generation
                time.sleep(max(0.0, start + (generation - 1) / churn.commits_per_s - time.monotonic()))
    except Exception as error:  # an edge: whatever it is, it is reported
        errors.append(f"writer: {type(error).__name__}: {error}")
    reports.put(("writer", generation - 1, errors))


def _read(
    index_dir: Path, churn: Churn, turn: int, newest: "Synchronized[int]", ready: Any, done: Event, reports: Any
) -> None:
    times: list[float] = []
    wrong: list[str] = []
    errors: list[str] = []
    random = np.random.default_rng(turn)
    vectors = np.load(index_dir.parent / ROWS, mmap_mode="r")
    queries = np.array(vectors[len(vectors) - _QUERIES * (turn + 1) :][:_QUERIES])
    try:
        with closing(IndexStore(index_dir)) as store:
            ready.wait()
            refreshed = time.monotonic()
            while not done.is_set():
                snapshot = store.snapshot
                query = queries[random.integers(len(queries))]
                found = snapshot.search(query[np.newaxis], _K, max(1, usable_cores() // 2))
                keys = [int(one.key) for one in store.pictures(snapshot, found.ids[0].tolist()).values()]
                first, beyond = churn.rows(snapshot.generation)
                if (
                    snapshot.images != beyond - first
                    or len(keys) != _K
                    or not all(first <= key < beyond for key in keys)
                ):
                    wrong.append(f"generation {snapshot.generation}: {snapshot.images} rows, hits {keys}")
                times.append(time.monotonic())
                if times[-1] - refreshed > _REFRESH_EVERY_S:
                    known = newest.value
                    if store.refresh() < known:
                        wrong.append(f"refreshed to {store.snapshot.generation}, {known} was committed")
                    refreshed = time.monotonic()
    except Exception as error:  # an edge: whatever it is, it is reported
        errors.append(f"reader {turn}: {type(error).__name__}: {error}")
    reports.put(("reader", times, wrong, errors))
