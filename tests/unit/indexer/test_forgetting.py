"""What was removed or replaced leaves the index at last, and who slept through it begins anew."""

import time

import numpy as np
import pytest
from test_kept import make_old

import indexer.forgetting
import indexer.sealing
from indexer.changes import Attributes, Changes
from indexer.errors import GenerationForgotten
from indexer.feedback import Judgement
from indexer.forgetting import Forgotten
from indexer.integrity import verify
from indexer.kept import ORPHAN_AGE_S
from indexer.settings import SearchSettings
from indexer.store import IndexStore
from vectors import pictures_found, put, query_catalog, unit_rows

ROWS = unit_rows(40, 8, seed=0)


def count(store: IndexStore, table: str) -> int:
    rows: int = query_catalog(store.index_dir, f"SELECT count(*) FROM {table}")[0][0]
    return rows


def forget(store: IndexStore, before_ns: int | None = None) -> Forgotten:
    with store.job("prune"):
        return store.forget_removed(time.time_ns() if before_ns is None else before_ns)


def changed_for_long(store: IndexStore) -> None:
    """Twelve pictures, of which two are removed, three replaced and one described anew, many times."""
    store.commit(Changes(puts=[put(f"k{i}", ROWS[i], metadata={"n": i}) for i in range(12)]))
    for turn in range(10):
        store.commit(Changes(puts=[put(f"k{i}", ROWS[12 + turn + i]) for i in range(3)]))
        store.commit(Changes(attributes={"k5": Attributes("p", None, {"turn": turn})}))
    store.commit(Changes(removes={"k6": -1, "k7": -1}))


@pytest.mark.parametrize("seal_rows", [4, 1000], ids=["in segments", "in the catalog"])
def test_only_what_is_there_stays(store: IndexStore, monkeypatch: pytest.MonkeyPatch, seal_rows: int) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", seal_rows)
    monkeypatch.setattr(indexer.forgetting, "_ROWS_AT_ONCE", 7)
    changed_for_long(store)
    before = pictures_found(store)
    found = store.search(ROWS, 5)
    assert forget(store) == Forgotten(pictures=32, versions=42, generations=21)
    assert [count(store, table) for table in ("pictures", "attributes", "embeddings")] == [10, 10, 10]
    assert pictures_found(store) == before
    np.testing.assert_allclose(store.search(ROWS, 5).scores, found.scores, atol=1e-6)
    assert store.snapshot.generation == 22
    assert verify(store.index_dir).problems == []
    assert forget(store) == Forgotten(0, 0, 0)


def test_what_was_there_at_that_time_stays(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0]), put("b", ROWS[1])]))
    store.commit(Changes(removes={"a": -1}))
    then_ns, then = time.time_ns(), store.snapshot
    store.commit(Changes(removes={"b": -1}, puts=[put("c", ROWS[2])]))
    assert forget(store, then_ns).pictures == 1
    assert pictures_found(store, then).keys() == {"b"}
    assert pictures_found(store).keys() == {"c"}
    assert forget(store, 0) == Forgotten(0, 0, 0)


def test_a_reader_that_slept_through_it_is_told_and_begins_anew(store: IndexStore, reader: IndexStore) -> None:
    store.commit(Changes(puts=[put(f"k{i}", ROWS[i], metadata={"n": i}) for i in range(6)]))
    reader.refresh()
    assert reader.search(ROWS[:1], 9, where="n >= 0").ids[0].tolist().count(-1) == 3
    asleep = reader.snapshot
    store.commit(Changes(removes={"k0": -1, "k1": -1}))
    store.commit(Changes(attributes={"k2": Attributes(None, None, {"n": -1})}))
    forget(store)
    with pytest.raises(
        GenerationForgotten, match="generation 1 was pruned from the index, the oldest that is left is 3"
    ):
        pictures_found(reader, asleep)
    assert reader.ids_of(asleep, ["k3"]).keys() == {"k3"}
    with pytest.raises(GenerationForgotten):
        reader.ids_of(asleep, ["k3", "k0"])
    reader.refresh()
    assert reader.ids_of(reader.snapshot, ["k3", "k0"]).keys() == {"k3"}
    assert pictures_found(reader).keys() == {"k2", "k3", "k4", "k5"}
    assert reader.search(ROWS[:1], 9).ids[0].tolist().count(-1) == 5
    meeting = np.flatnonzero(reader.meeting(reader.snapshot, "n >= 0")).tolist()
    assert meeting == sorted(pictures_found(reader)[key].id for key in ("k3", "k4", "k5"))
    with pytest.raises(GenerationForgotten):
        IndexStore(store.index_dir).meeting(asleep, "n >= 0")


