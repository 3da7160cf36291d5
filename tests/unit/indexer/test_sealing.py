"""Vectors leave the catalog for segments, and nobody who searches notices."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import indexer.catalog
import indexer.sealing
from indexer.changes import Attributes, Changes
from indexer.integrity import verify
from indexer.locks import try_seal_lock
from indexer.segments import SealedFile
from indexer.store import IndexStore
from vectors import own_scores, pictures_found, put, query_catalog, unit_rows

SEAL_ROWS = 8
ROWS = unit_rows(60, 8, seed=0)


@pytest.fixture(autouse=True)
def _seal_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", SEAL_ROWS)


def add(store: IndexStore, start: int, end: int) -> None:
    store.commit(Changes(puts=[put(f"k{i}", ROWS[i]) for i in range(start, end)]))


def vectors_in_catalog(store: IndexStore) -> int:
    count: int = query_catalog(store.index_dir, "SELECT count(vector) FROM embeddings")[0][0]
    return count


def segment_files(store: IndexStore) -> set[str]:
    folder = store.index_dir / "segments"
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_below_the_limit_vectors_stay_in_the_catalog(store: IndexStore) -> None:
    add(store, 0, SEAL_ROWS - 1)
    assert vectors_in_catalog(store) == SEAL_ROWS - 1
    assert segment_files(store) == set()


def test_sealed_vectors_leave_the_catalog_and_are_still_found(store: IndexStore) -> None:
    add(store, 0, SEAL_ROWS)
    assert vectors_in_catalog(store) == 0
    assert len(segment_files(store)) == 1
    scores = own_scores(store, {f"k{i}": ROWS[i] for i in range(SEAL_ROWS)})
    assert min(scores.values()) > 0.999


def test_sealing_makes_no_generation(store: IndexStore) -> None:
    add(store, 0, SEAL_ROWS)
    assert len(store.snapshot.segments) == 1
    assert store.snapshot.generation == query_catalog(store.index_dir, "SELECT max(number) FROM generations")[0][0] == 1


def test_a_picture_removed_from_a_segment_stays_removed_when_reopened(store: IndexStore) -> None:
    add(store, 0, SEAL_ROWS)
    store.commit(Changes(removes={"k3": -1}))
    store.close()
    reopened = IndexStore(store.index_dir)
    assert pictures_found(reopened).keys() == {f"k{i}" for i in range(SEAL_ROWS)} - {"k3"}
    reopened.close()


def test_a_segment_whose_pictures_are_all_removed_finds_nothing(store: IndexStore) -> None:
    add(store, 0, SEAL_ROWS)
    store.commit(Changes(removes={f"k{i}": -1 for i in range(SEAL_ROWS)}))
    assert (store.search(ROWS[:2], k=3).ids == -1).all()
    assert store.snapshot.images == 0


def test_vectors_removed_before_sealing_are_dropped(store: IndexStore) -> None:
    add(store, 0, 2)
    store.commit(Changes(removes={"k0": -1}))
    add(store, 2, SEAL_ROWS + 1)
    assert query_catalog(store.index_dir, "SELECT rows FROM segments") == [(SEAL_ROWS,)]
    assert query_catalog(store.index_dir, "SELECT count(*) FROM embeddings")[0][0] == SEAL_ROWS


def test_replacing_one_picture_forever_lets_nothing_grow(store: IndexStore) -> None:
    for i in range(5 * SEAL_ROWS):
        store.commit(Changes(puts=[put("same", ROWS[i])]))
    assert vectors_in_catalog(store) < SEAL_ROWS
    assert segment_files(store) == set()
    assert pictures_found(store).keys() == {"same"}


def test_replacing_many_pictures_for_long_does_not_let_the_tail_grow(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", 10**6)
    for _ in range(10):
        add(store, 0, 30)
    assert store.snapshot.images == 30
    assert len(store.snapshot.tail.ids) <= 64 + 30


def test_a_reader_moves_from_its_memory_to_the_segment_when_it_refreshes(store: IndexStore, reader: IndexStore) -> None:
    add(store, 0, SEAL_ROWS - 1)
    reader.refresh()
    assert len(reader.snapshot.tail.ids) == SEAL_ROWS - 1
    add(store, SEAL_ROWS - 1, SEAL_ROWS)
    reader.refresh()
    assert len(reader.snapshot.tail.ids) == 0
    assert pictures_found(reader).keys() == {f"k{i}" for i in range(SEAL_ROWS)}


def test_a_reader_that_missed_a_removal_and_a_sealing_sees_both_at_once(store: IndexStore, reader: IndexStore) -> None:
    add(store, 0, 4)
    reader.refresh()
    store.commit(Changes(removes={"k1": -1}))
    add(store, 4, SEAL_ROWS + 1)
    store.commit(Changes(removes={"k5": -1}))
    add(store, 20, 21)
    reader.refresh()
    assert pictures_found(reader).keys() == {f"k{i}" for i in (0, 2, 3, 4, 6, 7, 8, 20)}


def test_a_reader_keeps_the_segments_it_has_open_when_it_refreshes(store: IndexStore, reader: IndexStore) -> None:
    add(store, 0, SEAL_ROWS)
    reader.refresh()
    first = reader.snapshot.segments[0].segment
    add(store, SEAL_ROWS, 2 * SEAL_ROWS)
    reader.refresh()
    assert [one.segment is first for one in reader.snapshot.segments] == [True, False]


def test_an_older_snapshot_answers_the_same_after_sealing(store: IndexStore, reader: IndexStore) -> None:
    store.commit(Changes(puts=[put(f"k{i}", ROWS[i], metadata={"price": i}) for i in range(5)]))
    reader.refresh()
    old, before = reader.snapshot, reader.search(ROWS[:6], k=5)
    store.commit(Changes(removes={"k0": -1, "k1": -1}, attributes={"k2": Attributes("other")}))
    add(store, 5, 5 + SEAL_ROWS)
    assert len(segment_files(store)) == 1
    reader.refresh()
    after = old.search(ROWS[:6], k=5)
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.scores, after.scores)
    assert {key: one.attributes.metadata for key, one in pictures_found(reader, old).items()} == {
        f"k{i}": {"price": i} for i in range(5)
    }


def test_while_another_seals_a_commit_neither_waits_nor_seals(store: IndexStore) -> None:
    with try_seal_lock(store.index_dir) as is_mine:
        assert is_mine
        add(store, 0, SEAL_ROWS)
        assert segment_files(store) == set()
    add(store, SEAL_ROWS, SEAL_ROWS + 1)
    assert query_catalog(store.index_dir, "SELECT rows FROM segments") == [(SEAL_ROWS + 1,)]


@pytest.mark.parametrize("beside", [False, True], ids=["commit", "fill"])
def test_what_is_committed_is_no_failure_where_sealing_has_to_wait(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, beside: bool
) -> None:
    add(store, 0, SEAL_ROWS - 1)
    space = store.open_space(model_name="n", model_fingerprint="g", dim=8) if beside else store.space
    monkeypatch.setattr(indexer.catalog, "BUSY_TIMEOUT_S", 0.1)
    writer, write_segment = IndexStore(store.index_dir), indexer.sealing.write_segment
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", SEAL_ROWS - 1 if beside else SEAL_ROWS)
    with closing(sqlite3.connect(store.index_dir / "catalog.sqlite", isolation_level=None)) as other:

        def hindered(*given: Any) -> SealedFile:
            other.execute("BEGIN IMMEDIATE")
            return write_segment(*given)

        monkeypatch.setattr(indexer.sealing, "write_segment", hindered)
        if beside:
            writer.fill(space, {i + 1: ROWS[i] for i in range(SEAL_ROWS - 1)})
        else:
            assert writer.commit(Changes(puts=[put("last", ROWS[20])])).added == ["last"]
        other.execute("ROLLBACK")
    assert "vectors stay in the catalog until the next commit" in caplog.text
    assert query_catalog(store.index_dir, "SELECT count(*) FROM segments") == [(0,)]
    monkeypatch.setattr(indexer.sealing, "write_segment", write_segment)
    add(writer, 30, 31)
    assert len(segment_files(store)) == 1
    writer.close()


def test_an_altered_vector_is_not_sealed_as_if_it_were_right(store: IndexStore) -> None:
    add(store, 0, 4)
    query_catalog(store.index_dir, "UPDATE embeddings SET vector = zeroblob(16) WHERE picture_id = 2")
    add(store, 4, SEAL_ROWS)
    found = verify(store.index_dir)
    assert len(segment_files(store)) == 1
    assert found.lost == [2]
    assert pictures_found(store).keys() == {f"k{i}" for i in range(SEAL_ROWS)}


KILLED_WHILE_SEALING = """
import os, signal, sys
import indexer.files, indexer.sealing
from indexer.changes import Changes
from indexer.store import IndexStore
sys.path.append(sys.argv[2])
from vectors import put, unit_rows

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

