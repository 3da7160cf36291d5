"""What a commit changes, and what readers of this and of older generations see of it."""

import numpy as np
import pytest

from indexer.changes import KEEP, NO_PICTURE, Attributes, Changes, Skip, Touch
from indexer.errors import IndexDamaged, IndexerError, UnstorableValue, VectorError
from indexer.feedback import Judgement
from indexer.store import IndexStore
from vectors import own_scores, pictures_found, put, unit_rows

ROWS = unit_rows(40, 8, seed=0)


def price(store: IndexStore, key: str) -> object:
    return pictures_found(store)[key].attributes.metadata["price"]


def test_a_new_index_is_generation_zero_and_empty(store: IndexStore) -> None:
    assert (store.snapshot.generation, store.snapshot.images) == (0, 0)


def test_each_commit_makes_one_generation(store: IndexStore) -> None:
    numbers = [store.commit(Changes(puts=[put(f"k{i}", ROWS[i]), put(f"l{i}", ROWS[i])])).generation for i in range(3)]
    assert numbers == [1, 2, 3]
    assert store.snapshot.generation == 3


def test_a_commit_names_what_it_did(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0]), put("b", ROWS[1])]))
    done = store.commit(Changes(puts=[put("c", ROWS[2]), put("a", ROWS[3])], removes={"b": -1, "never there": -1}))
    assert (done.added, done.updated, done.removed, done.outdated) == (["c"], ["a"], ["b"], ["never there"])


def test_bookkeeping_alone_makes_no_generation_and_is_kept(store: IndexStore) -> None:
    source = store.source("/gallery", "folder", "")
    store.commit(Changes(puts=[put("a", ROWS[0], source_id=source.id, path=None)]))
    id_ = store.known_pictures(source)["a"].id
    done = store.commit(Changes(touches=[Touch(id_, 77, 88, 99)], skips=[Skip(source.id, "b", "no picture", 5, 6)]))
    assert done.generation == store.snapshot.generation == 1
    known = store.known_pictures(source)["a"]
    assert (known.size_bytes, known.mtime_ns, known.scanned_ns) == (77, 88, 99)
    assert store.known_skips(source)["b"].reason == "no picture"


@pytest.mark.parametrize(
    "changes",
    [
        Changes(),
        Changes(removes={"nobody": -1}),
        Changes(attributes={"nobody": Attributes("p")}),
        Changes(puts=[put("a", ROWS[1], expected_id=NO_PICTURE)]),
        Changes(renewals={99: ROWS[1]}),
    ],
    ids=["nothing", "remove of no picture", "attributes of no picture", "outdated put", "renewal of no picture"],
)
def test_what_changes_nothing_makes_no_generation(store: IndexStore, changes: Changes) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    assert store.commit(changes).generation == 1


def test_a_reader_stays_in_its_generation_until_it_refreshes(store: IndexStore, reader: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    assert pictures_found(reader).keys() == set()
    assert reader.refresh() == 1
    assert pictures_found(reader).keys() == {"a"}


def test_a_refresh_with_nothing_new_keeps_the_very_same_snapshot(store: IndexStore, reader: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    reader.refresh()
    before = reader.snapshot
    reader.refresh()
    assert reader.snapshot is before


def test_a_refresh_reads_only_the_rows_that_are_new(store: IndexStore, reader: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0]), put("b", ROWS[1])]))
    reader.refresh()
    before = reader.snapshot.tail
    store.commit(Changes(puts=[put("c", ROWS[2])], removes={"a": -1}))
    reader.refresh()
    assert np.shares_memory(before.vectors, reader.snapshot.tail.vectors)
    assert pictures_found(reader).keys() == {"b", "c"}


def test_an_older_snapshot_shows_the_old_price(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0], metadata={"price": 1})]))
    old = store.snapshot
    store.commit(Changes(attributes={"a": Attributes(metadata={"price": 2})}))
    store.commit(Changes(attributes={"a": Attributes(metadata={"price": 3})}))
    assert pictures_found(store, old)["a"].attributes.metadata == {"price": 1}
    assert price(store, "a") == 3


