"""Many segments become one, faster to search, and whoever searches or writes meanwhile notices nothing."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import indexer.compaction
import indexer.recipe
import indexer.sealing
from damage import flip_in_the_middle
from indexer.backup import backup
from indexer.changes import Attributes, Changes
from indexer.errors import IndexBusy, RecipeError
from indexer.integrity import salvage, verify
from indexer.settings import SearchSettings
from indexer.store import IndexStore
from vectors import clustered_rows, exact_search, new_store, own_scores, pictures_found, put, query_catalog

DIM = 32
SEAL_ROWS = 200
ROWS = clustered_rows(2000, DIM, seed=0)
QUERIES = clustered_rows(50, DIM, seed=100)
LISTS = SearchSettings("IVF16,SQ8", 0.9)
GRAPH = SearchSettings("HNSW8,SQ8", 0.9)
Content = dict[str, NDArray[np.float32]]


@pytest.fixture(autouse=True)
def _seal_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", SEAL_ROWS)


@pytest.fixture
def store(tmp_path: Path) -> IndexStore:
    """Ten segments of 200 pictures."""
    store = new_store(tmp_path / "index", DIM)
    for start in range(0, len(ROWS), SEAL_ROWS):
        add(store, start, start + SEAL_ROWS)
    assert len(store.snapshot.segments) == 10
    return store


def add(store: IndexStore, start: int, end: int) -> None:
    store.commit(Changes(puts=[put(f"k{i}", ROWS[i]) for i in range(start, end)]))


def compact(store: IndexStore, settings: SearchSettings | None = None) -> indexer.compaction.Compaction | None:
    with store.job("compact"):
        return store.compact(settings)


def everything(but: Collection[int] = ()) -> Content:
    return {f"k{i}": ROWS[i] for i in range(len(ROWS)) if i not in but}


def assert_holds(store: IndexStore, content: Content) -> None:
    """Exactly these pictures, each with its vector, and the nearest of some queries equal an exact search's."""
    scores = own_scores(store, content)
    assert min(scores.values()) > 0.999
    pictures = pictures_found(store)
    assert pictures.keys() == content.keys()
    held = {pictures[key].id: row for key, row in content.items()}
    found, expected = store.search(QUERIES, 10), exact_search(held, QUERIES, 10)
    if store.recipe()[0] == "exact":
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert np.mean(found.scores >= expected.scores[:, -1:] - 1e-5) >= 0.9
    for query, ids, row_scores in zip(QUERIES, found.ids, found.scores, strict=True):
        assert len(set(ids.tolist())) == 10
        np.testing.assert_allclose(row_scores, [query @ held[id_] for id_ in ids.tolist()], atol=2e-3)


def segment_files(store: IndexStore) -> set[str]:
    return {path.name for path in (store.index_dir / "segments").iterdir()}


def assert_whole(store: IndexStore) -> None:
    found = verify(store.index_dir)
    assert (found.problems, found.orphans) == ([], [])


@pytest.mark.parametrize("settings", [SearchSettings("exact"), LISTS, SearchSettings("SQ8"), GRAPH])
def test_segments_become_one(store: IndexStore, settings: SearchSettings) -> None:
    generation = store.snapshot.generation
    done = compact(store, settings)
    assert done is not None
    assert (done.segments, done.images, done.dropped, done.recipe) == (10, 2000, 0, settings.recipe)
    assert store.recipe() == (settings.recipe, done.ann_recall_at_10)
    assert done.ann_recall_at_10 >= (1 if settings.recipe == "exact" else settings.recall)
    assert len(store.snapshot.segments) == 1
    assert store.snapshot.generation == generation
    assert len(segment_files(store)) == 1 + (settings.recipe != "exact")
    assert_holds(store, everything())
    assert_whole(store)
    assert compact(store) is None
    store.close()
    reopened = IndexStore(store.index_dir)
    assert reopened.recipe() == (settings.recipe, done.ann_recall_at_10)
    assert_holds(reopened, everything())


@pytest.mark.parametrize("settings", [SearchSettings("exact"), LISTS])
def test_removed_pictures_go_and_never_come_back(store: IndexStore, settings: SearchSettings) -> None:
    store.commit(Changes(removes={f"k{i}": -1 for i in range(0, 2000, 3)}))
    done = compact(store, settings)
    assert done is not None
    assert (done.images, done.dropped) == (1333, 667)
    left = everything(set(range(0, 2000, 3)))
    assert_holds(store, left)
    assert query_catalog(store.index_dir, "SELECT count(*) FROM embeddings")[0][0] == 1333
    store.commit(Changes(removes={"k1": -1, "k2": -1}))
    del left["k1"], left["k2"]
    assert_holds(store, left)
    assert_holds(IndexStore(store.index_dir), left)
    assert compact(store) is not None
    assert_holds(store, left)
    assert_whole(store)


