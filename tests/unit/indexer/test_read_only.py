"""An index that this user may not write is searched, and never changed; other users' writing is noticed."""

from pathlib import Path

import pytest

from indexer.changes import Changes
from indexer.integrity import verify
from indexer.store import IndexStore
from unprivileged import run_unprivileged
from vectors import put, unit_rows

ROWS = unit_rows(40, 8, seed=0)


@pytest.fixture
def store(store: IndexStore) -> IndexStore:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    return store


PRELUDE = """
import os, sys
sys.path.append("tests")
from pathlib import Path
from indexer.changes import Changes
from indexer.errors import IndexReadOnly
from indexer.integrity import verify
from indexer.store import IndexStore
from vectors import new_store, pictures_found, put, unit_rows
folder = Path(sys.argv[1])

def close_to_writing(mode=0o555):
    os.chmod(folder, mode)
    for path in folder.iterdir():
        os.chmod(path, mode if path.is_dir() else mode & 0o666)

def refused(use):
    try:
        use()
        print("not refused")
    except IndexReadOnly as error:
        print(error)
"""


def said_by_unprivileged(code: str, store: IndexStore) -> list[str]:
    store.close()
    child = run_unprivileged(PRELUDE + code, store.index_dir)
    store.index_dir.chmod(0o755)
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()


def test_an_index_in_a_read_only_folder_is_searched_and_verified(store: IndexStore) -> None:
    code = """
close_to_writing()
print(sorted(os.listdir(folder)) == (before := sorted(os.listdir(folder))))
print(*pictures_found(IndexStore(folder)), verify(folder).problems, sorted(os.listdir(folder)) == before)
"""
    assert said_by_unprivileged(code, store) == ["True", "a [] True"]


@pytest.mark.parametrize(
    "write",
    [
        "store.commit(Changes(removes={'a': -1}))",
        "store.keep(b'picture')",
        "store.source('/g', 'folder', '')",
        "store.job('index').__enter__()",
    ],
    ids=["commit", "keep", "source", "job"],
)
def test_a_change_to_a_read_only_index_is_refused_by_name(store: IndexStore, write: str) -> None:
    code = f"close_to_writing()\nstore = IndexStore(folder)\nrefused(lambda: {write})\nprint(*pictures_found(store))"
    said, still_there = said_by_unprivileged(code, store)
    assert str(store.index_dir) in said
    assert "permission on" in said
    assert still_there == "a"


def test_a_read_only_parent_refuses_a_new_index(store: IndexStore) -> None:
    code = "close_to_writing()\nrefused(lambda: new_store(folder / 'new'))"
    (said,) = said_by_unprivileged(code, store)
    assert "Permission denied; give this user write permission" in said


def test_a_read_only_index_that_a_writer_left_open_is_refused_with_the_remedy(store: IndexStore) -> None:
    code = "(folder / 'catalog.sqlite-wal').touch()\nclose_to_writing()\nrefused(lambda: IndexStore(folder))"
    (said,) = said_by_unprivileged(code, store)
    assert f"index {store.index_dir} is being written by another user, or was left open by a killed one" in said
    assert "let a user who has it run `retrieve info` once" in said


def test_a_read_only_reader_notices_a_writer_and_then_what_it_wrote(store: IndexStore) -> None:
    code = """
close_to_writing()
reader = IndexStore(folder)
close_to_writing(0o777)
with IndexStore(folder).job("index"):
    writer = IndexStore(folder)
    writer.commit(Changes(puts=[put("b", unit_rows(1, 8, seed=1)[0])]))
    print(len(reader.search(unit_rows(1, 8, seed=1), 1).ids))
    refused(lambda: reader.pictures(reader.snapshot, [1]))
"""
    code = code.replace("with IndexStore(folder).job", "first = IndexStore(folder)\nwith first.job") + (
        "first.close()\nwriter.close()\nprint(reader.refresh(), *sorted(pictures_found(reader)))\n"
    )
    answers, said, after = said_by_unprivileged(code, store)
    assert answers == "1"
    assert "is being written by another user" in said
    assert after == "2 a b"


def test_a_read_only_index_is_backed_up(store: IndexStore, tmp_path: Path) -> None:
    own = store.open_space(model_name="models/own", model_fingerprint="g", dim=8)
    store.fill(own, {one.id: ROWS[1] for one in store.pictures_without_vector(own)})
    store.make_live(own, "refresh", lambda rest: {})
    (store.index_dir / "models" / "own").mkdir(parents=True)
    (store.index_dir / "models" / "own" / "config.json").touch()
    code = "close_to_writing()\nfrom indexer.backup import backup\nprint(backup(folder, folder.parent / 'copy').images)"
    assert said_by_unprivileged(code, store) == ["1"]
    assert verify(tmp_path / "copy").is_whole
    assert (tmp_path / "copy" / "models" / "own" / "config.json").exists()
