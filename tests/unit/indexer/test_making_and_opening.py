"""What cannot be made, opened or written says so in one line, and is left as it was."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

import indexer.catalog
import indexer.place
import indexer.sealing
from indexer.changes import Changes
from indexer.errors import (
    IndexBusy,
    IndexDamaged,
    IndexerError,
    IndexExists,
    IndexNotFound,
    IndexTooNew,
)
from indexer.integrity import verify
from indexer.locks import try_seal_lock
from indexer.store import IndexStore
from vectors import new_store, pictures_found, put, query_catalog, unit_rows

ROWS = unit_rows(40, 8, seed=0)


@pytest.fixture
def store(store: IndexStore) -> IndexStore:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    return store


def test_an_index_of_a_newer_format_is_refused_with_both_numbers(store: IndexStore) -> None:
    store.close()
    query_catalog(store.index_dir, "PRAGMA user_version = 99")
    with pytest.raises(IndexTooNew, match="has format 99, this version reads up to 1; upgrade"):
        IndexStore(store.index_dir)


def test_another_database_is_no_catalog(tmp_path: Path) -> None:
    query_catalog(tmp_path, "CREATE TABLE songs (name)")
    with pytest.raises(IndexDamaged, match="is not the catalog of an index; choose another folder"):
        IndexStore(tmp_path)


@pytest.mark.parametrize("content", [b"", b"Dear diary, " * 1000], ids=["empty", "text"])
def test_a_file_that_is_no_database_is_no_catalog(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(content)
    with pytest.raises(IndexDamaged, match="catalog"):
        IndexStore(tmp_path)
    assert (tmp_path / "catalog.sqlite").read_bytes() == content


@pytest.mark.parametrize("name", ["", "not there"])
def test_a_folder_without_a_catalog_is_no_index(tmp_path: Path, name: str) -> None:
    with pytest.raises(IndexNotFound, match=r"no index at .*; make one with `retrieve index GALLERY --index"):
        IndexStore(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_index_is_not_made_over_another(store: IndexStore) -> None:
    with pytest.raises(IndexExists, match=r"there is an index at .* already"):
        new_store(store.index_dir)
    assert pictures_found(store).keys() == {"a"}


def test_an_index_is_not_made_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(IndexExists, match=r"holds other files \(holiday.jpg\); an index needs a folder of its own"):
        new_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_what_a_killed_maker_left_is_no_obstacle(tmp_path: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        (tmp_path / f".catalog.sqlite.tmp{ending}").write_bytes(b"half a page")
    (tmp_path / "seal.lock").touch()
    new_store(tmp_path).close()
    assert verify(tmp_path).is_whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catalog.sqlite", "seal.lock"]


def test_while_another_process_makes_the_index_a_second_maker_is_refused(tmp_path: Path) -> None:
    with try_seal_lock(tmp_path), pytest.raises(IndexBusy, match="another process is making an index at"):
        new_store(tmp_path)


def test_of_many_makers_of_one_index_one_succeeds(tmp_path: Path) -> None:
    outcomes: list[object] = []

    def make() -> None:
        try:
            outcomes.append(new_store(tmp_path / "index"))
        except IndexerError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (made,) = [one for one in outcomes if isinstance(one, IndexStore)]
    assert set(outcomes) - {made} <= {IndexExists, IndexBusy}
    made.close()
    assert verify(tmp_path / "index").is_whole


def test_a_writer_that_another_holds_up_too_long_says_so_and_can_go_on_later(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.catalog, "BUSY_TIMEOUT_S", 0.01)
    other = IndexStore(store.index_dir)
    with closing(sqlite3.connect(store.index_dir / "catalog.sqlite")) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(IndexBusy, match=r"was held by another writer for .* s; try again"):
            other.commit(Changes(puts=[put("b", ROWS[1])]))
    assert other.commit(Changes(puts=[put("b", ROWS[1])])).added == ["b"]
    other.close()


def test_readers_are_not_held_up_by_a_writer(store: IndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.catalog, "BUSY_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(store.index_dir / "catalog.sqlite")) as holder:
        holder.execute("BEGIN IMMEDIATE")
        reader = IndexStore(store.index_dir)
        assert pictures_found(reader).keys() == {"a"}
        reader.close()


def test_a_network_file_system_is_refused_for_writing_and_not_for_reading(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.place, "network_file_system", lambda folder: "nfs4")
    reader = IndexStore(store.index_dir)
    assert pictures_found(reader).keys() == {"a"}
    for write in (lambda: reader.commit(Changes(removes={"a": -1})), lambda: reader.keep(b"x")):
        with pytest.raises(IndexerError, match=r"lies on a network file system \(nfs4\).*keep the index on a local"):
            write()
    with pytest.raises(IndexerError, match="nfs4"):
        new_store(store.index_dir.parent / "other")
    reader.close()