@pytest.mark.parametrize("settings", [SearchSettings("exact"), GRAPH])
def test_the_first_sealing_is_something_done(tmp_path: Path, settings: SearchSettings) -> None:
    store = new_store(tmp_path / "small", DIM)
    assert compact(store, SearchSettings("exact")) is None
    add(store, 0, SEAL_ROWS // 2 + 70)
    done = compact(store, settings)
    assert done is not None
    assert (done.segments, done.images, done.dropped, done.recipe) == (0, SEAL_ROWS // 2 + 70, 0, settings.recipe)
    assert compact(store, settings) is None
    assert_whole(store)
    store.close()


def test_everything_may_have_been_removed(store: IndexStore) -> None:
    store.commit(Changes(removes={f"k{i}": -1 for i in range(2000)}))
    assert compact(store, LISTS.__class__("exact")) is not None
    assert segment_files(store) == set()
    assert store.snapshot.images == 0
    add(store, 0, 300)
    assert_holds(store, {f"k{i}": ROWS[i] for i in range(300)})
    assert_whole(store)


def test_new_segments_are_searched_beside_until_the_next_compaction(store: IndexStore) -> None:
    store.commit(Changes(removes={f"k{i}": -1 for i in range(1000, 2000)}))
    compact(store, LISTS)
    add(store, 1000, 1400)
    add(store, 1400, 1450)  # not sealed
    assert len(store.snapshot.segments) == 2
    assert_holds(store, everything(set(range(1450, 2000))))
    store.commit(Changes(removes={"k5": -1, "k1100": -1, "k1420": -1}, attributes={"k6": Attributes("p")}))
    left = everything({5, 1100, 1420, *range(1450, 2000)})
    assert_holds(store, left)
    compact(store)
    assert len(store.snapshot.segments) == 1
    assert_holds(store, left)
    assert_whole(store)


def test_conditions_find_k_wherever_k_exist_in_approximated_segments(store: IndexStore) -> None:
    compact(store, LISTS)
    ids = {key: picture.id for key, picture in pictures_found(store).items()}
    for share in (0.002, 0.02, 0.3, 0.9):
        allowed = np.random.default_rng(1).random(2001) < share
        held = {id_: ROWS[int(key[1:])] for key, id_ in ids.items() if allowed[id_]}
        for k in (1, 10, 150):
            found, expected = store.snapshot.search(QUERIES, k, allowed=allowed), exact_search(held, QUERIES, k)
            assert (found.ids >= 0).sum(axis=1).tolist() == [min(k, len(held))] * len(QUERIES)
            assert set(found.ids.flat) - {-1} <= held.keys()
            kth = expected.scores[:, min(k, len(held)) - 1 : min(k, len(held))]
            assert np.mean(found.scores[:, : len(held)] >= kth - 1e-5) >= 0.9


def test_a_reader_holds_what_it_has_until_it_refreshes(store: IndexStore) -> None:
    reader = IndexStore(store.index_dir)
    before = reader.search(QUERIES, 10)
    pinned = reader.snapshot
    compact(store, SearchSettings("exact"))
    np.testing.assert_array_equal(reader.search(QUERIES, 10).ids, before.ids)
    reader.refresh()
    assert len(reader.snapshot.segments) == 1
    np.testing.assert_array_equal(reader.search(QUERIES, 10).ids, before.ids)
    np.testing.assert_array_equal(pinned.search(QUERIES, 10).ids, before.ids)


def test_another_recipe_leaves_the_vectors_file_as_it_is(store: IndexStore) -> None:
    compact(store, LISTS)
    reader = IndexStore(store.index_dir)
    (vectors,) = (one.segment.path for one in store.snapshot.segments)
    state = vectors.stat()
    done = compact(store, SearchSettings("SQ8", 0.9))
    assert done is not None
    assert done.segments == 1
    assert vectors.stat() == state
    assert len(segment_files(store)) == 2
    reader.refresh()
    assert reader.recipe()[0] == "SQ8"
    assert_holds(reader, everything())
    assert compact(store, SearchSettings("exact")) is not None
    assert segment_files(store) == {vectors.name}
    reader.refresh()
    assert reader.recipe()[0] == "exact"
    assert_whole(store)


def test_another_recall_is_tuned_for(store: IndexStore) -> None:
    compact(store, SearchSettings("IVF16,SQ8", 0.6))
    (low,) = (one.approximation for one in store.snapshot.segments)
    done = compact(store, SearchSettings("IVF16,SQ8", 0.995))
    (high,) = (one.approximation for one in store.snapshot.segments)
    assert done is not None
    assert low is not None
    assert high is not None
    assert done.ann_recall_at_10 >= 0.995
    assert high.file.tuning.effort > low.file.tuning.effort
    assert compact(store, SearchSettings("IVF16,SQ8", 0.995)) is None


def test_what_is_committed_during_a_compaction_stays(store: IndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    other = IndexStore(store.index_dir)
    build = indexer.compaction.build

    def build_while_others_write(*arguments: object, **named: object) -> object:
        other.commit(Changes(removes={"k3": -1}, puts=[put("k4", ROWS[5]), put("new", ROWS[6])]))
        other.commit(Changes(puts=[put(f"n{i}", -ROWS[i]) for i in range(SEAL_ROWS)]))  # seals, too
        return build(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(indexer.compaction, "build", build_while_others_write)
    compact(store, LISTS)
    content = everything({3}) | {"k4": ROWS[5], "new": ROWS[6]} | {f"n{i}": -ROWS[i] for i in range(SEAL_ROWS)}
    for one in (store, IndexStore(store.index_dir)):
        assert own_scores(one, content).keys() == pictures_found(one).keys() == content.keys()
        assert min(own_scores(one, content).values()) > 0.999
    assert_whole(store)


def test_a_recipe_that_finds_too_few_changes_nothing(store: IndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    files = segment_files(store)
    monkeypatch.setattr("indexer.building._POOLS", (1,))
    with pytest.raises(
        RecipeError, match=r"recipe 'IVF16,PQ2x4' finds 0\.\d+ of the nearest at most, 0.99 are asked for"
    ):
        compact(store, SearchSettings("IVF16,PQ2x4", 0.99))
    assert segment_files(store) == files
    assert_holds(store, everything())
    assert_whole(store)


def test_settings_are_kept_where_they_could_be_met(store: IndexStore) -> None:
    assert store.settings() == SearchSettings("auto", 0.95, None)
    asked = SearchSettings("IVF16,SQ8", 0.9, 10**9)
    compact(store, asked)
    assert IndexStore(store.index_dir).settings() == asked
    for wrong in (SearchSettings("nonsense"), SearchSettings("IVF4096,SQ8")):
        with pytest.raises(RecipeError, match=wrong.recipe):
            compact(store, wrong)
    assert store.settings() == asked
    compact(store, SearchSettings())
    assert IndexStore(store.index_dir).settings() == SearchSettings()


def test_the_recipe_follows_the_number_of_pictures(store: IndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    compact(store)
    assert store.recipe() == ("exact", 1.0)
    monkeypatch.setattr(indexer.recipe, "_EXACT_VALUES", 1000 * DIM)
    compact(store)
    assert store.recipe()[0] == f"RR{DIM},IVF32,PQ{DIM // 2}x4fs"  # 1.3 sqrt(2,000) = 58, and each list needs 39


def test_a_compaction_is_due_where_many_pictures_are_outside_or_gone(store: IndexStore) -> None:
    def due() -> bool:
        before = store.snapshot.segments
        with store.job("index"):
            store.compact_if_due()
        return store.snapshot.segments != before

    assert due()
    assert not due()
    store.commit(Changes(removes={f"k{i}": -1 for i in range(300)}))
    assert not due()  # 300 of 1,700
    store.commit(Changes(removes={f"k{i}": -1 for i in range(300, 400)}))
    assert due()
    assert not due()


def test_what_hinders_a_compaction_at_the_end_of_a_job_is_logged(
    store: IndexStore, caplog: pytest.LogCaptureFixture
) -> None:
    flip_in_the_middle(store.snapshot.segments[3].segment.path)
    with store.job("index"):
        store.compact_if_due()
    assert "segments were not merged: segment " in caplog.text
    assert len(store.snapshot.segments) == 10


def test_a_recipe_that_suits_no_more_does_not_keep_segments_apart(
    store: IndexStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.compaction, "_DUE_SEGMENTS", 2)
    compact(store, SearchSettings("IVF32,SQ8", 0.9))
    store.commit(Changes(removes={f"k{i}": -1 for i in range(1000, 2000)}))
    with store.job("index"):
        store.compact_if_due()
    assert "learns from at least 1248 vectors, 1000 are there" in caplog.text
    assert store.recipe() == ("exact", 1.0)
    assert_holds(store, everything(range(1000, 2000)))
    assert store.settings().recipe == "IVF32,SQ8"
    add(store, 1000, 1400)
    with store.job("index"):
        store.compact_if_due()
    assert store.recipe()[0] == "IVF32,SQ8"


def test_a_space_that_is_not_live_is_compacted_before_it_is(store: IndexStore) -> None:
    space = store.open_space(model_name="g", model_fingerprint="g", dim=DIM)
    pictures = store.pictures_without_vector(space)
    for start in range(0, 2000, SEAL_ROWS):
        store.fill(space, {one.id: -ROWS[int(one.key[1:])] for one in pictures[start : start + SEAL_ROWS]})
    assert len(store.snapshot_of(space).segments) == 10
    store.compact_if_due(space)
    assert len(store.snapshot_of(space).segments) == 1
    assert len(store.snapshot.segments) == 10
    store.make_live(space, "refresh", lambda rest: {})
    assert_holds(store, {key: -row for key, row in everything().items()})
    assert_whole(store)


@pytest.mark.parametrize("merged_before", [False, True], ids=["segments", "approximation"])
def test_a_compaction_beside_a_verification_is_no_damage(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch, merged_before: bool
) -> None:
    if merged_before:
        compact(store, LISTS)
    name = "check_approximation" if merged_before else "sha256_of"
    check = getattr(indexer.integrity, name)

    def overtaken(*given: object) -> object:
        monkeypatch.setattr(indexer.integrity, name, check)
        compact(store, GRAPH)
        return check(*given)

    monkeypatch.setattr(indexer.integrity, name, overtaken)
    found = verify(store.index_dir)
    assert (found.problems, found.lost, found.images) == ([], [], len(ROWS))
    assert store.recipe()[0] == "HNSW8,SQ8"


def test_another_space_is_seen_while_a_compaction_drops_its_files(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, former = store.open_space(model_name="n", model_fingerprint="g", dim=DIM), store.space
    store.fill(space, {one.id: ROWS[int(one.key[1:])] for one in store.pictures_without_vector(space)})
    store.make_live(space, "refresh", lambda rest: {})
    load, other = indexer.store.load_snapshot, IndexStore(store.index_dir)

    def overtaken(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr(indexer.store, "load_snapshot", load)
        seen = given[0].execute("SELECT max(number) FROM generations").fetchone()
        assert seen == (11,)  # from here on this transaction sees what there is now
        with other.job("compact"):
            indexer.compaction.compact(other._catalog, other.index_dir, other.snapshot_of(former), LISTS)
        return load(*given, **named)

    monkeypatch.setattr(indexer.store, "load_snapshot", overtaken)
    assert store.snapshot_of(former).images == len(ROWS)
    other.close()


# What goes wrong


@pytest.mark.parametrize("damage", [Path.unlink, flip_in_the_middle, lambda path: os.truncate(path, 999)])
def test_a_damaged_approximation_costs_speed_alone(
    store: IndexStore, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    compact(store, LISTS)
    (vectors,) = (one.segment.path for one in store.snapshot.segments)
    (file,) = (path for path in vectors.parent.iterdir() if path != vectors)
    damage(file)
    reader = IndexStore(store.index_dir)
    assert "compare every vector until `retrieve compact`" in caplog.text
    assert reader.recipe() == ("exact", 1.0)
    assert_holds(reader, everything())
    assert len(verify(store.index_dir).problems) == 1
    assert verify(store.index_dir).lost == []
    reader.close()
    again = IndexStore(store.index_dir)
    assert compact(again) is not None
    assert again.recipe()[0] == "IVF16,SQ8"
    assert_whole(again)


def test_a_repair_lets_go_of_a_damaged_approximation(store: IndexStore) -> None:
    compact(store, LISTS)
    (vectors,) = (one.segment.path for one in store.snapshot.segments)
    flip_in_the_middle(next(path for path in vectors.parent.iterdir() if path != vectors))
    salvage(store.index_dir)
    with store.job("verify"):
        pass
    assert_whole(store)
    store.refresh()
    assert store.recipe() == ("exact", 1.0)


def test_a_damaged_segment_is_not_merged(store: IndexStore) -> None:
    flip_in_the_middle(store.snapshot.segments[3].segment.path)
    files = segment_files(store)
    with pytest.raises(indexer.errors.IndexDamaged, match="differs from its checksum; run `retrieve verify --repair`"):
        compact(store)
    assert segment_files(store) == files


def test_vectors_of_a_damaged_merged_segment_are_salvaged(store: IndexStore) -> None:
    store.commit(Changes(removes={f"k{i}": -1 for i in range(0, 2000, 3)}))
    compact(store, LISTS)
    compact(store, SearchSettings("exact"))
    add(store, 0, 200)
    compact(store)  # merged twice
    content = everything(set(range(201, 2000, 3)))
    flip_in_the_middle(store.snapshot.segments[0].segment.path)
    found = verify(store.index_dir)
    assert len(found.lost) == 1
    salvage(store.index_dir)
    reader = IndexStore(store.index_dir)
    (lost,) = reader.pictures_without_vector()
    del content[lost.key]
    assert own_scores(reader, content).keys() == content.keys()
    assert min(own_scores(reader, content).values()) > 0.999


def test_a_full_disk_leaves_everything_as_it_was(store: IndexStore) -> None:
    files = segment_files(store)
    code = f"""
        import resource, sys
        from indexer.store import IndexStore
        from indexer.errors import DiskFull
        store = IndexStore({str(store.index_dir)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        try:
            with store.job("compact"):
                store.compact()
        except DiskFull as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert "committed before is safe" in done.stdout, done.stderr
    assert segment_files(store) == files
    assert_holds(store, everything())


def test_one_compaction_at_a_time(store: IndexStore) -> None:
    with store.job("index"), pytest.raises(IndexBusy, match="index"):
        compact(IndexStore(store.index_dir))


KILLED = """
    import os, signal
    import indexer.compaction, indexer.sealing
    from indexer.settings import SearchSettings
    from indexer.store import IndexStore
    indexer.sealing.SEAL_ROWS = 200
    def die(*arguments, **named):
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(indexer.compaction, {place!r}, die)
    store = IndexStore({index!r})
    with store.job("compact"):
        store.compact(SearchSettings("IVF16,SQ8", 0.9))
"""


@pytest.mark.parametrize("place", ["Segment", "build", "write_approximation", "_name", "_unlink"])
def test_a_compaction_may_be_killed_anywhere(store: IndexStore, place: str) -> None:
    store.commit(Changes(removes={f"k{i}": -1 for i in range(0, 2000, 3)}))
    left = everything(set(range(0, 2000, 3)))
    code = textwrap.dedent(KILLED.format(place=place, index=str(store.index_dir)))
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == -9
    assert verify(store.index_dir).problems == []
    reader = IndexStore(store.index_dir)
    assert_holds(reader, left)
    assert (compact(store, LISTS) is None) == (place == "_unlink")
    assert_holds(store, left)
    assert_whole(store)


def test_sealing_leaves_the_files_of_a_running_job_alone(store: IndexStore) -> None:
    running = store.index_dir / "segments" / "job-running.faiss"
    other = store.index_dir / "segments" / "left.faiss"
    hidden = store.index_dir / "segments" / ".job-running.faiss.1.tmp"
    for path in (running, other, hidden):
        path.write_bytes(b"x")
    store.commit(Changes(puts=[put(f"n{i}", -ROWS[i]) for i in range(SEAL_ROWS)]))
    assert (running.exists(), hidden.exists(), other.exists()) == (True, True, False)
    with store.job("index"):
        assert not running.exists()
        assert not hidden.exists()


def test_a_backup_holds_the_approximation(store: IndexStore, tmp_path: Path) -> None:
    compact(store, LISTS)
    backup(store.index_dir, tmp_path / "copy")
    copy = IndexStore(tmp_path / "copy")
    assert copy.recipe()[0] == "IVF16,SQ8"
    assert_holds(copy, everything())
    assert_whole(copy)


def test_a_store_that_opens_while_files_are_replaced_opens_the_new_ones(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The catalog is read before the compaction, the files are opened after it.
    other = IndexStore(store.index_dir)
    load = indexer.store.load_snapshot
    attempts: list[int] = []

    def load_late(connection: object, index_dir: Path, gpus: None) -> object:
        attempts.append(1)
        if len(attempts) == 1:
            connection.execute("SELECT * FROM segments").fetchall()  # type: ignore[attr-defined]
            compact(other, SearchSettings("exact"))
        return load(connection, index_dir)  # type: ignore[arg-type]

    monkeypatch.setattr(indexer.store, "load_snapshot", load_late)
    assert_holds(IndexStore(store.index_dir), everything())
    assert len(attempts) == 2
