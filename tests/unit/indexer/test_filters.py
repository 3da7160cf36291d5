"""A condition is read as it is written, whatever stands in its texts, and what is wrong is named with its place."""

from enum import StrEnum

import numpy as np
import pytest

from indexer.conditions import MOST_DEPTH, Compare, Condition, Every, Missing, Not, OneOf, Some
from indexer.errors import FilterError
from indexer.filter_text import MOST_CHARACTERS, parse_filter
from indexer.filters import filter_of, read_filter

A, B, C = (Compare(name, "=", 1.0) for name in "abc")


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("category = 'shoe'", Compare("category", "=", "shoe")),
        ('category = "shoe"', Compare("category", "=", "shoe")),
        ("a == 1", A),
        ("a<>1", Compare("a", "!=", 1.0)),
        ("price<-.5e1", Compare("price", "<", -5.0)),
        ("price >= +10.", Compare("price", ">=", 10.0)),
        ("sale = TRUE", Compare("sale", "=", True)),
        ("sale != false", Compare("sale", "!=", False)),
        ("size = '42'", Compare("size", "=", "42")),
        ("colour in ('red', 'blue')", OneOf("colour", ("red", "blue"))),
        ("colour NOT IN ('red', 5, true)", OneOf("colour", ("red", 5.0, True), is_negated=True)),
        ("price is missing", Missing("price")),
        ("price Is Not Missing", Missing("price", is_negated=True)),
        ("[on sale] = 1", Compare("on sale", "=", 1.0)),
        ("[or] = 1", Compare("or", "=", 1.0)),
        ("Größe = 1", Compare("Größe", "=", 1.0)),
        ("shop.price-net_2 = 1", Compare("shop.price-net_2", "=", 1.0)),
        ("a = 1 and b = 1 and c = 1", Every((A, B, C))),
        ("a = 1 or b = 1 and c = 1", Some((A, Every((B, C))))),
        ("(a = 1 or b = 1) and c = 1", Every((Some((A, B)), C))),
        ("not a = 1 and b = 1", Every((Not(A), B))),
        ("not (a = 1 and b = 1)", Not(Every((A, B)))),
        ("not not a = 1", Not(Not(A))),
        ("\n a\t=\n1 ", A),
    ],
)
def test_a_text_is_read(text: str, condition: Condition) -> None:
    assert parse_filter(text) == read_filter(text) == condition


@pytest.mark.parametrize(
    "value",
    ["", "it's", 'a "b" c', "'; DROP TABLE pictures; --", "x' or 'a' = 'a", "(", "])", "\\", "\n", "%", "true", "é🙂"],
)
@pytest.mark.parametrize("quote", ["'", '"'])
def test_whatever_stands_in_a_text_is_a_value(value: str, quote: str) -> None:
    written = f"{quote}{value.replace(quote, quote * 2)}{quote}"
    assert parse_filter(f"a = {written}") == Compare("a", "=", value)
    assert parse_filter(f"a in ({written}, 1)") == OneOf("a", (value, 1.0))


@pytest.mark.parametrize(
    ("text", "position", "why"),
    [
        ("", 1, "a field expected, the end found"),
        ("   ", 4, "a field expected, the end found"),
        ("price", 6, "a comparison (=, !=, <, <=, >, >=, in, not in, is missing) expected, the end found"),
        ("price <", 8, "a value: a text in quotes, a number, true or false expected, the end found"),
        ("price < fifty", 9, "a value: a text in quotes, a number, true or false expected, 'fifty' found"),
        ("price ~ 5", 7, "'~' has no meaning"),
        ("price < 5; drop", 10, "';' has no meaning"),
        ("price < 5 colour = 'red'", 11, "`and`, `or` or the end expected, 'colour' found"),
        ("price < 5 and", 14, "a field expected, the end found"),
        ("(price < 5", 11, "`)` expected, the end found"),
        ("price < 5)", 10, "`and`, `or` or the end expected, ')' found"),
        ("colour in 'red'", 11, "`(` expected, \"'red'\" found"),
        ("colour in ()", 12, "a value"),
        ("colour in ('red' 'blue')", 18, "`)` expected"),
        ("colour = 'red", 10, "the text that begins here is never closed"),
        ('colour = "red', 10, "the text that begins here is never closed"),
        ("[colour = 'red'", 1, "the name that begins here is never closed"),
        ("sale > true", 1, "> has no meaning with true and false; use = or !="),
        ("price is cheap", 10, "`missing` expected, 'cheap' found"),
        ("price not 5", 11, "`in` expected"),
        ("5 < price", 1, "a field expected, '5' found"),
        ("price < 5abc", 9, "'5' has no meaning"),
        ("price < 1.2.3", 9, "'1' has no meaning"),
        ("price < 1e999", 9, "1e999 is too large a number"),
        ("and = 1", 1, "a field expected, 'and' found"),
        ("__import__('os')", 11, "a comparison"),
    ],
)
def test_what_is_wrong_is_named_with_its_position(text: str, position: int, why: str) -> None:
    with pytest.raises(FilterError) as raised:
        parse_filter(text)
    assert str(raised.value).startswith(f"filter, position {position}: {why}")
    assert "\n" not in str(raised.value)


