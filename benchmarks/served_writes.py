"""A served index that is searched and written to while it gets another model: is each answer of one generation?

Writers put a picture in, look for it with the generation that they were told, take it out and look again, at a steady
rate. They note from which generation to which each was there, and afterwards every answer is held against that: the
pictures that an answer lists are those of its generation, all of them and no others, and its model is that one's.
"""

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from retrieval.answer import Refinements
from retrieval.client import Client
from retrieval.client.trying import Retries

WRITTEN: Refinements = {"where": {"written": True}}
KEPT = "written/kept"  # there all the time, so that there is always one
ASK_AT_ONCE = Retries(most=0)
MOST_WRONG = 5  # that are told


class Listing(NamedTuple):
    """An answer that lists what writers have put in.

    Attributes:
        generation, model: that it says it is of.
        keys: of what it lists.
    """

    generation: int
    model: str
    keys: frozenset[str]


@dataclass
class Seen:
    """What callers saw.

    Attributes:
        searches, writes: that were answered.
        seconds: that writers wrote for.
        generations, models: different ones among the answers.
        before_ms, median_ms, p99_ms: of a search, before anything else went on, and with all of it.
        errors: of searches and writes.
        wrong: answers that are not of their generation, or do not hold what was written before; some of them, in words.
    """

    searches: int = 0
    writes: int = 0
    seconds: float = 0.0
    generations: int = 0
    models: int = 0
    before_ms: float = 0.0
    median_ms: float = 0.0
    p99_ms: float = 0.0
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Load:
    """Callers of one server, until they are told to stop.

    Args:
        url: of the server.
        queries: indexed pictures, each its own best hit.
        written: a picture that is put in again and again, unlike the queries.
    """

    def __init__(self, url: str, queries: Sequence[Path], written: Path) -> None:
        self._url, self._queries, self._written = url, queries, written
        self._times_ms: list[float] = []
        self._listings: list[Listing] = []
        self._there: dict[str, tuple[int, int]] = {}  # the first generation of a key, and the first without it
        self._models: set[str] = set()
        self._writes = 0
        self._seen = Seen()
        self._done = threading.Event()

    def run(self, meanwhile: Callable[["Load"], None], askers: int, writers: int, changes_per_s: float) -> Seen:
        """Search and write while `meanwhile` runs, and say what came of it."""
        with Client(self._url) as client:
            client.upsert(KEPT, self._written, metadata={"written": True})
            self._seen.before_ms = statistics.median(self._ask(client, turn) for turn in range(50))
        self._times_ms.clear()
        every_s = 2 * writers / changes_per_s
        begun_s = time.monotonic()
        with ThreadPoolExecutor(askers + writers) as pool:
            asking = [pool.submit(self._ask_on, turn) for turn in range(askers)]
            writing = [pool.submit(self._write_on, turn, every_s) for turn in range(writers)]
            try:
                meanwhile(self)
            finally:
                self._done.set()
        for one in [*asking, *writing]:
            one.result()
        return self._judged(time.monotonic() - begun_s)

    def wait_for_models(self, count: int, within_s: float = 120.0) -> None:
        """Until answers of so many models have come, or it takes too long."""
        until_s = time.monotonic() + within_s
        while len(self._models) < count and time.monotonic() < until_s:
            time.sleep(0.05)

    def _judged(self, seconds: float) -> Seen:
        seen = self._seen
        of_generations: dict[int, set[str]] = {}
        for one in self._listings:
            of_generations.setdefault(one.generation, set()).add(one.model)
            there = {key for key, (first, gone) in self._there.items() if first <= one.generation < gone}
            if one.keys != there | {KEPT}:
                seen.wrong.append(f"generation {one.generation} lists {sorted(one.keys)}, it has {sorted(there)}")
        models = [sorted(of_generations[generation]) for generation in sorted(of_generations)]
        reigns = [reign for reign, _ in itertools.groupby(models)]
        if len(reigns) != len(self._models):
            seen.wrong.append(f"models come and go: {reigns}")
        seen.searches, seen.writes, seen.seconds = len(self._times_ms), self._writes, seconds
        seen.generations, seen.models = len(of_generations), len(self._models)
        if self._times_ms:
            seen.median_ms = statistics.median(self._times_ms)
            seen.p99_ms = sorted(self._times_ms)[int(0.99 * len(self._times_ms))]
        seen.wrong, seen.errors = seen.wrong[:MOST_WRONG], seen.errors[:MOST_WRONG]
        return seen

    def _ask_on(self, turn: int) -> None:
        newest = 0
        with Client(self._url, retries=ASK_AT_ONCE) as client:
            for number in itertools.count(turn):
                if self._done.is_set():
                    return
                try:
                    self._ask(client, number)
                    listed = client.search(self._written, 100, **WRITTEN)
                except Exception as error:  # whatever it is, it is reported
                    self._seen.errors.append(f"search: {error}")
                    continue
                self._listings.append(
                    Listing(listed.generation, listed.model, frozenset(hit.key for hit in listed.hits))
                )
                self._models.add(listed.model)
                if listed.generation < newest:
                    self._seen.wrong.append(f"generation {listed.generation} after {newest}")
                newest = max(newest, listed.generation)

    def _ask(self, client: Client, number: int) -> float:
        """Milliseconds of a search for an indexed picture."""
        query = self._queries[number % len(self._queries)]
        start_s = time.perf_counter()
        answer = client.search(query, 1)
        took_ms = 1000 * (time.perf_counter() - start_s)
        self._times_ms.append(took_ms)
        if answer.hits[0].path != query or answer.hits[0].score < 0.99:
            self._seen.wrong.append(f"{query}: {answer.hits[0]}")
        return took_ms

    def _write_on(self, turn: int, every_s: float) -> None:
        due_s = time.monotonic() + every_s * turn / 7  # not all at once
        with Client(self._url) as client:
            for number in itertools.count():
                if self._done.wait(max(0.0, due_s - time.monotonic())):
                    return
                due_s += every_s
                try:
                    self._write(client, f"written/{turn}-{number}")
                except Exception as error:  # whatever it is, it is reported
                    self._seen.errors.append(f"writer: {error}")

    def _write(self, client: Client, key: str) -> None:
        there = client.upsert(key, self._written, metadata={"written": True})
        after = client.search(self._written, 100, min_generation=there, **WRITTEN)
        gone = client.remove(key)
        self._there[key] = (there, gone)
        later = client.search(self._written, 100, min_generation=gone, **WRITTEN)
        self._writes += 2
        if key not in [hit.key for hit in after.hits] or after.generation < there:
            self._seen.wrong.append(f"{key} was written in {there} and is not in {after.generation}")
        if key in [hit.key for hit in later.hits] or later.generation < gone:
            self._seen.wrong.append(f"{key} was removed in {gone} and is in {later.generation}")