def test_a_change_of_attributes_keeps_the_picture_and_its_vector(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0], metadata={"price": 1})]))
    id_ = pictures_found(store)["a"].id
    done = store.commit(Changes(attributes={"a": Attributes("p", "l", {"price": 2})}))
    picture = pictures_found(store)["a"]
    assert done.updated == ["a"]
    assert (picture.id, picture.attributes) == (id_, Attributes("p", "l", {"price": 2}))


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (Attributes(KEEP, "new", KEEP), Attributes("p", "new", {"price": 1})),
        (Attributes(None, KEEP, {}), Attributes(None, None, {})),
        (Attributes(KEEP, KEEP, KEEP), Attributes("p", None, {"price": 1})),
    ],
    ids=["label", "product and metadata", "nothing"],
)
def test_attributes_that_are_kept_are_those_of_the_moment_of_the_commit(
    store: IndexStore, reader: IndexStore, change: Attributes, after: Attributes
) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0], product_id="former", metadata={"price": 0})]))
    reader.refresh()
    store.commit(Changes(puts=[put("a", ROWS[0], product_id="p", metadata={"price": 1})]))
    reader.commit(Changes(attributes={"a": change}))
    assert pictures_found(reader)["a"].attributes == after


def test_attributes_of_a_picture_that_was_replaced_meanwhile_are_outdated(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    seen = pictures_found(store)["a"].id
    store.commit(Changes(puts=[put("a", ROWS[1], product_id="mine")]))
    done = store.commit(Changes(attributes={"a": Attributes("theirs")}, expected={"a": seen}))
    assert (done.updated, done.outdated) == ([], ["a"])
    assert pictures_found(store)["a"].attributes.product_id == "mine"


def test_an_older_snapshot_shows_pictures_removed_since(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0], product_id="p")]))
    old = store.snapshot
    store.commit(Changes(removes={"a": -1}))
    picture = pictures_found(store, old)["a"]
    assert picture.attributes.product_id == "p"
    assert store.pictures(store.snapshot, [picture.id]) == {}


def test_an_older_snapshot_knows_nothing_of_later_pictures(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    old = store.snapshot
    store.commit(Changes(puts=[put("b", ROWS[1]), put("a", ROWS[2])]))
    later = [picture.id for picture in pictures_found(store).values()]
    assert store.pictures(old, later) == {}
    assert pictures_found(store, old)["a"].id not in later


def test_a_put_for_a_key_that_changed_meanwhile_is_outdated(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    seen = pictures_found(store)["a"].id
    store.commit(Changes(puts=[put("a", ROWS[1])]))
    done = store.commit(Changes(puts=[put("a", ROWS[2], expected_id=seen)]))
    assert (done.updated, done.outdated) == ([], ["a"])
    assert own_scores(store, {"a": ROWS[1]})["a"] == pytest.approx(1, abs=1e-3)


def test_a_put_for_the_picture_that_is_still_there_replaces_it(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    done = store.commit(Changes(puts=[put("a", ROWS[2], expected_id=pictures_found(store)["a"].id)]))
    assert (done.updated, done.outdated) == (["a"], [])
    assert own_scores(store, {"a": ROWS[2]})["a"] == pytest.approx(1, abs=1e-3)


def test_a_remove_of_a_picture_that_was_replaced_meanwhile_is_outdated(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    seen = pictures_found(store)["a"].id
    store.commit(Changes(puts=[put("a", ROWS[1])]))
    done = store.commit(Changes(removes={"a": seen}))
    assert (done.removed, done.outdated) == ([], ["a"])
    assert pictures_found(store).keys() == {"a"}


def test_one_outdated_put_does_not_hold_up_the_others(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    done = store.commit(Changes(puts=[put("a", ROWS[1], expected_id=NO_PICTURE), put("b", ROWS[2])]))
    assert (done.added, done.outdated) == (["b"], ["a"])


def test_of_two_puts_of_one_key_in_one_commit_the_later_wins(store: IndexStore) -> None:
    puts = [put("a", ROWS[0], product_id="first"), put("a", ROWS[1], product_id="second")]
    assert store.commit(Changes(puts=puts)).generation == 1
    assert pictures_found(store)["a"].attributes.product_id == "second"
    assert own_scores(store, {"a": ROWS[1]})["a"] == pytest.approx(1, abs=1e-3)


def test_a_key_that_is_changed_twice_in_one_commit_is_reported_once(store: IndexStore) -> None:
    for reported in (("a", "b"), ()), ((), ("a", "b")):
        puts = [put("a", ROWS[0]), put("b", ROWS[1]), put("a", ROWS[2])]
        done = store.commit(Changes(puts=puts, attributes={"b": Attributes("p")}))
        assert (tuple(done.added), tuple(done.updated)) == reported


def test_a_key_put_and_removed_in_one_commit_is_not_there(store: IndexStore, reader: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])], removes={"a": -1}))
    reader.refresh()
    assert pictures_found(store) == pictures_found(reader) == {}


def test_attributes_set_in_the_commit_that_puts_the_picture_are_its_attributes(store: IndexStore) -> None:
    done = store.commit(Changes(puts=[put("a", ROWS[0], product_id="p")], attributes={"a": Attributes("q")}))
    assert done.generation == 1
    assert pictures_found(store)["a"].attributes.product_id == "q"


def test_attributes_replaced_in_one_commit_with_the_picture_end_in_the_generation_before(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0], product_id="p")]))
    old = store.snapshot
    store.commit(Changes(puts=[put("a", ROWS[1], product_id="q")], attributes={"a": Attributes("r")}))
    assert pictures_found(store, old)["a"].attributes.product_id == "p"
    assert pictures_found(store)["a"].attributes.product_id == "r"