def test_a_long_filter_is_read() -> None:
    colours = ", ".join(f"'colour {number}'" for number in range(800))
    text = f"colour in ({colours})"
    condition = parse_filter(text)
    assert len(text) > 10_000
    assert isinstance(condition, OneOf)
    assert len(condition.values) == 800


def test_a_filter_beyond_the_limit_is_refused_by_its_length() -> None:
    text = "a = 1 or " * (MOST_CHARACTERS // 9 + 1) + "a = 1"
    with pytest.raises(FilterError, match=f"filter of {len(text)} characters; at most {MOST_CHARACTERS} are read"):
        parse_filter(text)


@pytest.mark.parametrize("opening", ["(", "not ", "not("])
def test_deep_nesting_is_refused_before_the_stack_ends(opening: str) -> None:
    assert parse_filter("(" * MOST_DEPTH + "a = 1" + ")" * MOST_DEPTH) == A
    with pytest.raises(FilterError, match=f"nested more than {MOST_DEPTH} deep"):
        parse_filter(opening * 3000)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"category": "shoe"}, "category = 'shoe'"),
        ({"category": "shoe", "price": {"<": 50}}, "category = 'shoe' and price < 50"),
        ({"price": {">=": 10, "<": 50}}, "price >= 10 and price < 50"),
        ({"colour": ["red", "blue"]}, "colour in ('red', 'blue')"),
        ({"colour": {"not in": ("red", 5)}}, "colour not in ('red', 5)"),
        ({"colour": {"!=": "red"}}, "colour != 'red'"),
        ({"sale": True}, "sale = true"),
        ({"sale": None}, "sale is missing"),
        ({"sale": {"is missing": False}}, "sale is not missing"),
        ({"or": [{"a": 1}, {"b": 1, "c": 1}]}, "a = 1 or b = 1 and c = 1"),
        ({"and": [{"a": 1}, {"not": {"b": 1}}]}, "a = 1 and not b = 1"),
        ({"not": {"a": 1, "b": 1}}, "not (a = 1 and b = 1)"),
    ],
)
def test_plain_values_say_the_same_as_a_text(values: dict[str, object], text: str) -> None:
    assert filter_of(values) == read_filter(values) == parse_filter(text)


class Size(StrEnum):
    LARGE = "l"


@pytest.mark.parametrize(
    ("values", "plain"),
    [
        ({"a": np.str_("t")}, {"a": "t"}),
        ({"a": Size.LARGE}, {"a": "l"}),
        ({"a": np.int64(5)}, {"a": 5}),
        ({"a": {"<": np.float32(0.5)}}, {"a": {"<": 0.5}}),
        ({"a": (np.bool_(True), Size.LARGE, np.uint8(1))}, {"a": [True, "l", 1]}),
        ({"a": {"is missing": np.bool_(False)}}, {"a": {"is missing": False}}),
    ],
)
def test_values_of_numpy_and_of_enumerations_are_plain_ones(
    values: dict[str, object], plain: dict[str, object]
) -> None:
    assert repr(filter_of(values)) == repr(filter_of(plain))  # of equal types, too


def test_no_condition_lets_everything_through_and_an_empty_choice_nothing() -> None:
    assert filter_of({}) == Every(())
    assert filter_of({"or": []}) == Some(())
    assert filter_of({"colour": []}) == OneOf("colour", ())


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"price": {"~": 5}}, "price: '~' is no comparison"),
        ({"price": {"<": None}}, "price: None is no text, number, true or false"),
        ({"price": {"<": True}}, "price: < has no meaning with true and false"),
        ({"price": float("nan")}, "price: nan is no text"),
        ({"price": {"in": "red"}}, "price: 'red' is no list of values"),
        ({"price": [{"<": 5}]}, "price: {'<': 5} is no text"),
        ({"or": {"a": 1}}, "\"or\" is {'a': 1}; give a list of mappings"),
        ({"and": ["a = 1"]}, "\"and\" is ['a = 1']; give a list of mappings"),
        ({"not": [1]}, '"not" is [1]; give a mapping'),
        ({"price": 10**400}, "price: a whole number of 1329 bits; give one up to 1.8e308"),
        ({"price": {"<": -(10**9999)}}, "price: a whole number of"),
        ({"price": b"5"}, "price: b'5' is no text"),
    ],
)
def test_wrong_plain_values_are_named(values: dict[str, object], why: str) -> None:
    with pytest.raises(FilterError) as raised:
        filter_of(values)
    assert str(raised.value).startswith(f"filter: {why}")


def test_plain_values_may_not_be_nested_without_end() -> None:
    values: dict[str, object] = {"a": 1}
    for _ in range(3000):
        values = {"not": values}
    with pytest.raises(FilterError, match=f"nested more than {MOST_DEPTH} deep"):
        filter_of(values)
