"""What people said of hits stays, the last word of each, with the query pictures that exist nowhere else."""

import os
from pathlib import Path

from indexer.backup import backup
from indexer.changes import Changes
from indexer.feedback import Judgement
from indexer.integrity import verify
from indexer.kept import ORPHAN_AGE_S
from indexer.store import IndexStore
from vectors import put, unit_rows

ROWS = unit_rows(3, 8, seed=0)


def said(key: str, relevant: bool, source: str = "", query: str = "q") -> Judgement:
    return Judgement(f"hash of {query}", f"/photos/{query}.jpg", key, relevant, source)


def add(store: IndexStore, *keys: str) -> None:
    store.commit(Changes(puts=[put(key, row) for key, row in zip(keys, ROWS, strict=False)]))


def test_what_was_said_is_there_after_reopening_and_changes_no_generation(store: IndexStore) -> None:
    add(store, "a", "b")
    generation = store.snapshot.generation
    assert store.record_feedback([said("a", True), said("b", False, "customer 7")]) == []
    assert store.refresh() == generation
    reopened = IndexStore(store.index_dir)
    judgements, stale = reopened.feedback()
    reopened.close()
    assert judgements == [said("b", False, "customer 7"), said("a", True)]
    assert stale == 0


def test_of_each_source_the_last_word_counts(store: IndexStore) -> None:
    add(store, "a")
    store.record_feedback([said("a", True, "x"), said("a", True, "y")])
    store.record_feedback([said("a", False, "x")])
    assert store.feedback()[0] == [said("a", False, "x"), said("a", True, "y")]


def test_two_boxes_of_a_query_are_two_queries(store: IndexStore) -> None:
    add(store, "a")
    parts = [Judgement("hash", "/q.jpg", "a", True, query_box=box) for box in ("[0, 0, 5, 5]", "")]
    store.record_feedback(parts)
    assert sorted(one.query_box for one in store.feedback()[0]) == ["", "[0, 0, 5, 5]"]


def test_keys_that_the_index_does_not_hold_are_named_and_the_rest_is_recorded(store: IndexStore) -> None:
    add(store, "a", "b")
    store.commit(Changes(removes={"b": store.picture("b").id}))  # type: ignore[union-attr]
    assert store.record_feedback([said("b", True), said("a", True), said("c", True)]) == ["b", "c"]
    assert [one.key for one in store.feedback()[0]] == ["a"]


def test_what_was_said_of_a_picture_does_not_pass_to_the_one_in_its_place(store: IndexStore) -> None:
    add(store, "a")
    store.record_feedback([said("a", True)])
    store.commit(Changes(puts=[put("a", ROWS[1])]))
    assert store.feedback() == ([], 1)


def test_a_kept_query_picture_stays_and_is_backed_up(store: IndexStore, tmp_path: Path) -> None:
    add(store, "a")
    path = store.keep(b"query picture")
    store.record_feedback([Judgement("hash", path, "a", True)])
    kept = store.index_dir / path
    long_ago_s = kept.stat().st_mtime - ORPHAN_AGE_S - 10
    os.utime(kept, (long_ago_s, long_ago_s))
    with store.job("index"):
        pass
    assert kept.read_bytes() == b"query picture"
    assert store.feedback()[0][0].query_path == str(kept)
    backup(store.index_dir, tmp_path / "copy")
    assert (tmp_path / "copy" / path).read_bytes() == b"query picture"
    kept.unlink()
    backup(store.index_dir, tmp_path / "without")  # nothing that is answered depends on it
    assert verify(tmp_path / "without").is_whole
