"""Processes and threads that use one index at once, or die while they do, leave and see whole generations."""

import multiprocessing
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import indexer.sealing
from indexer.backup import backup
from indexer.changes import Attributes, Changes
from indexer.integrity import verify
from indexer.snapshot import Snapshot
from indexer.store import IndexStore
from vectors import new_store, own_scores, pictures_found, put, unit_rows

DIM = 8
SEAL_ROWS = 40
TESTS = Path(__file__).resolve().parents[1]
SPAWN = multiprocessing.get_context("spawn")


# --- an index whose every generation tells its own number ----------------------------------------------------------


def content_of(generation: int) -> dict[str, NDArray[np.float32]]:
    """What a generation holds: keys and vectors change in the even ones, attributes in all."""
    even = generation - generation % 2
    rows = unit_rows(10 + even % 7, DIM, seed=even)
    return {f"k{i}": row for i, row in enumerate(rows)}


def changes_to(generation: int) -> Changes:
    """The commit that makes this generation of the one before it."""
    attributes = Attributes(metadata={"generation": generation})
    new, old = content_of(generation), content_of(generation - 1)
    if generation % 2:
        return Changes(attributes=dict.fromkeys(new, attributes))
    puts = [put(key, row, metadata=attributes.metadata) for key, row in new.items()]
    return Changes(puts=puts, removes={key: -1 for key in old if key not in new})


def assert_is_one_generation(store: IndexStore, snapshot: Snapshot) -> None:
    """Keys, attributes and vectors of an answer are all those of the snapshot's generation."""
    expected = content_of(snapshot.generation)
    pictures = pictures_found(store, snapshot)
    assert pictures.keys() == expected.keys()
    assert {one.attributes.metadata["generation"] for one in pictures.values()} == {snapshot.generation}
    found = snapshot.search(np.stack(list(expected.values())), 1)
    assert found.ids[:, 0].tolist() == [pictures[key].id for key in expected]
    np.testing.assert_allclose(found.scores[:, 0], 1, atol=2e-3)


def start(index_dir: Path) -> None:
    store = new_store(index_dir, DIM)
    store.commit(Changes(puts=[put(key, row, metadata={"generation": 1}) for key, row in content_of(1).items()]))
    store.close()


def write_generations(index_dir: Path, stop: Event) -> None:
    """Commit one generation after the other, sealing often, some of them within a job."""
    indexer.sealing.SEAL_ROWS = SEAL_ROWS
    store = IndexStore(index_dir)
    while not stop.is_set():
        with store.job("index"):
            for _ in range(10):
                store.commit(changes_to(store.snapshot.generation + 1))
        for _ in range(10):
            store.commit(changes_to(store.snapshot.generation + 1))
    store.close()


def read_generations(index_dir: Path, seen: "Queue[list[int]]", stop: Event) -> None:
    """Search, refresh, and hold on to some older generations; reports which were seen."""
    store = IndexStore(index_dir)
    generations, held = [], [store.snapshot]
    while not stop.is_set():
        generations.append(store.refresh())
        assert_is_one_generation(store, store.snapshot)
        assert_is_one_generation(store, held[len(generations) % len(held)])
        if len(generations) % 20 == 0:
            held = [*held[-3:], store.snapshot]
    seen.put(generations)
    store.close()


@contextmanager
def running(*works: tuple[Callable[..., None], tuple[object, ...]]) -> Iterator[Event]:
    """Run each in a process of its own, its last argument an event that says stop; all must end well."""
    stop = SPAWN.Event()
    children = [SPAWN.Process(target=work, args=(*given, stop)) for work, given in works]
    for child in children:
        child.start()
    try:
        yield stop
    finally:
        stop.set()
        for child in children:
            child.join(60)
            child.kill()
    assert [child.exitcode for child in children] == [0] * len(children)


def generation_on_disk(index_dir: Path) -> int:
    store = IndexStore(index_dir)
    store.close()
    return store.snapshot.generation


def wait_for_writer(index_dir: Path) -> None:
    """Until the writer's process has started and committed."""
    deadline = time.monotonic() + 60
    while generation_on_disk(index_dir) < 5:
        assert time.monotonic() < deadline, "the writer does not write"
        time.sleep(0.05)


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_every_answer_during_a_load_belongs_to_one_generation(tmp_path: Path, seconds: float) -> None:
    index_dir = tmp_path / "index"
    seen: list[Queue[list[int]]] = [SPAWN.Queue(), SPAWN.Queue()]
    start(index_dir)
    readers = [(read_generations, (index_dir, queue)) for queue in seen]
    with running((write_generations, (index_dir,)), *readers) as stop:
        wait_for_writer(index_dir)
        time.sleep(seconds)
        stop.set()
        answers = [queue.get(timeout=60) for queue in seen]
    assert all(generations == sorted(generations) for generations in answers)
    assert all(len(set(generations)) > 5 for generations in answers)
    assert verify(index_dir).problems == []


@pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_each_backup_during_a_load_is_one_whole_generation(tmp_path: Path, count: int) -> None:
    index_dir = tmp_path / "index"
    start(index_dir)
    with running((write_generations, (index_dir,))):
        wait_for_writer(index_dir)
        generations = [backup(index_dir, tmp_path / str(number)).generation for number in range(count)]
    for number, generation in enumerate(generations):
        found = verify(tmp_path / str(number))
        assert (found.problems, found.orphans, found.generation) == ([], [], generation)
        copy = IndexStore(tmp_path / str(number))
        assert_is_one_generation(copy, copy.snapshot)
        copy.close()


def test_an_index_is_verified_and_measured_during_a_load(tmp_path: Path) -> None:
    index_dir = tmp_path / "index"
    start(index_dir)
    store = IndexStore(index_dir)
    with running((write_generations, (index_dir,))):
        wait_for_writer(index_dir)
        for _ in range(20):
            assert verify(index_dir).problems == []
            assert store.sizes()["total"] > 0
    store.close()


# --- killed writers ------------------------------------------------------------------------------------------------

KILLED_WRITER = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/integration"]
import indexer.sealing
from indexer.store import IndexStore
from test_store_concurrency import SEAL_ROWS, changes_to
indexer.sealing.SEAL_ROWS = SEAL_ROWS
store = IndexStore(sys.argv[1])
while True:
    print(store.commit(changes_to(store.snapshot.generation + 1)).generation, flush=True)
"""


def kill_a_writer(index_dir: Path, after_s: float) -> int:
    """Let a child commit for a while, kill it, and return the last generation that it was told is safe."""
    command = [sys.executable, "-c", KILLED_WRITER, str(index_dir), str(TESTS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TESTS.parent) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline()]
        killer = threading.Timer(after_s, child.kill)
        killer.start()
        acknowledged += child.stdout.readlines()
        killer.join()
    assert child.returncode == -9
    return int([line for line in acknowledged if line.endswith("\n")][-1])


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_killed_writer_loses_nothing_acknowledged_and_leaves_no_half_commit(tmp_path: Path, kills: int) -> None:
    index_dir = tmp_path / "index"
    start(index_dir)
    moments = random.Random(kills)
    for _ in range(kills):
        acknowledged = kill_a_writer(index_dir, after_s=moments.uniform(0, 0.4))
        assert verify(index_dir).problems == []
        store = IndexStore(index_dir)
        assert store.snapshot.generation - acknowledged in (0, 1)
        assert_is_one_generation(store, store.snapshot)
        with store.job("index"):
            assert verify(index_dir).orphans == []
        store.close()


# --- several at once -----------------------------------------------------------------------------------------------


def test_threads_may_share_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", 16)
    store, failures = new_store(tmp_path / "index", DIM), []
    rows = unit_rows(15, DIM, seed=0)

    def run(work: Callable[[str, int], object], name: str, times: int) -> None:
        try:
            for i in range(times):
                work(name, i)
        except BaseException as error:
            failures.append(error)

    def write(name: str, i: int) -> None:
        store.commit(Changes(puts=[put(f"{name}{i}", rows[i])]))

    def read(name: str, i: int) -> None:
        pictures_found(store, store.snapshot)

    works = [*((write, name, len(rows)) for name in "abc"), (read, "", 40), (read, "", 40)]
    threads = [threading.Thread(target=run, args=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.snapshot.generation == 3 * len(rows)
    scores = own_scores(store, {f"{name}{i}": row for name in "abc" for i, row in enumerate(rows)})
    assert min(scores.values()) > 0.999
    store.close()


def add_and_seal(index_dir: Path, name: str, stop: Event) -> None:
    indexer.sealing.SEAL_ROWS = 4
    store = IndexStore(index_dir)
    for i, row in enumerate(unit_rows(30, DIM, seed=0)):
        store.commit(Changes(puts=[put(f"{name}{i}", row)]))
    store.close()


def test_two_processes_that_seal_at_once_put_each_vector_in_one_place(tmp_path: Path) -> None:
    index_dir = tmp_path / "index"
    new_store(index_dir, DIM).close()
    with running((add_and_seal, (index_dir, "a")), (add_and_seal, (index_dir, "b"))):
        pass
    found = verify(index_dir)
    assert (found.problems, found.orphans) == ([], [])
    store = IndexStore(index_dir)
    assert len(store.snapshot.segments) > 1
    rows = unit_rows(30, DIM, seed=0)
    scores = own_scores(store, {f"{name}{i}": row for name in "ab" for i, row in enumerate(rows)})
    assert min(scores.values()) > 0.999
    store.close()