indexer.sealing.SEAL_ROWS = 8
if sys.argv[3] == "before the rename":
    indexer.files.HashingFile.finish = die
else:
    write_segment = indexer.sealing.write_segment
    indexer.sealing.write_segment = lambda *given: die(write_segment(*given))
rows = unit_rows(8, 8, seed=0)
IndexStore(sys.argv[1]).commit(Changes(puts=[put(f"k{i}", row) for i, row in enumerate(rows)]))
"""


@pytest.mark.parametrize("moment", ["before the rename", "before the commit"])
def test_what_a_killed_sealer_leaves_is_reported_and_removed_by_the_next_job(store: IndexStore, moment: str) -> None:
    tests = Path(__file__).resolve().parents[2]
    child = [sys.executable, "-c", KILLED_WHILE_SEALING, str(store.index_dir), str(tests), moment]
    assert subprocess.run(child, cwd=tests.parent, timeout=60).returncode == -9
    (left,) = segment_files(store)
    found = verify(store.index_dir)
    assert found.is_whole
    assert found.orphans == [f"segments/{left}"]
    with store.job("index"):
        assert left not in segment_files(store)
    assert pictures_found(store).keys() == {f"k{i}" for i in range(8)}


def test_what_a_killed_sealer_leaves_is_removed_by_the_next_sealing(store: IndexStore) -> None:
    (store.index_dir / "segments").mkdir()
    (store.index_dir / "segments" / "left.faiss").touch()
    add(store, 0, SEAL_ROWS)
    assert len(segment_files(store) - {"left.faiss"}) == len(segment_files(store)) == 1


def test_a_job_leaves_alone_what_another_process_is_sealing(store: IndexStore) -> None:
    (store.index_dir / "segments").mkdir()
    in_progress = store.index_dir / "segments" / ".new.faiss.tmp"
    in_progress.write_bytes(os.urandom(9))
    with try_seal_lock(store.index_dir), store.job("index"):
        assert in_progress.exists()
