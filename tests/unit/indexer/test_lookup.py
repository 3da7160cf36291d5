"""What the catalog remembers of pictures, of galleries and of pictures that were set aside."""

from pathlib import Path

import numpy as np
import pytest

from indexer.changes import Attributes, Changes, Skip
from indexer.lookup import KnownSkip
from indexer.store import IndexStore, Source
from vectors import pictures_found, put, query_catalog, unit_rows

ROWS = unit_rows(8, 8, seed=0)


@pytest.fixture
def shoes(store: IndexStore) -> Source:
    return store.source("/galleries/shoes", "folder", "shoes/")


def test_a_source_asked_for_again_is_the_same_one(store: IndexStore, shoes: Source) -> None:
    again = store.source("/galleries/shoes", "manifest", "shoes/")
    assert again == Source(shoes.id, "/galleries/shoes", "manifest", "shoes/")
    assert store.sources() == [again]


def test_a_source_keeps_the_prefix_that_its_pictures_have(store: IndexStore, shoes: Source) -> None:
    assert store.source("/galleries/shoes", "folder", "boots/").key_prefix == "boots/"
    store.commit(Changes(puts=[put("boots/1.jpg", ROWS[0], source_id=shoes.id, path=None)]))
    assert store.source("/galleries/shoes", "folder", "shoes/").key_prefix == "boots/"


def test_a_picture_without_a_path_lies_in_its_source_under_its_key_without_prefix(
    store: IndexStore, shoes: Source
) -> None:
    store.commit(Changes(puts=[put("shoes/red/1.jpg", ROWS[0], source_id=shoes.id, path=None)]))
    picture = store.picture("shoes/red/1.jpg")
    assert picture is not None
    assert picture.path == Path("/galleries/shoes/red/1.jpg")


def test_a_picture_with_a_path_lies_there(store: IndexStore, shoes: Source) -> None:
    store.commit(Changes(puts=[put("shoes/1.jpg", ROWS[0], source_id=shoes.id, path="/else/where.jpg")]))
    assert pictures_found(store)["shoes/1.jpg"].path == Path("/else/where.jpg")


def test_a_kept_picture_lies_in_the_index(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0], path="pictures/ab/abc")]))
    assert pictures_found(store)["a"].path == store.index_dir / "pictures/ab/abc"


def test_a_source_knows_its_own_pictures_as_they_are_now(store: IndexStore, shoes: Source) -> None:
    mine = {"source_id": shoes.id, "path": None}
    store.commit(Changes(puts=[put("a", ROWS[0], **mine), put("b", ROWS[1], **mine), put("upserted", ROWS[2])]))
    store.commit(Changes(removes={"b": -1}, attributes={"a": Attributes("p", "l", {"z": 1, "a": "é"})}))
    known = store.known_pictures(shoes)
    assert known.keys() == {"a"}
    assert (known["a"].product_id, known["a"].label, known["a"].metadata) == ("p", "l", '{"a":"é","z":1}')
    assert known["a"].id == pictures_found(store)["a"].id


def test_owners_tell_galleries_from_upserts_and_leave_out_what_is_not_there(store: IndexStore, shoes: Source) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0], source_id=shoes.id), put("b", ROWS[1]), put("c", ROWS[2])]))
    store.commit(Changes(removes={"c": -1}))
    assert store.owners(["a", "b", "c", "d"]) == {"a": "/galleries/shoes", "b": None}


def test_a_skipped_picture_is_remembered_until_it_is_forgotten(store: IndexStore, shoes: Source) -> None:
    store.commit(Changes(skips=[Skip(shoes.id, "a", "cut", 5, 6), Skip(shoes.id, "b", "empty", 0, 7)]))
    store.commit(Changes(skips=[Skip(shoes.id, "a", "text", 8, 9)], unskips=[(shoes.id, "b")]))
    assert store.known_skips(shoes) == {"a": KnownSkip("text", 8, 9)}


def test_a_picture_is_there_by_its_key_as_long_as_it_is_not_removed(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0], product_id="p")]))
    picture = store.picture("a")
    assert picture == pictures_found(store)["a"]
    store.commit(Changes(removes={"a": -1}))
    assert store.picture("a") is None


def test_products_are_counted_once_each_and_only_those_that_are_there(store: IndexStore) -> None:
    store.commit(Changes(puts=[put(key, ROWS[0], product_id=key[0]) for key in ("p1", "p2", "q1", "r1")]))
    store.commit(Changes(puts=[put("none", ROWS[0])], removes={"q1": -1}, attributes={"r1": Attributes("s")}))
    assert store.products() == 2  # p and s


def test_more_ids_than_one_statement_takes_are_all_looked_up(store: IndexStore) -> None:
    rows = unit_rows(1201, 8, seed=0)
    store.commit(Changes(puts=[put(f"k{i}", row) for i, row in enumerate(rows)]))
    found = store.pictures(store.snapshot, [*range(1, 1202), -1, 99_999])
    assert len(found) == 1201
    assert found[1201].key == "k1200"


@pytest.mark.parametrize("key", ["a'b\"c", "newline\nin it", "größe/фото/写真 🖼", " ", "%_"])
def test_any_text_is_a_key(store: IndexStore, key: str) -> None:
    store.commit(Changes(puts=[put(key, ROWS[0], metadata={key: key})]))
    assert pictures_found(store)[key].attributes.metadata == {key: key}


def test_what_an_older_generation_needs_is_still_in_the_catalog(store: IndexStore) -> None:
    for price in range(3):
        store.commit(Changes(puts=[put("a", ROWS[0], metadata={"price": price})]))
    rows = query_catalog(store.index_dir, "SELECT metadata, since, until FROM attributes ORDER BY since")
    assert rows == [('{"price":0}', 1, 2), ('{"price":1}', 2, 3), ('{"price":2}', 3, None)]


def test_sizes_add_up(store: IndexStore) -> None:
    store.keep(b"picture")
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    sizes = store.sizes()
    files = {path.relative_to(store.index_dir): path.stat().st_size for path in store.index_dir.rglob("*")}
    assert sizes["catalog"] == sum(size for path, size in files.items() if path.name.startswith("catalog.sqlite"))
    assert (sizes["segments"], sizes["pictures"]) == (0, 7)
    assert sizes["total"] == sizes["catalog"] + 7


def test_vectors_survive_as_float16(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", ROWS[0])]))
    ((blob,),) = query_catalog(store.index_dir, "SELECT vector FROM embeddings")
    np.testing.assert_array_equal(np.frombuffer(blob, "<f2"), ROWS[0].astype(np.float16))
