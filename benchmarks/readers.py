"""Readers that search without pause while an index gets another model: which model and generation is each answer of?"""

import json
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple

from retrieval.engine import SearchEngine

_REFRESH_EVERY_S = 0.5


class Answer(NamedTuple):
    """What a search came to.

    Attributes:
        at_s: when, on the clock that all processes share.
        query: its number.
        generation, fingerprint: what it says of itself.
        key, score: of its best hit.
    """

    at_s: float
    query: int
    generation: int
    fingerprint: str
    key: str
    score: float


class Readers:
    """What readers have seen; complete once they have stopped."""

    def __init__(self, folder: Path) -> None:
        self.answers: list[Answer] = []
        self.errors: list[str] = []
        self._folder = folder

    def gather(self) -> None:
        """Read what they wrote down."""
        for path in sorted(self._folder.glob("answers-*.jsonl")):
            self.answers += [Answer(*json.loads(line)) for line in path.read_text("utf-8").splitlines()]
        for path in sorted(self._folder.glob("error-*.txt")):
            self.errors.append(path.read_text("utf-8"))


@contextmanager
def reading(
    index_dir: Path, queries: Sequence[Path], folder: Path, threads: int = 4, processes: int = 2
) -> Iterator[Readers]:
    """Let threads that share an engine, and processes with one each, search in turn for queries until the block ends.

    Args:
        index_dir: the index.
        queries: pictures.
        folder: for what they see.
        threads: of one process.
        processes: with one thread each.
    """
    context = multiprocessing.get_context("spawn")
    done, ready = context.Event(), context.Barrier(processes + 2)
    children = [
        context.Process(target=_read, args=(index_dir, queries, folder, f"{number}", count, ready, done))
        for number, count in enumerate((threads, *[1] * processes))
    ]
    for child in children:
        child.start()
    ready.wait()
    found = Readers(folder)
    try:
        yield found
    finally:
        done.set()
        for child in children:
            child.join()
        found.errors += [f"process {child.name} ended with {child.exitcode}" for child in children if child.exitcode]
        found.gather()


def _read(
    index_dir: Path, queries: Sequence[Path], folder: Path, name: str, threads: int, ready: Any, done: Event
) -> None:
    with SearchEngine.open(index_dir) as engine:
        engine.search(queries[0])
        ready.wait()
        turns = [
            threading.Thread(target=_search_on, args=(engine, queries, folder, f"{name}-{turn}", turn, done))
            for turn in range(threads)
        ]
        for turn in turns:
            turn.start()
        for turn in turns:
            turn.join()


def _search_on(engine: SearchEngine, queries: Sequence[Path], folder: Path, name: str, turn: int, done: Event) -> None:
    refreshed_s = time.monotonic()
    try:
        with (folder / f"answers-{name}.jsonl").open("w", encoding="utf-8") as notes:
            number = turn
            while not done.is_set():
                number = (number + 7) % len(queries)
                answer = engine.search(queries[number], k=1)
                hit = answer.hits[0]
                seen = Answer(time.monotonic(), number, answer.generation, answer.model, hit.key, hit.score)
                notes.write(json.dumps(seen) + "\n")
                if time.monotonic() - refreshed_s > _REFRESH_EVERY_S:
                    engine.refresh()
                    refreshed_s = time.monotonic()
    except Exception as error:  # an edge: whatever it is, it is reported
        (folder / f"error-{name}.txt").write_text(f"{type(error).__name__}: {error}", "utf-8")
