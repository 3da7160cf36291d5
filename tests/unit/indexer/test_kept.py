"""Pictures that exist nowhere else are kept once, under their hash, for as long as anything names them."""

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import indexer.kept
from indexer.changes import Changes
from indexer.kept import ORPHAN_AGE_S
from indexer.store import IndexStore
from vectors import pictures_found, put, unit_rows

ROW = unit_rows(1, 8, seed=0)[0]


def make_old(path: Path) -> None:
    long_ago_s = path.stat().st_mtime - ORPHAN_AGE_S - 10
    os.utime(path, (long_ago_s, long_ago_s))


def run_a_job(store: IndexStore) -> None:
    with store.job("index"):
        pass


def test_a_kept_picture_lies_under_its_hash(store: IndexStore) -> None:
    path = store.keep(b"picture")
    sha256 = hashlib.sha256(b"picture").hexdigest()
    assert path == f"pictures/{sha256[:2]}/{sha256}"
    assert (store.index_dir / path).read_bytes() == b"picture"


def test_the_same_picture_is_kept_once(store: IndexStore) -> None:
    assert store.keep(b"picture") == store.keep(b"picture")
    assert len([path for path in (store.index_dir / "pictures").rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("damaged", [b"picturE", b"pic"], ids=["altered", "cut"])
def test_keeping_a_picture_again_mends_its_file(store: IndexStore, damaged: bytes) -> None:
    path = store.index_dir / store.keep(b"picture")
    path.write_bytes(damaged)
    store.keep(b"picture")
    assert path.read_bytes() == b"picture"


def test_an_old_file_that_nothing_names_is_removed_by_a_job(store: IndexStore) -> None:
    path = store.index_dir / store.keep(b"picture")
    make_old(path)
    run_a_job(store)
    assert not path.exists()


def test_a_young_file_may_belong_to_a_commit_that_is_to_come(store: IndexStore) -> None:
    path = store.index_dir / store.keep(b"picture")
    run_a_job(store)
    assert path.exists()


def test_an_old_file_kept_again_is_young(store: IndexStore) -> None:
    path = store.index_dir / store.keep(b"picture")
    make_old(path)
    store.keep(b"picture")
    run_a_job(store)
    assert path.exists()


def test_a_file_kept_again_while_a_job_is_about_to_remove_it_is_there(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.index_dir / store.keep(b"picture")
    make_old(path)
    unlink, upsert = Path.unlink, threading.Thread(target=store.keep, args=(b"picture",))

    def overtaken(self: Path, *given: Any, **named: Any) -> None:
        if self == path:
            upsert.start()
            upsert.join(0.3)
        unlink(self, *given, **named)

    monkeypatch.setattr(Path, "unlink", overtaken)
    run_a_job(store)
    upsert.join()
    assert path.read_bytes() == b"picture"


def test_a_picture_that_another_thread_kept_is_durable_when_it_is_kept_again(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.index_dir / store.keep(b"picture")
    synced = []
    monkeypatch.setattr(indexer.kept, "sync_folder", synced.append)
    store.keep(b"picture")
    assert synced == [path.parent]


def test_a_file_of_a_picture_in_the_index_stays(store: IndexStore) -> None:
    path = store.keep(b"picture")
    store.commit(Changes(puts=[put("a", ROW, path=path)]))
    make_old(store.index_dir / path)
    run_a_job(store)
    assert pictures_found(store)["a"].path.read_bytes() == b"picture"


def test_a_file_of_a_removed_picture_stays_for_older_generations(store: IndexStore) -> None:
    path = store.keep(b"picture")
    store.commit(Changes(puts=[put("a", ROW, path=path)]))
    old = store.snapshot
    store.commit(Changes(removes={"a": -1}))
    make_old(store.index_dir / path)
    run_a_job(store)
    assert pictures_found(store, old)["a"].path.read_bytes() == b"picture"
