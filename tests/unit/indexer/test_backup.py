"""A copy of one generation, whole or not there."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import indexer.backup
import indexer.sealing
from indexer.backup import backup
from indexer.changes import Changes
from indexer.errors import IndexDamaged, IndexExists, IndexNotFound
from indexer.integrity import verify
from indexer.settings import SearchSettings
from indexer.store import IndexStore
from vectors import new_store, pictures_found, put, unit_rows

ROWS = unit_rows(20, 8, seed=0)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexStore]:
    """With a sealed segment, an unsealed vector, a kept picture and a removed one."""
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", 8)
    store = new_store(tmp_path / "index")
    store.commit(Changes(puts=[put(f"k{i}", ROWS[i], metadata={"price": i}) for i in range(8)]))
    store.commit(
        Changes(puts=[put("kept", ROWS[8], path=store.keep(b"one")), put("gone", ROWS[9], path=store.keep(b"two"))])
    )
    store.commit(Changes(removes={"gone": -1, "k0": -1}))
    yield store
    store.close()


def test_a_backup_is_whole_and_answers_the_same(store: IndexStore, tmp_path: Path) -> None:
    made = backup(store.index_dir, tmp_path / "copy")
    found = verify(tmp_path / "copy")
    assert (found.problems, found.orphans) == ([], [])
    assert (made.generation, made.images) == (found.generation, found.images) == (3, 8)
    copy = IndexStore(tmp_path / "copy")
    np.testing.assert_array_equal(copy.search(ROWS, 5).ids, store.search(ROWS, 5).ids)
    assert {key: one.attributes for key, one in pictures_found(copy).items()} == {
        key: one.attributes for key, one in pictures_found(store).items()
    }
    copy.close()


def test_a_backup_has_the_kept_pictures_that_are_still_in_use(store: IndexStore, tmp_path: Path) -> None:
    backup(store.index_dir, tmp_path / "copy")
    copies = [path.read_bytes() for path in (tmp_path / "copy" / "pictures").rglob("*") if path.is_file()]
    assert copies == [b"one"]


def test_a_backup_and_its_index_go_their_own_ways(store: IndexStore, tmp_path: Path) -> None:
    backup(store.index_dir, tmp_path / "copy")
    copy = IndexStore(tmp_path / "copy")
    copy.commit(Changes(removes={"k1": -1}))
    store.commit(Changes(puts=[put("new", ROWS[10])]))
    assert "k1" in pictures_found(store)
    assert "new" not in pictures_found(copy)
    copy.close()


def test_a_backup_tells_its_size_and_what_is_in_it(store: IndexStore, tmp_path: Path) -> None:
    made = backup(store.index_dir, tmp_path / "copy")
    size_bytes = sum(path.stat().st_size for path in (tmp_path / "copy").rglob("*") if path.is_file())
    assert made.to_dict() == {
        "path": str(tmp_path / "copy"),
        "generation": 3,
        "images": 8,
        "size_bytes": size_bytes,
    }


def test_a_backup_is_one_folder_without_logs(store: IndexStore, tmp_path: Path) -> None:
    backup(store.index_dir, tmp_path / "new" / "copy")
    assert sorted(path.name for path in (tmp_path / "new" / "copy").iterdir()) == [
        *("catalog.sqlite", "pictures", "segments"),
    ]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["copy"]
    with closing(sqlite3.connect(tmp_path / "new" / "copy" / "catalog.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_backup_replaces_nothing(store: IndexStore, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine").touch()
    with pytest.raises(IndexExists, match="copy exists already; a backup makes a new folder"):
        backup(store.index_dir, tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["mine"]


@pytest.mark.parametrize("place", ["copy", "pictures/copy", "segments/../copy", "link/copy"])
def test_a_backup_does_not_lie_in_its_index(store: IndexStore, tmp_path: Path, place: str) -> None:
    (store.index_dir / "link").symlink_to(store.index_dir / "pictures")
    before = sorted(store.index_dir.rglob("*"))
    with pytest.raises(IndexExists, match=r"copy lies in the index .* itself; name a folder elsewhere"):
        backup(store.index_dir, store.index_dir / place)
    assert sorted(store.index_dir.rglob("*")) == before


def test_an_approximation_that_is_replaced_while_it_is_copied_is_not_in_the_backup(
    store: IndexStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(Changes(puts=[put(f"n{i}", row) for i, row in enumerate(unit_rows(40, 8, seed=1))]))
    with store.job("compact"):
        store.compact(SearchSettings("HNSW4,Flat", 0.5))
    real, (former,) = indexer.backup._copy, (one.approximation_file for one in store.snapshot.segments)

    def copy(source: Path, target: Path) -> None:
        if source.name == former:
            monkeypatch.setattr(indexer.backup, "_copy", real)
            with store.job("compact"):
                store.compact(SearchSettings("HNSW8,Flat", 0.5))
        real(source, target)

    monkeypatch.setattr(indexer.backup, "_copy", copy)
    backup(store.index_dir, tmp_path / "copy")
    assert verify(tmp_path / "copy").problems == []
    with closing(IndexStore(tmp_path / "copy")) as made:
        assert made.recipe()[0] == "HNSW8,Flat"


def test_without_an_index_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFound):
        backup(tmp_path / "nothing", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_an_index_with_a_missing_file_is_not_backed_up_in_part(store: IndexStore, tmp_path: Path) -> None:
    (segment,) = (store.index_dir / "segments").iterdir()
    segment.unlink()
    with pytest.raises(IndexDamaged, match=rf"{segment} is missing; run `retrieve verify --repair`"):
        backup(store.index_dir, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.fixture
def moved(store: IndexStore) -> IndexStore:
    """The same with a former model that is kept in it, and one that is live."""
    for number, name in enumerate(("models/former", "models/live")):
        folder = store.index_dir / name
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(name.encode())
        space = store.open_space(model_name=name, model_fingerprint=f"f{number}", dim=8)
        store.fill(space, {id_: ROWS[id_] for id_ in pictures_by_id(store)})
        store.make_live(space, "refresh", lambda rest: {})
    return store


def pictures_by_id(store: IndexStore) -> list[int]:
    return [one.id for one in pictures_found(store).values()]


def drop(store: IndexStore, name: str) -> None:
    """As `retrieve prune` does it."""
    store.empty_space(next(space for space in store.spaces() if space.model_name == name))
    shutil.rmtree(store.index_dir / name, ignore_errors=True)


def test_a_backup_has_the_models_of_the_vectors_that_are_there(moved: IndexStore, tmp_path: Path) -> None:
    backup(moved.index_dir, tmp_path / "both")
    assert (tmp_path / "both" / "models" / "former" / "weights").read_bytes() == b"models/former"
    drop(moved, "models/former")
    backup(moved.index_dir, tmp_path / "one")
    assert [path.name for path in (tmp_path / "one" / "models").iterdir()] == ["live"]
    assert verify(tmp_path / "one").is_whole


@pytest.mark.parametrize("at", range(4))
def test_what_is_dropped_while_it_is_copied_is_not_in_the_backup(
    moved: IndexStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    copied: list[Path] = []
    real = indexer.backup._copy

    def copy(source: Path, target: Path) -> None:
        if len(copied) == at:
            drop(moved, "models/former")
        copied.append(source)
        real(source, target)

    monkeypatch.setattr(indexer.backup, "_copy", copy)
    made = backup(moved.index_dir, tmp_path / "copy")
    found = verify(tmp_path / "copy")
    assert (found.problems, found.orphans) == ([], [])
    assert made.images == 8
    copy_of_models = [path.name for path in (tmp_path / "copy" / "models").iterdir()]
    assert copy_of_models in (["live"], ["former", "live"], ["live", "former"])
    for name in copy_of_models:
        assert (tmp_path / "copy" / "models" / name / "weights").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
