"""A condition lets through the pictures that a look at each one's attributes lets through, in every generation."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import indexer.columns
from indexer.changes import Attributes, Changes
from indexer.conditions import OPERATORS, Compare, Condition, Every, Missing, Not, OneOf, Some
from indexer.errors import FilterError
from indexer.filter_text import parse_filter
from indexer.filters import Where
from indexer.snapshot import Snapshot
from indexer.store import IndexStore
from slow_filter import slowly_meets
from vectors import new_store, put, query_catalog, unit_rows

DIM = 4
VECTOR = unit_rows(1, DIM, seed=0)[0]
Shop = dict[str, dict[str, Any]]  # key -> metadata

SHOES: Shop = {
    "a": {"price": 10, "colour": "red", "sale": True, "tags": ["new", "summer"]},
    "b": {"price": 49.5, "colour": "blue", "sale": False, "tags": []},
    "c": {"price": 50, "colour": "Red", "size": "42"},
    "d": {"colour": None, "size": 42, "tags": ["winter", 7], "maker": {"name": "x"}},
}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = new_store(tmp_path / "index", DIM)
    yield store
    store.close()


@pytest.fixture
def shoes(store: IndexStore) -> IndexStore:
    store.commit(Changes(puts=[put(key, VECTOR, metadata=metadata) for key, metadata in SHOES.items()]))
    return store


def keys_meeting(store: IndexStore, where: Where, snapshot: Snapshot | None = None) -> str:
    """The keys that a condition lets through, in order, as one text."""
    mask = store.meeting(snapshot or store.snapshot, where)
    return "".join(sorted(picture.key for picture in named(store, snapshot, np.flatnonzero(mask).tolist())))


def named(store: IndexStore, snapshot: Snapshot | None, ids: list[int]) -> list[Any]:
    found = store.pictures(snapshot or store.snapshot, ids)
    assert sorted(found) == sorted(ids), "ids of another generation were let through"
    return list(found.values())


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("price < 50", "ab"),
        ("price <= 50", "abc"),
        ("price > 10", "bc"),
        ("price >= 10", "abc"),
        ("price = 50", "c"),
        ("price != 50", "ab"),
        ("price is missing", "d"),
        ("price is not missing", "abc"),
        ("not price < 50", "cd"),
        ("colour = 'red'", "a"),
        ("colour != 'red'", "bc"),
        ("colour in ('red', 'blue', 'green')", "ab"),
        ("colour not in ('red', 'blue')", "c"),
        ("colour is missing", "d"),
        ("colour >= 'b'", "ab"),
        ("sale = true", "a"),
        ("sale != true", "b"),
        ("not sale = true", "bcd"),
        ("size = 42", "d"),
        ("size = '42'", "c"),
        ("size != 42", "c"),
        ("size in (42, '42')", "cd"),
        ("tags = 'new'", "a"),
        ("tags = 7", "d"),
        ("tags != 'new'", "bd"),
        ("tags is missing", "c"),
        ("tags in ('summer', 'winter')", "ad"),
        ("maker is not missing", "d"),
        ("maker = 'x'", ""),
        ("key = 'b' or key = 'c'", "bc"),
        ("price < 50 and colour = 'blue'", "b"),
        ("price < 20 or size = 42", "ad"),
        ("colour = '''; DROP TABLE pictures; --'", ""),
    ],
)
def test_what_a_condition_lets_through(shoes: IndexStore, where: str, keys: str) -> None:
    assert keys_meeting(shoes, where) == keys


@pytest.mark.parametrize(
    "wheres", [("x = true", "x = 1"), ("x in (0, 5)", "x in (false, 5)"), ("not x = 0", "not x = false")]
)
def test_conditions_that_python_takes_for_equal_have_each_its_answer(
    store: IndexStore, wheres: tuple[str, str]
) -> None:
    values = {"a": 1, "b": True, "c": 0, "d": False, "e": [5, 0, False]}
    store.commit(Changes(puts=[put(key, VECTOR, metadata={"x": value}) for key, value in values.items()]))
    asked = [keys_meeting(store, where) for where in wheres]
    reopened = IndexStore(store.index_dir)
    assert [keys_meeting(reopened, where) for where in reversed(wheres)] == asked[::-1]
    assert asked[0] != asked[1]
    reopened.close()


def test_a_type_that_the_field_never_has_is_refused_after_its_equal(shoes: IndexStore) -> None:
    assert keys_meeting(shoes, "price = 1") == ""
    with pytest.raises(FilterError, match="price holds numbers, never anything like True"):
        shoes.meeting(shoes.snapshot, "price = true")


def test_whole_numbers_beyond_all_floats_are_larger_than_all(store: IndexStore) -> None:
    values = {"a": 10**400, "b": -(10**400), "c": 1}
    store.commit(Changes(puts=[put(key, VECTOR, metadata={"x": key}) for key in values]))
    with closing(sqlite3.connect(store.index_dir / "catalog.sqlite")) as catalog:  # as other software may write it
        for key, value in values.items():
            catalog.execute(
                "UPDATE attributes SET metadata = ? WHERE metadata = ?", (f'{{"x":{value}}}', f'{{"x":"{key}"}}')
            )
        catalog.commit()
    assert keys_meeting(store, "x > 1e308") == "a"
    assert keys_meeting(store, "x < 5") == "bc"


def test_product_and_label_are_fields_that_metadata_cannot_hide(store: IndexStore) -> None:
    store.commit(
        Changes(puts=[put("a", VECTOR, product_id="p", metadata={"product_id": "q", "key": "k"}), put("b", VECTOR)])
    )
    assert keys_meeting(store, "product_id = 'p'") == "a"
    assert keys_meeting(store, "product_id is missing and label is missing") == "b"
    assert keys_meeting(store, "key = 'k'") == ""


def test_an_unknown_field_is_refused_with_those_that_there_are(shoes: IndexStore) -> None:
    with pytest.raises(
        FilterError,
        match=r"^filter, position 16: no picture has a field 'prise'; there are key, product_id, label, colour, maker, "
        r"price, sale, size, tags$",
    ):
        shoes.meeting(shoes.snapshot, "price < 50 and prise < 50")
    with pytest.raises(FilterError, match=r"^filter: no picture has a field 'prise'"):
        shoes.meeting(shoes.snapshot, {"prise": 5})


def test_of_many_fields_some_are_named(store: IndexStore) -> None:
    store.commit(Changes(puts=[put("a", VECTOR, metadata={f"field{number:02}": 1 for number in range(40)})]))
    with pytest.raises(FilterError, match=r"there are key, product_id, label, field00, .*, field11 and 28 more$"):
        store.meeting(store.snapshot, "prise < 50")


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("price < '50'", "filter, position 1: price holds numbers, never anything like '50'"),
        ("price in (5, 'a')", "filter, position 1: price holds numbers, never anything like 'a'"),
        ("sale = 'yes'", "filter, position 1: sale holds true or false, never anything like 'yes'"),
        ("size = true", "filter, position 1: size holds texts or numbers, never anything like True"),
        ({"colour": 5}, "filter: colour holds texts, never anything like 5.0"),
    ],
)
def test_a_value_of_a_type_that_the_field_never_has_is_refused(shoes: IndexStore, where: Where, why: str) -> None:
    with pytest.raises(FilterError) as raised:
        shoes.meeting(shoes.snapshot, where)
    assert str(raised.value) == why


def test_an_empty_index_knows_no_field_and_refuses_none(store: IndexStore) -> None:
    assert keys_meeting(store, "price < 50") == ""
    assert (store.groups(store.snapshot, "price") == -1).all()


def test_a_field_can_come_later(shoes: IndexStore) -> None:
    assert keys_meeting(shoes, "price < 50") == "ab"
    shoes.commit(Changes(attributes={"b": Attributes(metadata={"stock": 3})}))
    assert keys_meeting(shoes, "stock > 2") == "b"
    assert keys_meeting(shoes, "price < 50") == "a"


def test_an_older_generation_answers_as_it_was(shoes: IndexStore) -> None:
    before = shoes.snapshot
    shoes.commit(Changes(attributes={"a": Attributes(metadata={"price": 60})}))
    between = shoes.snapshot
    shoes.commit(Changes(removes={"b": -1}, puts=[put("e", VECTOR, metadata={"price": 1})]))
    for _ in range(2):  # the second time from what is kept
        assert keys_meeting(shoes, "price < 50") == "e"
        assert keys_meeting(shoes, "price < 50", between) == "b"
        assert keys_meeting(shoes, "price < 50", before) == "ab"


def test_groups_are_of_one_value(shoes: IndexStore) -> None:
    shoes.commit(Changes(puts=[put("e", VECTOR, metadata={"price": 10, "tags": ["new"], "size": "42"})]))
    pictures = {picture.key: id_ for id_, picture in shoes.pictures(shoes.snapshot, range(1, 10)).items()}

    def grouped(field: str) -> list[list[str]]:
        groups = shoes.groups(shoes.snapshot, field)
        numbers = {key: int(groups[id_]) for key, id_ in pictures.items()}
        return sorted(sorted(k for k in numbers if numbers[k] == n) for n in set(numbers.values()) if n >= 0)

    assert grouped("price") == [["a", "e"], ["b"], ["c"]]
    assert grouped("size") == [["c", "e"], ["d"]]
    assert grouped("tags") == [["a", "e"], ["d"]]  # by the first of several
    assert grouped("product_id") == []
    shoes.commit(
        Changes(
            attributes={key: Attributes(metadata={"x": x}) for key, x in [("a", ["n", 5]), ("b", ["n", 6]), ("c", "n")]}
        )
    )
    shoes.commit(
        Changes(attributes={key: Attributes(metadata={"x": x}) for key, x in [("d", [5, "n", True]), ("e", [5])]})
    )
    pictures = {picture.key: id_ for id_, picture in shoes.pictures(shoes.snapshot, range(1, 10)).items()}
    assert grouped("x") == [["a", "b", "c"], ["d", "e"]]  # whatever their types
    with pytest.raises(FilterError, match="no picture has a field 'prise'"):
        shoes.groups(shoes.snapshot, "prise")


# Random shops and conditions against a look at each picture

VALUES: dict[str, list[Any]] = {
    "price": [0, 1, 2.5, -3],
    "colour": ["red", "blue", "", "Ünï"],
    "mixed": [1, "1", True, 0, False, None, {"a": 1}],
    "tags": [[], ["x"], ["x", "y", 1], [None], "y"],
}
TESTED: dict[str, list[Any]] = {"price": [0, 2.5], "colour": ["red", "c"], "mixed": [1, "1", True], "tags": ["x", 1]}


def random_metadata(draw: random.Random) -> dict[str, Any]:
    return {field: draw.choice(values) for field, values in VALUES.items() if draw.random() < 0.7}


def random_condition(draw: random.Random, depth: int = 0) -> Condition:
    if depth < 3 and draw.random() < 0.6:
        parts = tuple(random_condition(draw, depth + 1) for _ in range(draw.randint(0, 3)))
        return draw.choice([Every(parts), Some(parts), Not(random_condition(draw, depth + 1))])
    field = draw.choice(list(TESTED))
    value = draw.choice(TESTED[field])
    value = float(value) if type(value) is int else value
    operators = OPERATORS[:2] if isinstance(value, bool) else OPERATORS
    several = tuple(float(one) if type(one) is int else one for one in draw.sample(TESTED[field], 2))
    is_negated = draw.random() < 0.5
    return draw.choice(
        [Compare(field, draw.choice(operators), value), OneOf(field, several, is_negated), Missing(field, is_negated)]
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("least_waste", [2, 10_000])
def test_random_conditions_on_a_changing_shop(
    store: IndexStore, seed: int, least_waste: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.columns, "_LEAST_WASTE", least_waste)
    draw = random.Random(seed)
    # One picture has each field with a value of each type that is asked for: so none is refused.
    shop: Shop = {"all": {"price": 1, "colour": "red", "mixed": [1, "1", True], "tags": ["x", 1]}}
    store.commit(Changes(puts=[put("all", VECTOR, metadata=shop["all"])]))
    generations: list[tuple[Snapshot, Shop]] = []
    for _ in range(12):
        change: Callable[[IndexStore, Shop, random.Random], None] = draw.choice([_add, _add, _alter, _remove])
        change(store, shop, draw)
        generations = [*generations[-3:], (store.snapshot, dict(shop))]
        for snapshot, content in draw.sample(generations, min(2, len(generations))):
            condition = random_condition(draw)
            mask = store._columns.meeting(condition, snapshot.generation)
            keys = {picture.key for picture in named(store, snapshot, np.flatnonzero(mask).tolist())}
            expected = {k for k, metadata in content.items() if slowly_meets(condition, metadata | {"key": k})}
            assert keys == expected, condition


def _add(store: IndexStore, shop: Shop, draw: random.Random) -> None:
    new = {f"k{draw.randint(0, 30)}": random_metadata(draw) for _ in range(8)}
    store.commit(Changes(puts=[put(key, VECTOR, metadata=metadata) for key, metadata in new.items()]))
    shop |= new


def _alter(store: IndexStore, shop: Shop, draw: random.Random) -> None:
    new = {key: random_metadata(draw) for key in shop if key != "all" and draw.random() < 0.4}
    store.commit(Changes(attributes={key: Attributes(metadata=metadata) for key, metadata in new.items()}))
    shop |= new


def _remove(store: IndexStore, shop: Shop, draw: random.Random) -> None:
    gone = [key for key in shop if key != "all" and draw.random() < 0.3]
    store.commit(Changes(removes=dict.fromkeys(gone, -1)))
    for key in gone:
        del shop[key]


@pytest.mark.parametrize(
    "spoilt",
    ['{"price":NaN}', '{"price":-Infinity}', f'{{"price":{"9" * 400}}}', "no JSON"],
    ids=lambda text: text[:20],
)
def test_the_fields_of_metadata_that_was_let_in_once_are_passed_over(shoes: IndexStore, spoilt: str) -> None:
    shoes.commit(Changes(puts=[put("e", VECTOR, product_id="p")]))
    query_catalog(shoes.index_dir, "UPDATE attributes SET metadata = ? WHERE product_id = 'p'", spoilt)
    fields = {one.name: one for one in shoes.fields()}
    assert (fields["price"].pictures, fields["price"].least, fields["price"].greatest) == (3, 10, 50)
    assert fields["product_id"].texts == ["p"]


def test_the_attributes_are_read_once_and_then_only_what_changes(
    shoes: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[str] = []
    read_apart = shoes._catalog.read_apart
    monkeypatch.setattr(shoes._catalog, "read_apart", lambda: (readings.append("all"), read_apart())[1])
    shoes._catalog._reader.set_trace_callback(readings.append)
    shoes.meeting(shoes.snapshot, "price < 50")
    shoes.meeting(shoes.snapshot, "price < 30 and price > 5")
    assert readings == ["all"]
    shoes.commit(Changes(attributes={"a": Attributes(metadata={"price": 60})}))
    readings.clear()
    shoes.meeting(shoes.snapshot, "price < 50")
    assert "all" not in readings
    assert all("since >" in one or "until >" in one for one in readings if "FROM attributes" in one)
    assert any("since >" in one for one in readings)
    shoes.meeting(shoes.snapshot, "colour = 'red'")
    assert readings.count("all") == 1


def test_a_condition_of_one_generation_is_worked_out_once(shoes: IndexStore) -> None:
    mask = shoes.meeting(shoes.snapshot, "price < 50")
    assert shoes.meeting(shoes.snapshot, {"price": {"<": 50}}) is mask
    assert not mask.flags.writeable
    for number in range(100):
        shoes.meeting(shoes.snapshot, f"price < {number}")
    assert shoes.meeting(shoes.snapshot, "price < 50") is not mask


def test_a_generation_that_somebody_holds_does_not_have_everything_read_each_time(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.columns, "_LEAST_WASTE", 2)
    store.commit(Changes(puts=[put(f"{row}", VECTOR, metadata={"x": 0}) for row in range(9)]))
    held = store.snapshot
    for number in range(1, 4):
        store.commit(Changes(attributes={f"{row}": Attributes(metadata={"x": number}) for row in range(9)}))
    readings: list[str] = []
    read_apart = store._catalog.read_apart
    monkeypatch.setattr(store._catalog, "read_apart", lambda: (readings.append("all"), read_apart())[1])
    for number in range(3):
        assert keys_meeting(store, f"x > {number}", held) == ""
        assert keys_meeting(store, f"x > {number}") == "012345678"
    assert readings == ["all"]


def test_parsing_and_conditions_agree_on_what_is_equal() -> None:
    assert parse_filter("a = 1") == Compare("a", "=", 1.0)
    assert hash(parse_filter("a = 1")) == hash(parse_filter(" a = 1"))
