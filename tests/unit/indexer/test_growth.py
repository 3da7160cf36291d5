"""What comes after the lists were learned is found as what was there before, by whoever searches, meanwhile too."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import indexer.growth
import indexer.open_segment
import indexer.sealing
import indexer.snapshot
from damage import flip_in_the_middle
from indexer.changes import Changes
from indexer.integrity import salvage
from indexer.settings import SearchSettings
from indexer.snapshot import Snapshot
from indexer.store import IndexStore
from indexer.vectors import NO_ID
from vectors import clustered_rows, new_store, put

DIM = 32
BASE = 1000
SEAL_ROWS = 100
ROWS = clustered_rows(3000, DIM, seed=0)
REMOVED = [1, 3, 5, BASE + 7, BASE + 40, BASE + 270, BASE + 400]  # in one test or another
LATE = 2500
QUERIES = np.concatenate([clustered_rows(20, DIM, seed=100), ROWS[[*REMOVED, LATE]]])
ONE_LIST = SearchSettings("IVF1,SQfp16", 0.99)  # all of it is looked into: it finds what there is


@pytest.fixture(autouse=True)
def _grow_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", SEAL_ROWS)
    monkeypatch.setattr(indexer.growth, "_LEAST_TO_BEGIN", 20)
    monkeypatch.setattr(indexer.growth, "_LEAST_ROOM", 50)
    monkeypatch.setattr(indexer.open_segment, "_MOST_OF_LISTS", 1000)
    monkeypatch.setattr(indexer.open_segment, "_MOST_POOLED", 1000)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[IndexStore]:
    """A thousand pictures behind one list."""
    store = new_store(tmp_path / "index", DIM)
    add(store, 0, BASE)
    with store.job("compact"):
        store.compact(ONE_LIST)
    remove(store, 1)
    yield store
    store.close()


@pytest.fixture
def reader(writer: IndexStore) -> Iterator[IndexStore]:
    """The same, opened and searched."""
    store = IndexStore(writer.index_dir)
    store.search(QUERIES, 10)
    yield store
    store.close()


def add(store: IndexStore, start: int, stop: int) -> None:
    store.commit(Changes(puts=[put(f"k{row}", ROWS[row], metadata={"odd": row % 2}) for row in range(start, stop)]))


def remove(store: IndexStore, *rows: int) -> None:
    store.commit(Changes(removes={f"k{row}": -1 for row in rows}))


def assert_same_as_compared_one_by_one(store: IndexStore, snapshot: Snapshot | None = None) -> None:
    """Answers of a store, or of a generation that it had, are those of everything compared one by one."""
    snapshot = snapshot or store.snapshot
    assert snapshot.grown is not None
    ids, vectors = (np.concatenate(parts) for parts in zip(*snapshot.blocks(), strict=True))
    allowed = store.meeting(snapshot, {"odd": 1})
    for k in (1, 10, 2100):
        for chosen, mask in ((np.ones(len(ids), bool), None), (allowed[ids], allowed)):
            scores = np.full((len(QUERIES), k), -np.inf)
            scores[:, : np.count_nonzero(chosen)] = np.sort(QUERIES @ vectors[chosen].T, axis=1)[:, ::-1][:, :k]
            found = snapshot.search(QUERIES, k, allowed=mask)
            np.testing.assert_allclose(found.scores, scores, atol=1e-4)  # codes are rounded: near ties change places
            assert set(found.ids.flat) - {NO_ID} <= set(ids[chosen].tolist())
            assert all(len(set(row) - {NO_ID}) == min(k, np.count_nonzero(chosen)) for row in found.ids.tolist())


def test_newcomers_are_found_and_what_is_removed_is_not(writer: IndexStore, reader: IndexStore) -> None:
    add(writer, BASE, BASE + 250)  # sealed, and then 30 that wait in the catalog
    add(writer, BASE + 250, BASE + 280)
    remove(writer, BASE + 40, BASE + 270)
    reader.refresh()
    assert_same_as_compared_one_by_one(reader)
    pinned = reader.snapshot
    remove(writer, 3, BASE + 7, BASE + 271)
    writer.commit(Changes(puts=[put("k5", ROWS[2000], metadata={"odd": 1})]))
    reader.refresh()
    assert_same_as_compared_one_by_one(reader)
    assert_same_as_compared_one_by_one(reader, pinned)
    assert reader.snapshot.grown is not None
    assert len(reader.snapshot.grown.ids) == BASE + 279


def test_lists_that_are_no_longer_the_largest_are_given_up(writer: IndexStore, reader: IndexStore) -> None:
    add(writer, BASE, BASE + 400)
    reader.refresh()
    remove(writer, *range(2, 800))
    reader.refresh()
    assert reader.snapshot.grown is None
    remove(writer, *range(BASE, BASE + 300))
    reader.refresh()
    assert_same_as_compared_one_by_one(reader)


def test_who_only_writes_needs_no_lists(writer: IndexStore) -> None:
    add(writer, BASE, BASE + 250)
    assert writer.snapshot.grown is None
    writer.search(QUERIES, 10)
    add(writer, BASE + 250, BASE + 251)
    assert_same_as_compared_one_by_one(writer)


def test_so_many_at_once_come_in_by_and_by(writer: IndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.growth, "_MOST_AT_ONCE", SEAL_ROWS - 1)
    for start in range(BASE, BASE + 400, SEAL_ROWS):
        add(writer, start, start + SEAL_ROWS)
    remove(writer, BASE + 270)
    reader = IndexStore(writer.index_dir)
    reader.search(QUERIES, 10)
    left = []
    for row in range(BASE + 400, BASE + 405):
        add(writer, row, row + 1)
        reader.refresh()
        assert_same_as_compared_one_by_one(reader)
        assert reader.snapshot.grown is not None
        left.append((len(reader.snapshot.grown.segments), len(reader.snapshot.grown.tail.ids)))
        if row == BASE + 401:
            remove(writer, BASE + 400)
    assert left == [(3, 1), (2, 2), (1, 2), (0, 0), (0, 0)]
    reader.close()


def test_who_opens_an_index_with_newcomers_brings_them_in_without_news(
    writer: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.growth, "_MOST_AT_ONCE", SEAL_ROWS)
    for start in range(BASE, BASE + 350, 50):
        add(writer, start, start + 50)
    reader = IndexStore(writer.index_dir)
    assert not reader.is_growing
    reader.search(QUERIES, 10)
    refreshes = 0
    while reader.is_growing:
        reader.refresh()
        refreshes += 1
        assert_same_as_compared_one_by_one(reader)
    assert refreshes == 3
    assert reader.snapshot.grown is not None
    assert (len(reader.snapshot.grown.segments), len(reader.snapshot.grown.tail.ids)) == (0, 0)
    reader.close()


def test_a_large_commit_comes_in_by_and_by(
    writer: IndexStore, reader: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.growth, "_MOST_AT_ONCE", 30)
    add(writer, BASE, BASE + 80)
    places = []
    for _ in range(3):
        reader.refresh()
        assert_same_as_compared_one_by_one(reader)
        places.append((len(reader.snapshot.grown.ids) - BASE, reader.is_growing))  # type: ignore[union-attr]
    assert places == [(30, True), (60, True), (80, False)]


def test_a_segment_that_is_too_large_stays_outside(
    writer: IndexStore, reader: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.growth, "_MOST_OF_A_SEGMENT", 200)
    add(writer, BASE, BASE + 250)
    add(writer, BASE + 250, BASE + 350)
    reader.refresh()
    assert_same_as_compared_one_by_one(reader)
    assert reader.snapshot.grown is not None
    assert [one.images for one in reader.snapshot.grown.segments] == [250]
    assert not reader.is_growing


def test_a_large_segment_of_which_some_came_before_it_was_sealed_is_not_found_twice(
    writer: IndexStore, reader: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.growth, "_MOST_OF_A_SEGMENT", 200)
    add(writer, BASE, BASE + 50)
    reader.refresh()
    assert_same_as_compared_one_by_one(reader)
    add(writer, BASE + 50, BASE + 400)
    reader.refresh()
    assert len(reader.snapshot.segments) == 2
    assert_same_as_compared_one_by_one(reader)


def test_what_is_sealed_together_with_older_pictures_is_not_found_twice(writer: IndexStore, reader: IndexStore) -> None:
    add(writer, BASE, BASE + 60)
    indexer.sealing.seal(writer._catalog, writer.index_dir, writer.space, least_rows=1)
    add(writer, BASE + 60, BASE + 160)
    flip_in_the_middle(writer.snapshot.segments[1].segment.path)
    with writer.job("verify"):
        salvage(writer.index_dir)  # the sixty are in the catalog again
        (lost,) = writer.pictures_without_vector()
        writer.commit(Changes(renewals={lost.id: ROWS[int(lost.key[1:])]}))
    add(writer, BASE + 160, BASE + 190)
    reader.refresh()
    pinned = reader.snapshot
    assert pinned.grown is not None
    assert len(pinned.grown.tail.ids) == 59  # behind which others came in
    assert_same_as_compared_one_by_one(reader)
    add(writer, BASE + 190, BASE + 200)
    reader.refresh()
    assert_same_as_compared_one_by_one(reader)
    assert_same_as_compared_one_by_one(reader, pinned)
    remove(writer, *range(BASE, BASE + 60))  # of those that were sealed together all have been in the lists
    reader.refresh()
    assert_same_as_compared_one_by_one(reader)


def test_a_picture_that_comes_while_others_are_sealed_is_found(
    writer: IndexStore, reader: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = indexer.sealing._seal_rows

    def seal_late(*arguments: Any) -> None:
        monkeypatch.setattr(indexer.sealing, "_seal_rows", seal)
        other = IndexStore(writer.index_dir)
        other.commit(Changes(puts=[put("late", ROWS[LATE], metadata={"odd": 1})]))
        other.close()
        reader.refresh()  # takes it in together with those that are being sealed
        seal(*arguments)

    add(writer, BASE, BASE + 90)
    monkeypatch.setattr(indexer.sealing, "_seal_rows", seal_late)
    add(writer, BASE + 90, BASE + 130)
    reader.refresh()
    assert (len(reader.snapshot.segments), len(reader.snapshot.tail.ids)) == (2, 1)
    assert_same_as_compared_one_by_one(reader)


def test_after_a_compaction_it_begins_anew(writer: IndexStore, reader: IndexStore) -> None:
    add(writer, BASE, BASE + 150)
    reader.refresh()
    pinned = reader.snapshot
    with writer.job("compact"):
        writer.compact()
    reader.refresh()
    assert reader.snapshot.grown is None
    add(writer, BASE + 150, BASE + 200)
    reader.refresh()
    assert_same_as_compared_one_by_one(reader)
    assert_same_as_compared_one_by_one(reader, pinned)  # whose files are gone


def test_lists_that_are_learned_anew_take_the_place_of_others(writer: IndexStore, reader: IndexStore) -> None:
    add(writer, BASE, BASE + 50)
    reader.refresh()
    assert_same_as_compared_one_by_one(reader)
    remove(writer, *range(BASE, BASE + 50))
    for settings in (ONE_LIST, SearchSettings("IVF2,SQfp16", 0.99)):  # to drop what is removed, and then the lists
        with writer.job("compact"):
            writer.compact(settings)
        reader.refresh()
        add(writer, BASE, BASE + 50)
        reader.refresh()
        assert_same_as_compared_one_by_one(reader)
        assert reader.snapshot.grown.lists._index.nlist == int(settings.recipe[3])  # type: ignore[union-attr]
        remove(writer, *range(BASE, BASE + 50))


def test_pictures_that_are_replaced_again_and_again_do_not_fill_the_memory(
    writer: IndexStore, reader: IndexStore
) -> None:
    pinned = []
    for _ in range(28):
        add(writer, BASE, BASE + 100)
        reader.refresh()
        assert reader.snapshot.grown is not None
        assert len(reader.snapshot.grown.ids) <= 2 * (BASE + 200)
        pinned.append(reader.snapshot)
    assert len({id(one.grown.lists) for one in pinned}) == 3  # type: ignore[union-attr]
    for snapshot in (pinned[11], pinned[12], pinned[-1]):
        assert_same_as_compared_one_by_one(reader, snapshot)


@pytest.mark.parametrize("is_added", [False, True])
def test_lists_go_on_after_an_interruption(writer: IndexStore, reader: IndexStore, *, is_added: bool) -> None:
    add(writer, BASE, BASE + 50)
    reader.refresh()
    assert_same_as_compared_one_by_one(reader)
    index = reader.snapshot.grown.lists._index  # type: ignore[union-attr]
    add_rows = index.add

    def interrupt(rows: Any) -> None:
        index.add = add_rows
        if is_added:
            add_rows(rows)
        raise KeyboardInterrupt

    index.add = interrupt
    add(writer, BASE + 50, BASE + 150)
    with pytest.raises(KeyboardInterrupt):
        reader.refresh()
    assert_same_as_compared_one_by_one(reader)
    add(writer, BASE + 150, BASE + 180)
    remove(writer, BASE + 170)
    reader.refresh()
    assert_same_as_compared_one_by_one(reader)


def test_lists_that_are_damaged_cost_time_alone(
    writer: IndexStore, reader: IndexStore, caplog: pytest.LogCaptureFixture
) -> None:
    add(writer, BASE, BASE + 150)
    flip_in_the_middle(writer.index_dir / "segments" / str(writer.snapshot.segments[0].approximation_file))
    reader.refresh()
    assert reader.snapshot.grown is None
    assert "differs from its checksum" in caplog.text
    assert not reader.is_growing
    ids, vectors = (np.concatenate(parts) for parts in zip(*reader.snapshot.blocks(), strict=True))
    assert len(ids) == BASE + 149
    best = np.max(QUERIES @ vectors.T, axis=1)
    np.testing.assert_allclose(reader.search(QUERIES, 1).scores[:, 0], best, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "name"), [(indexer.growth, "read_into_memory"), (indexer.snapshot, "open_approximation")]
)
def test_the_catalog_can_be_read_while_files_are(
    writer: IndexStore, reader: IndexStore, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
) -> None:
    read = getattr(module, name)
    answers: list[object] = []

    def read_late(*arguments: Any) -> Any:
        other = threading.Thread(target=lambda: answers.append(reader.pictures(reader.snapshot, [7])), daemon=True)
        other.start()
        other.join(10)
        assert len(answers) == 1
        return read(*arguments)

    if name == "open_approximation":
        with writer.job("compact"):
            writer.compact(SearchSettings("IVF2,SQfp16", 0.99))
    add(writer, BASE, BASE + 50)
    monkeypatch.setattr(module, name, read_late)
    reader.refresh()
    assert len(answers) == 1


def test_searches_go_on_while_pictures_come_in(writer: IndexStore, reader: IndexStore) -> None:
    add(writer, BASE, BASE + 50)
    reader.refresh()
    wrong: list[object] = []
    is_over = threading.Event()

    def search() -> None:
        while not is_over.is_set():
            snapshot = reader.snapshot
            found = snapshot.search(ROWS[BASE : BASE + 50], 1)
            if not np.allclose(found.scores, 1, atol=2e-3) or snapshot.grown is None:
                wrong.append(found)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for start in range(BASE + 50, BASE + 1050, 20):  # the room is made anew several times
        add(writer, start, start + 20)
        reader.refresh()
    is_over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert_same_as_compared_one_by_one(reader)