def test_a_renewed_picture_keeps_all_but_its_vector_and_its_id(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0], product_id="p", box="[1,2,3,4]", metadata={"price": 1})]))
    before = pictures_found(store)["a"]
    assert store.commit(Changes(renewals={before.id: ROWS[1]})).updated == ["a"]
    after = pictures_found(store)["a"]
    assert after.id > before.id
    assert (after.path, after.box, after.content_hash, after.attributes) == (
        *(before.path, before.box, before.content_hash, before.attributes),
    )
    assert own_scores(store, {"a": ROWS[1]})["a"] == pytest.approx(1, abs=1e-3)


def test_attributes_set_in_the_commit_that_renews_the_vector_are_kept(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0], product_id="old")]))
    id_ = pictures_found(store)["a"].id
    store.commit(Changes(attributes={"a": Attributes("new")}, renewals={id_: ROWS[1]}))
    assert pictures_found(store)["a"].attributes.product_id == "new"


def test_a_picture_replaced_in_the_same_commit_is_not_renewed(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    id_ = pictures_found(store)["a"].id
    store.commit(Changes(puts=[put("a", ROWS[1])], renewals={id_: ROWS[2]}))
    assert own_scores(store, {"a": ROWS[1]})["a"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("bad", [ROWS[0] * 2, ROWS[0][:-1]], ids=["not unit", "wrong width"])
def test_a_renewal_that_is_no_unit_row_is_refused(store: IndexStore, bad: np.ndarray) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    with pytest.raises(VectorError):
        store.commit(Changes(renewals={1: bad}))


def test_vectors_of_different_lengths_are_refused_as_vectors(store: IndexStore) -> None:
    with pytest.raises(VectorError, match=r"\(N, 8\)"):
        store.commit(Changes(puts=[put("a", ROWS[0]), put("b", ROWS[1][:-1])]))


def test_ids_are_not_used_again_after_removal_and_reopening(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    first = pictures_found(store)["a"].id
    store.commit(Changes(removes={"a": -1}))
    store.close()
    reopened = IndexStore(store.index_dir)
    reopened.commit(Changes(puts=[put("a", ROWS[0])]))
    assert pictures_found(reopened)["a"].id > first
    reopened.close()


def test_a_commit_that_fails_midway_changes_nothing(store: IndexStore, reader: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    unstorable = put("b", ROWS[2], metadata={"price": object()})
    with pytest.raises(TypeError):
        store.commit(Changes(puts=[put("a", ROWS[1]), unstorable]))
    assert reader.refresh() == 1
    assert own_scores(reader, {"a": ROWS[0]})["a"] == pytest.approx(1, abs=1e-3)


NOT_FINITE = [float("nan"), float("inf"), -float("inf"), 10**400, [1, -(10**400)], {"a": [{"b": float("inf")}]}]


@pytest.mark.parametrize("value", NOT_FINITE, ids=str)
@pytest.mark.parametrize("way", ["put", "attributes"])
def test_metadata_that_is_not_finite_is_refused_with_its_field(store: IndexStore, value: object, way: str) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0], metadata={"price": 1})]))
    metadata = {"price": value, "name": "1e999"}
    changes = Changes(puts=[put("a", ROWS[1], metadata=metadata)])
    if way == "attributes":
        changes = Changes(attributes={"a": Attributes(metadata=metadata)})
    with pytest.raises(ValueError, match=r"metadata field 'price' is .*; numbers must be finite") as caught:
        store.commit(changes)
    assert isinstance(caught.value, UnstorableValue)
    assert store.refresh() == 1
    assert price(store, "a") == 1