def test_a_reader_with_lists_of_its_own_begins_anew(store: IndexStore, reader: IndexStore) -> None:
    store.commit(Changes(puts=[put(f"k{i}", ROWS[i]) for i in range(20)]))
    with store.job("compact"):
        store.compact()
    reader.refresh()
    store.commit(Changes(removes={f"k{i}": -1 for i in range(5)}))
    forget(store)
    store.commit(Changes(puts=[put("new", ROWS[30])]))
    reader.refresh()
    assert pictures_found(reader).keys() == {*(f"k{i}" for i in range(5, 20)), "new"}
    assert len(reader.snapshot.segments[0].segment.ids) == 15


def test_kept_pictures_go_with_their_rows(store: IndexStore) -> None:
    paths = [store.keep(content) for content in (b"first", b"second")]
    for path in paths:
        store.commit(Changes(puts=[put("k", ROWS[0], path=path)]))
        make_old(store.index_dir / path)
    forget(store)
    assert [(store.index_dir / path).exists() for path in paths] == [False, True]
    assert ORPHAN_AGE_S > 60


def test_what_feedback_names_stays(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0]), put("b", ROWS[1])]))
    store.record_feedback([Judgement("h", "/q", "a", True)])
    store.commit(Changes(removes={"a": -1, "b": -1}))
    assert forget(store).pictures == 1
    assert store.feedback() == ([], 1)
    assert verify(store.index_dir).problems == []


def test_the_way_back_to_a_former_model_stays(store: IndexStore) -> None:
    store.commit(Changes(puts=[put(f"k{i}", ROWS[i]) for i in range(4)]))
    former = store.space
    other = store.open_space(model_name="n", model_fingerprint="g", dim=8)
    store.fill(other, {picture.id: ROWS[20] for picture in store.pictures_without_vector(other)})
    store.make_live(other, "refresh", lambda rest: {})
    store.commit(Changes(removes={"k0": -1}))
    switches = store.switches()
    forget(store)
    assert [(one.generation, one.space) for one in store.switches()] == [
        (one.generation, one.space) for one in switches
    ]
    assert count(store, "pictures") == 3
    store.make_live(former, "rollback", lambda rest: {})
    assert pictures_found(store).keys() == {"k1", "k2", "k3"}


def test_settings_of_the_search_stay_and_leave_this_one_alone(store: IndexStore) -> None:
    store.commit(Changes(puts=[put(f"k{i}", ROWS[i]) for i in range(8)]))
    settings = SearchSettings("exact", 0.5, 10**9)
    with store.job("compact"):
        store.compact(settings)
    store.commit(Changes(removes={"k0": -1}))
    forget(store)
    assert store.settings() == settings
    with store.job("compact"):
        store.compact(SearchSettings("exact"))
    assert query_catalog(store.index_dir, "SELECT value FROM settings WHERE name = 'oldest_generation'") == [("2",)]
    assert store.settings() == SearchSettings("exact")


def test_being_cut_off_loses_nothing(store: IndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.forgetting, "_ROWS_AT_ONCE", 3)
    changed_for_long(store)
    before = pictures_found(store)
    monkeypatch.setitem(indexer.forgetting._STEPS, "pictures", "SELECT cut off")
    with pytest.raises(Exception, match="catalog cannot be read"):
        forget(store)
    monkeypatch.undo()
    assert pictures_found(store) == before
    assert forget(store).pictures == 32
    assert pictures_found(store) == before
