"""A disk that fills up stops what is being done, and costs nothing that was done."""

from pathlib import Path

import pytest

import indexer.catalog
import indexer.sealing
import indexer.store
from full_disk import files_limited_to
from indexer.backup import backup
from indexer.changes import Changes
from indexer.errors import (
    DiskFull,
)
from indexer.integrity import verify
from indexer.store import IndexStore
from vectors import new_store, own_scores, pictures_found, put, unit_rows

ROWS = unit_rows(40, 8, seed=0)


@pytest.fixture
def store(store: IndexStore) -> IndexStore:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    return store


def test_a_disk_that_fills_up_during_a_commit_loses_nothing_and_can_be_written_again(store: IndexStore) -> None:
    reader = IndexStore(store.index_dir)
    many = Changes(puts=[put(f"k{i}", ROWS[i % 40], metadata={"text": "x" * 2000}) for i in range(100)])
    wal_bytes = (store.index_dir / "catalog.sqlite-wal").stat().st_size
    with files_limited_to(wal_bytes + 50_000), pytest.raises(DiskFull, match="everything committed before is safe"):
        store.commit(many)
    assert reader.refresh() == store.refresh() == 1
    assert pictures_found(store).keys() == pictures_found(reader).keys() == {"a"}
    assert store.commit(many).generation == 2
    assert verify(store.index_dir).is_whole
    reader.close()


def test_a_disk_that_fills_up_during_sealing_loses_nothing_and_seals_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", 200)
    rows = unit_rows(201, 1024, seed=0)
    store = new_store(tmp_path / "index", dim=1024)
    with store.job("index"):  # ends with an empty log
        store.commit(Changes(puts=[put(f"k{i}", rows[i]) for i in range(199)]))
    with files_limited_to(200_000), pytest.raises(DiskFull, match=r"segments/.*free some space and run again"):
        store.commit(Changes(puts=[put("k199", rows[199])]))
    assert list((store.index_dir / "segments").iterdir()) == []
    assert store.snapshot.generation == 2
    assert verify(store.index_dir).is_whole
    store.commit(Changes(puts=[put("k200", rows[200])]))
    assert len(store.snapshot.segments) == 1
    assert min(own_scores(store, {f"k{i}": row for i, row in enumerate(rows)}).values()) > 0.999
    store.close()


def test_a_picture_that_does_not_fit_on_the_disk_leaves_nothing_behind(store: IndexStore) -> None:
    with files_limited_to(10_000), pytest.raises(DiskFull):
        store.keep(bytes(20_000))
    assert [path for path in (store.index_dir / "pictures").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("size_bytes", [0, 5_000, 30_000])
def test_a_disk_too_full_for_a_new_index_is_left_as_it_was(tmp_path: Path, size_bytes: int) -> None:
    with files_limited_to(size_bytes), pytest.raises(DiskFull):
        new_store(tmp_path / "index")
    assert [path.name for path in (tmp_path / "index").iterdir()] in ([], ["seal.lock"])
    new_store(tmp_path / "index").close()


def test_a_disk_too_full_for_a_backup_is_left_as_it_was(store: IndexStore, tmp_path: Path) -> None:
    with files_limited_to(20_000), pytest.raises(DiskFull):
        backup(store.index_dir, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
