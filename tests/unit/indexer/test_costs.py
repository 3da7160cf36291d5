"""A commit, a sealing and a refresh cost what they change, however much there is: counted in steps of SQLite."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import indexer.catalog
import indexer.sealing
from indexer.changes import Changes
from indexer.store import IndexStore
from vectors import new_store, put, unit_rows

SEAL_ROWS = 8
STEPS_A_COUNT = 5
ROWS = unit_rows(4200, 8, seed=0)
Connections = list[sqlite3.Connection]


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    """Those of every catalog that is opened."""
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", SEAL_ROWS)
    opened: Connections = []
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def noted(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(indexer.catalog.sqlite3, "connect", noted)
    return opened


@contextmanager
def counting(connections: Connections) -> Iterator[list[int]]:
    """How many steps SQLite takes until this ends."""
    counted = [0]

    def count() -> int:
        counted[0] += STEPS_A_COUNT
        return 0

    for connection in connections:
        with suppress(sqlite3.ProgrammingError):  # closed
            connection.set_progress_handler(count, STEPS_A_COUNT)
    yield counted


def steps_at(index_dir: Path, connections: Connections, size: int) -> dict[str, int]:
    """Of adding, sealing and removing a few, and of following that, where so many are there and a third was removed."""
    connections.clear()
    with closing(new_store(index_dir)) as store, closing(IndexStore(index_dir)) as reader:
        store.commit(Changes(puts=[put(f"k{i}", ROWS[i], metadata={"n": i}) for i in range(size)]))
        store.commit(Changes(removes={f"k{i}": -1 for i in range(0, size, 3)}))
        store.commit(Changes(puts=[put("first", ROWS[-1])]))  # opens what is opened once
        reader.refresh()
        reader.search(ROWS[:1], 3, where="n > 1")
        steps = {}
        with counting(connections) as counted:
            for name, changes in {
                "add": Changes(puts=[put(f"new {i}", ROWS[-1 - i], metadata={"n": i}) for i in range(SEAL_ROWS)]),
                "remove": Changes(removes={"k1": -1, "new 1": -1}),
                "replace": Changes(puts=[put("k2", ROWS[-1])]),
            }.items():
                store.commit(changes)
                steps[name], counted[0] = counted[0], 0
                reader.refresh()
                steps[f"follow {name}"], counted[0] = counted[0], 0
            reader.search(ROWS[:1], 3, where="n > 1")
            steps["filter"] = counted[0]
        assert len(reader.snapshot.segments) == 2
        assert reader.snapshot.images == store.snapshot.images == size - -(-size // 3) + SEAL_ROWS - 1
    return steps


def test_changes_cost_what_they_change(tmp_path: Path, connections: Connections) -> None:
    few, many = (steps_at(tmp_path / f"{size}", connections, size) for size in (400, 4000))
    assert min(few.values()) > 0
    dearer = {name: (few[name], many[name]) for name in few if many[name] > 1.1 * few[name] + 50}
    assert not dearer


def steps_after_merging(index_dir: Path, connections: Connections, segments: int) -> int:
    """Of following a commit, where so many segments were merged into one."""
    connections.clear()
    with closing(new_store(index_dir)) as store, closing(IndexStore(index_dir)) as reader:
        for start in range(0, segments * SEAL_ROWS, SEAL_ROWS):
            store.commit(Changes(puts=[put(f"k{i}", ROWS[i]) for i in range(start, start + SEAL_ROWS)]))
        with store.job("compact"):
            store.compact()
        reader.refresh()
        assert len(reader.snapshot.segments) == 1
        store.commit(Changes(puts=[put("new", ROWS[-1])]))
        with counting(connections) as counted:
            reader.refresh()
        return counted[0]


def test_segments_that_were_merged_cost_nothing(tmp_path: Path, connections: Connections) -> None:
    few, many = (steps_after_merging(tmp_path / f"{count}", connections, count) for count in (4, 120))
    assert 0 < many <= few + 50
