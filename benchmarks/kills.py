"""`kill -9` an indexing run at random moments, look at what is left, run it again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from indexer.catalog import CATALOG_FILE
from indexer.integrity import verify
from indexer.segments import read_raw_rows
from indexer.store import IndexStore

LONGEST_WAIT_S = 3.0  # beyond a commit, into the next one


@dataclass
class Kills:
    """What a series of kills and reruns has shown.

    Attributes:
        committed: pictures in the index after each kill.
        problems: what `verify` found, and pictures that were in the index and are not any more; should stay empty.
        orphans: files that killed runs left behind; harmless.
        rounds: indexes that were filled, kill by kill.
        encoded_again: pictures that were committed and encoded nevertheless; should stay 0.
    """

    committed: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    orphans: int = 0
    rounds: int = 0
    encoded_again: int = 0


def kill_and_rerun(gallery: Path, folder: Path, model: str, kills: int, seed: int) -> tuple[Kills, Path]:
    """Kill indexing runs until `kills` of them were killed, filling as many indexes as that takes; finish the last.

    Returns:
        What was seen, and the last index.
    """
    moments = random.Random(seed)
    seen = Kills()
    index = folder / "index-0"
    while len(seen.committed) < kills:
        before = len(contents(index))
        if not _run_and_kill(gallery, index, model, before, moments.uniform(0, LONGEST_WAIT_S)):
            seen.rounds += 1
            index = folder / f"index-{seen.rounds}"
            continue
        after = len(contents(index))
        found = verify(index)
        seen.problems += found.problems
        seen.orphans += len(found.orphans)
        if after < before:
            seen.problems.append(f"{before} pictures before the kill, {after} after it")
        seen.committed.append(after)
    seen.encoded_again = _finish(gallery, index, model)
    return seen, index


def contents(index: Path) -> dict[str, bytes]:
    """Key -> float16 bytes of the vector, for every picture of an index; empty where there is none yet."""
    if not (index / CATALOG_FILE).exists():
        return {}
    store = IndexStore(index)
    try:
        snapshot = store.snapshot
        vectors = dict(_vectors(store))
        pictures = store.pictures(snapshot, list(vectors))
        return {pictures[id_].key: vector for id_, vector in vectors.items()}
    finally:
        store.close()


def _vectors(store: IndexStore) -> Iterator[tuple[int, bytes]]:
    for one in store.snapshot.segments:
        rows = read_raw_rows(store.index_dir, one.segment.path.name, store.space.dim)
        for id_, row in zip(one.segment.ids.tolist(), rows, strict=False):
            if id_ not in one.removed:
                yield id_, row
    tail = store.snapshot.tail
    for id_, vector, is_removed in zip(tail.ids.tolist(), tail.vectors, tail.is_removed, strict=True):
        if not is_removed:
            yield id_, vector.astype(np.float16).tobytes()


def _command(gallery: Path, index: Path, model: str) -> list[str]:
    command = [sys.executable, "-m", "retrieval.cli", "index", str(gallery), "--index", str(index), "--json"]
    return command if (index / CATALOG_FILE).exists() else [*command, "--model", model]


def _run_and_kill(gallery: Path, index: Path, model: str, before: int, wait_s: float) -> bool:
    """Kill a run `wait_s` after its first commit is seen; False if it ended before."""
    process = subprocess.Popen(_command(gallery, index, model), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(contents(index)) <= before:
        time.sleep(0.02)
    try:
        return process.wait(wait_s) is None
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True


def _finish(gallery: Path, index: Path, model: str) -> int:
    """Run to the end; returns how many pictures were encoded although they had been committed."""
    import json

    before = len(contents(index))
    done = subprocess.run(
        _command(gallery, index, model), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    report = json.loads(done.stdout)
    return int(before - report["unchanged"]) + int(report["updated"])
