"""A second space is filled behind everybody's back, and takes the live one's place in one commit."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import indexer.sealing
from indexer.changes import Attributes, Changes
from indexer.errors import ModelMismatch, VectorError
from indexer.integrity import verify
from indexer.lookup import Picture
from indexer.segments import SealedFile
from indexer.spaces import Space
from indexer.store import IndexStore
from vectors import exact_search, own_scores, pictures_found, put, query_catalog, unit_rows

OLD = {f"k{i}": row for i, row in enumerate(unit_rows(20, 8, seed=1))}
NEW = {f"k{i}": row for i, row in enumerate(unit_rows(20, 6, seed=2))}  # another length: no vector passes for another's
QUERIES = unit_rows(5, 8, seed=3)


def add(store: IndexStore, *keys: str) -> None:
    store.commit(Changes(puts=[put(key, OLD[key], product_id=f"product of {key}") for key in keys]))


def second_space(store: IndexStore) -> Space:
    return store.open_space(model_name="better", model_fingerprint="g", dim=6)


def embedded(pictures: list[Picture]) -> dict[int, NDArray[np.float32]]:
    return {picture.id: NEW[picture.key] for picture in pictures}


def fill(store: IndexStore, space: Space) -> None:
    store.fill(space, embedded(store.pictures_without_vector(space)))


def never(pictures: list[Picture]) -> Mapping[int, NDArray[np.float32]]:
    raise AssertionError(f"{pictures} were to be embedded while writers waited")


@pytest.fixture
def held(store: IndexStore) -> IndexStore:
    """An index of ten pictures."""
    add(store, *[f"k{i}" for i in range(10)])
    return store


def test_filling_another_space_changes_nothing_for_readers(held: IndexStore, reader: IndexStore) -> None:
    reader.refresh()
    before = reader.search(QUERIES, 5)
    fill(held, second_space(held))

    assert reader.refresh() == 1
    assert reader.space.model_fingerprint == held.space.model_fingerprint == "f"
    assert (reader.search(QUERIES, 5).ids == before.ids).all()
    assert (reader.search(QUERIES, 5).scores == before.scores).all()


def test_the_space_of_a_model_is_found_again_with_what_it_holds(held: IndexStore) -> None:
    space = second_space(held)
    fill(held, space)

    again = held.open_space(model_name="moved", model_fingerprint="g", dim=6)

    assert (again.id, again.model_name) == (space.id, "moved")
    assert held.spaces() == [held.space, again]
    assert held.pictures_without_vector(again) == []


def test_the_new_space_answers_once_it_is_live(held: IndexStore) -> None:
    space = second_space(held)
    fill(held, space)

    assert held.make_live(space, "refresh", never) == 2

    assert held.space == space
    assert min(own_scores(held, {key: NEW[key] for key in pictures_found(held)}).values()) > 0.999
    assert held.snapshot.images == 10
    assert pictures_found(held)["k3"].attributes.product_id == "product of k3"


def test_a_reader_stays_with_the_former_space_until_it_refreshes(held: IndexStore, reader: IndexStore) -> None:
    reader.refresh()
    before = reader.search(QUERIES, 5)
    space = second_space(held)
    fill(held, space)
    held.make_live(space, "refresh", never)

    assert (reader.search(QUERIES, 5).ids == before.ids).all()
    assert reader.refresh() == 2
    assert reader.space == space
    with pytest.raises(VectorError):
        reader.search(QUERIES, 5)


def test_pictures_that_came_meanwhile_are_embedded_in_the_switch(held: IndexStore) -> None:
    space = second_space(held)
    fill(held, space)
    add(held, "k10", "k11")
    held.commit(Changes(removes={"k0": -1}))
    asked: list[str] = []

    def embed_rest(pictures: list[Picture]) -> Mapping[int, NDArray[np.float32]]:
        asked.extend(picture.key for picture in pictures)
        return embedded(pictures)

    held.make_live(space, "refresh", embed_rest)

    assert asked == ["k10", "k11"]
    expected = {f"k{i}" for i in range(1, 12)}
    assert own_scores(held, {key: NEW[key] for key in expected}).keys() == pictures_found(held).keys() == expected


def test_a_space_that_lacks_many_pictures_does_not_become_live(held: IndexStore) -> None:
    space = second_space(held)
    assert held.make_live(space, "refresh", never, most_rest=9) is None
    assert held.refresh() == 1
    assert held.space.model_fingerprint == "f"


@pytest.mark.parametrize(("wrong", "said"), [(2 * NEW["k3"], "k3"), (OLD["k3"], r"not \(N, 6\)")])
def test_a_wrong_vector_in_the_switch_leaves_everything_as_it_was(
    held: IndexStore, wrong: NDArray[np.float32], said: str
) -> None:
    space = second_space(held)
    vectors = NEW | {"k3": wrong}

    with pytest.raises(VectorError, match=said):
        held.make_live(space, "refresh", lambda rest: {each.id: vectors[each.key] for each in rest})

    assert held.refresh() == 1
    assert held.space.model_fingerprint == "f"
    assert len(held.pictures_without_vector(space)) == 10


def test_a_picture_removed_while_it_was_embedded_does_not_come_back(held: IndexStore) -> None:
    space = second_space(held)
    vectors = embedded(held.pictures_without_vector(space))
    held.commit(Changes(removes={"k4": -1}))
    held.fill(space, vectors)
    held.make_live(space, "refresh", never)
    assert "k4" not in pictures_found(held)
    assert held.snapshot.images == 9


def test_a_picture_replaced_while_it_was_embedded_gets_the_vector_of_the_later_one(held: IndexStore) -> None:
    space = second_space(held)
    vectors = embedded(held.pictures_without_vector(space))
    held.commit(Changes(puts=[put("k4", OLD["k5"])]))
    held.fill(space, vectors)
    later = {each.id: NEW["k19"] for each in held.pictures_without_vector(space)}
    assert len(later) == 1
    held.fill(space, later)
    held.make_live(space, "refresh", never)
    assert own_scores(held, {"k4": NEW["k19"]})["k4"] > 0.999


def test_vectors_of_the_former_space_are_refused_once_another_is_live(held: IndexStore, reader: IndexStore) -> None:
    reader.refresh()
    space = second_space(held)
    fill(held, space)
    held.make_live(space, "refresh", never)

    with pytest.raises(ModelMismatch, match="embed them again"):
        reader.commit(Changes(puts=[put("k12", OLD["k12"])]))

    assert held.refresh() == 2
    assert "k12" not in pictures_found(held)


def test_a_writer_that_followed_says_of_which_space_its_vectors_are(held: IndexStore, reader: IndexStore) -> None:
    reader.refresh()
    former = reader.space
    space = second_space(held)
    same_length = held.open_space(model_name="same length", model_fingerprint="h", dim=8)
    fill(held, space)
    held.make_live(space, "refresh", never)
    held.make_live(same_length, "refresh", lambda rest: {each.id: OLD[each.key] for each in rest})
    reader.refresh()

    with pytest.raises(ModelMismatch):
        reader.commit(Changes(puts=[put("k12", OLD["k12"])]), space_id=former.id)


def test_what_has_no_vectors_is_committed_whichever_space_is_live(held: IndexStore, reader: IndexStore) -> None:
    reader.refresh()
    space = second_space(held)
    fill(held, space)
    held.make_live(space, "refresh", never)

    reader.commit(Changes(removes={"k1": -1}, attributes={"k2": Attributes("other")}))

    held.refresh()
    assert "k1" not in pictures_found(held)
    assert pictures_found(held)["k2"].attributes.product_id == "other"


def test_going_back_gives_the_former_answers(held: IndexStore) -> None:
    before, former = held.search(QUERIES, 5), held.space
    space = second_space(held)
    fill(held, space)
    held.make_live(space, "refresh", never)

    held.make_live(former, "rollback", never)

    assert (held.search(QUERIES, 5).ids == before.ids).all()
    assert (held.search(QUERIES, 5).scores == before.scores).all()


def test_going_back_leaves_out_what_was_removed_and_asks_for_what_was_added(
    held: IndexStore, reader: IndexStore
) -> None:
    reader.refresh()
    former = held.space
    space = second_space(held)
    fill(held, space)
    held.make_live(space, "refresh", never)
    held.commit(Changes(puts=[put("k15", NEW["k15"])], removes={"k2": -1}))

    held.make_live(former, "rollback", lambda rest: {each.id: OLD[each.key] for each in rest})

    for store in (held, reader):
        store.refresh()
        by_key = pictures_found(store)
        assert by_key.keys() == {*(f"k{i}" for i in range(10)), "k15"} - {"k2"}
        expected = exact_search({by_key[key].id: OLD[key] for key in by_key}, QUERIES, 5)
        assert (store.search(QUERIES, 5).ids == expected.ids).all()


def test_another_space_is_seen_before_it_is_live(held: IndexStore) -> None:
    space = second_space(held)
    rest = held.pictures_without_vector(space)
    held.fill(space, embedded(rest[:7]))

    seen = held.snapshot_of(space)

    assert pictures_found(held, seen).keys() == {each.key for each in rest[:7]}
    assert held.space.model_fingerprint == "f"


def test_a_space_beside_the_live_one_is_sealed_like_it(held: IndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", 4)
    space = second_space(held)
    rest = held.pictures_without_vector(space)
    held.fill(space, embedded(rest[:4]))
    held.fill(space, embedded(rest[4:7]))

    sealed = "SELECT count(*) FROM embeddings WHERE space_id = ? AND segment_id IS NOT NULL"
    assert query_catalog(held.index_dir, sealed, space.id) == [(4,)]
    assert query_catalog(held.index_dir, sealed, held.space.id) == [(0,)]
    fill(held, space)
    held.make_live(space, "refresh", never)
    with_reopened = IndexStore(held.index_dir)
    for store in (held, with_reopened):
        assert min(own_scores(store, {key: NEW[key] for key in pictures_found(store)}).values()) > 0.999
        assert store.snapshot.images == 10
    with_reopened.close()


def test_a_sealing_that_was_overtaken_by_the_emptying_of_its_space_names_nothing(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", 10)
    former, space, other = store.space, second_space(store), IndexStore(store.index_dir)
    write_segment = indexer.sealing.write_segment

    def overtaken(*given: Any) -> SealedFile:
        sealed = write_segment(*given)
        monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", 1000)
        other.make_live(space, "refresh", embedded)
        other.empty_space(former)
        return sealed

    monkeypatch.setattr(indexer.sealing, "write_segment", overtaken)
    add(store, *[f"k{i}" for i in range(10)])
    monkeypatch.setattr(indexer.sealing, "write_segment", write_segment)
    assert query_catalog(store.index_dir, "SELECT count(*) FROM segments") == [(0,)]
    assert list((store.index_dir / "segments").iterdir()) == []
    other.fill(former, {one.id: OLD[one.key] for one in other.pictures_without_vector(former)})
    other.make_live(former, "rollback", never)
    assert pictures_found(other).keys() == {f"k{i}" for i in range(10)}
    assert verify(store.index_dir).problems == []
    other.close()


def test_a_vector_given_twice_stays_what_it_was(held: IndexStore) -> None:
    space = second_space(held)
    fill(held, space)
    some = next(iter(pictures_found(held).values()))
    held.fill(space, {some.id: NEW["k19"]})
    held.make_live(space, "refresh", never)
    assert own_scores(held, {some.key: NEW[some.key]})[some.key] > 0.999


# Pictures that a model cannot be shown


def test_what_is_left_out_is_not_found_and_not_missed(held: IndexStore, reader: IndexStore) -> None:
    space = second_space(held)
    (gone, *rest) = held.pictures_without_vector(space)
    held.fill(space, embedded(rest))
    held.leave_out(space, [gone.id])

    assert held.pictures_without_vector(space) == []
    assert held.count_without_vector(space) == 0
    assert held.make_live(space, "refresh", never) == 2
    reader.refresh()
    assert pictures_found(reader).keys() == {f"k{i}" for i in range(10)} - {gone.key}
    assert verify(held.index_dir).is_whole
    assert [one.vectors for one in held.switches()] == [10, 9]


def test_sealing_passes_over_what_is_left_out(held: IndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", 8)
    space = second_space(held)
    (gone, *rest) = held.pictures_without_vector(space)
    held.leave_out(space, [gone.id])
    held.fill(space, embedded(rest))
    held.make_live(space, "refresh", never)
    assert len(held.snapshot.segments) == 1
    assert pictures_found(held).keys() == {f"k{i}" for i in range(10)} - {gone.key}
    assert verify(held.index_dir).is_whole


def test_what_is_left_out_lets_no_commit_seal(held: IndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", 8)
    space = second_space(held)
    pictures = held.pictures_without_vector(space)
    held.leave_out(space, [one.id for one in pictures[:8]])
    held.fill(space, embedded(pictures[8:]))
    held.make_live(space, "refresh", never)
    sealings = []
    monkeypatch.setattr(indexer.sealing, "seal", lambda *_: sealings.append(1))
    for i in range(10, 16):
        held.commit(Changes(puts=[put(f"k{i}", NEW[f"k{i}"])]))
        assert len(sealings) == (i == 15)


def test_what_was_left_out_can_be_filled_later_and_readers_of_that_space_see_it(
    held: IndexStore, reader: IndexStore
) -> None:
    first, space = held.space, second_space(held)
    (gone, *rest) = held.pictures_without_vector(space)
    held.fill(space, embedded(rest))
    held.leave_out(space, [gone.id])
    held.make_live(space, "refresh", never)
    reader.refresh()
    held.make_live(first, "rollback", never)

    held.forget_left_out(space)
    assert [one.id for one in held.pictures_without_vector(space)] == [gone.id]
    fill(held, space)
    held.make_live(space, "rollback", never)
    reader.refresh()  # from the space to itself, another having been live between
    assert gone.key in pictures_found(reader)


def test_a_picture_that_has_a_vector_cannot_be_left_out(held: IndexStore) -> None:
    space = second_space(held)
    fill(held, space)
    held.leave_out(space, [one.id for one in pictures_found(held).values()])
    held.forget_left_out(space)
    assert held.count_without_vector(space) == 0


def test_a_vector_that_was_lost_is_no_picture_left_out(held: IndexStore) -> None:
    with closing(sqlite3.connect(held.index_dir / "catalog.sqlite")) as connection, connection:
        connection.execute("UPDATE embeddings SET vector = NULL WHERE picture_id = 3")
    assert verify(held.index_dir).lost == [3]