HALF = "\ud800"
NO_TEXT = {
    "key": Changes(puts=[put(HALF, ROWS[0])]),
    "product": Changes(puts=[put("a", ROWS[0], product_id=HALF)]),
    "metadata": Changes(puts=[put("a", ROWS[0], metadata={"name": HALF})]),
    "field": Changes(puts=[put("a", ROWS[0], metadata={HALF: 1})]),
    "path": Changes(puts=[put("a", ROWS[0], path="/\udcff.png")]),
    "label": Changes(puts=[put("a", ROWS[0])], attributes={"a": Attributes(None, HALF)}),
}


@pytest.mark.parametrize("changes", NO_TEXT.values(), ids=NO_TEXT.keys())
def test_text_that_is_no_utf8_is_refused_in_one_line(store: IndexStore, changes: Changes) -> None:
    with pytest.raises(UnstorableValue, match=r"'.*\\ud(800|cff).*' is not UTF-8 and cannot be stored"):
        store.commit(changes)
    assert store.commit(Changes(puts=[put("a", ROWS[0])])).generation == 1


def test_a_key_that_cannot_be_stored_is_an_unknown_one(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    assert store.ids_of(store.snapshot, [HALF, "a"]).keys() == store.owners([HALF, "a"]).keys() == {"a"}
    assert store.picture(HALF) is None
    assert store.record_feedback([Judgement("h", "/q", HALF, True), Judgement("h", "/q", "a", True)]) == [HALF]


def test_a_row_that_would_name_no_source_is_not_committed(store: IndexStore) -> None:
    with pytest.raises(IndexerError, match=r"cannot hold what it was given \(FOREIGN KEY .*; nothing was changed"):
        store.commit(Changes(puts=[put("a", ROWS[0])], skips=[Skip(99, "b", "no picture", 5, 6)]))
    assert store.refresh() == 0


@pytest.mark.parametrize("has_written", [False, True])
def test_a_store_that_was_closed_says_so(store: IndexStore, has_written: bool) -> None:
    if has_written:
        store.commit(Changes(puts=[put("a", ROWS[0])]))
    store.close()
    for use in (
        lambda: store.commit(Changes(removes={"a": -1})),
        lambda: store.pictures(store.snapshot, [1]),
        store.refresh,
        store.settings,
        store.is_behind,
    ):
        with pytest.raises(IndexerError, match=r"index .* was closed; open it again") as caught:
            use()
        assert not isinstance(caught.value, IndexDamaged)
    store.close()


def test_a_commit_that_failed_does_not_stand_in_the_way_of_the_next(store: IndexStore) -> None:
    with pytest.raises(TypeError):
        store.commit(Changes(puts=[put("b", ROWS[2], metadata={"price": object()})]))
    assert store.commit(Changes(puts=[put("b", ROWS[2])])).generation == 1
