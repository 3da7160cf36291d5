"""One long job at a time, whoever dies; single changes go on beside it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from indexer.changes import Changes
from indexer.errors import IndexBusy
from indexer.locks import SEAL_LOCK, job_lock, try_seal_lock
from indexer.store import IndexStore
from unprivileged import run_unprivileged
from vectors import pictures_found, put, unit_rows

REPOSITORY = Path(__file__).resolve().parents[3]
HOLD_JOB = """
import sys
from indexer.store import IndexStore
with IndexStore(sys.argv[1]).job("index"):
    print("holding", flush=True)
    sys.stdin.read()
"""


@contextmanager
def job_of_another_process(index_dir: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", HOLD_JOB, str(index_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_job_is_refused_and_told_who_runs_the_first(store: IndexStore) -> None:
    with job_of_another_process(store.index_dir) as holder:
        named = rf"index {store.index_dir} is busy: `retrieve index` runs as process {holder.pid} on .*; wait for it"
        with pytest.raises(IndexBusy, match=named), store.job("refresh"):
            pass


def test_a_killed_job_frees_the_lock(store: IndexStore) -> None:
    with job_of_another_process(store.index_dir) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with store.job("refresh"):
            pass


def test_a_job_that_fails_frees_the_lock(store: IndexStore) -> None:
    with pytest.raises(KeyboardInterrupt), store.job("index"):
        raise KeyboardInterrupt
    with store.job("refresh"):
        pass


def test_single_changes_go_on_during_a_job(store: IndexStore) -> None:
    with job_of_another_process(store.index_dir):
        store.commit(Changes(puts=[put("a", unit_rows(1, 8, seed=0)[0])]))
    assert pictures_found(store).keys() == {"a"}


def test_a_second_job_of_the_same_process_is_refused_as_well(store: IndexStore) -> None:
    with store.job("index"), pytest.raises(IndexBusy, match=str(os.getpid())), store.job("refresh"):
        pass


def test_a_lock_that_names_nobody_yet_still_refuses(store: IndexStore) -> None:
    with job_lock(store.index_dir, "index"):
        (store.index_dir / "job.lock").write_text("")
        with pytest.raises(IndexBusy, match="has just started"), store.job("refresh"):
            pass


def test_after_a_job_the_lock_names_nobody(store: IndexStore) -> None:
    with store.job("index"):
        assert (store.index_dir / "job.lock").read_text() != ""
    assert (store.index_dir / "job.lock").read_text() == ""


def test_a_job_sees_what_was_committed_before_it_began(store: IndexStore) -> None:
    reader = IndexStore(store.index_dir)
    store.commit(Changes(puts=[put("a", unit_rows(1, 8, seed=0)[0])]))
    with reader.job("index"):
        assert pictures_found(reader).keys() == {"a"}
    reader.close()


def test_after_a_job_the_log_is_empty(store: IndexStore) -> None:
    with store.job("index"):
        store.commit(Changes(puts=[put("a", unit_rows(1, 8, seed=0)[0])]))
    assert (store.index_dir / "catalog.sqlite-wal").stat().st_size == 0


def test_a_job_waits_not_long_for_readers_at_its_end(store: IndexStore) -> None:
    reader = IndexStore(store.index_dir)
    with reader._catalog.read() as connection:
        connection.execute("SELECT * FROM pictures").fetchall()
        with store.job("index"):
            store.commit(Changes(puts=[put("a", unit_rows(1, 8, seed=0)[0])]))
    assert reader.refresh() == 1
    reader.close()


def test_the_seal_lock_is_given_to_one(store: IndexStore) -> None:
    with try_seal_lock(store.index_dir) as first, try_seal_lock(store.index_dir) as second:
        assert (first, second) == (True, False)
    with try_seal_lock(store.index_dir) as again:
        assert again


def test_a_lock_file_of_another_user_is_named(store: IndexStore) -> None:
    lock = store.index_dir / SEAL_LOCK
    lock.chmod(0o444)
    code = """
from pathlib import Path
from indexer.errors import IndexReadOnly
from indexer.locks import try_seal_lock
try:
    with try_seal_lock(Path(sys.argv[1])):
        print("held")
except IndexReadOnly as error:
    print(error)
"""
    child = run_unprivileged(code, store.index_dir)
    assert f"{lock}: Permission denied; give this user write permission" in child.stdout, child.stderr
