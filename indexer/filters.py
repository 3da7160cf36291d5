"""What does a condition say that a caller has given, as a text or as plain values?"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from indexer.conditions import (
    MOST_DEPTH,
    OPERATORS,
    SYNONYMS,
    Compare,
    Condition,
    Every,
    Missing,
    Not,
    OneOf,
    Some,
    Value,
    joined,
)
from indexer.errors import FilterError
from indexer.filter_text import parse_filter

Where = str | Mapping[str, Any]
"""What a caller may give: a text as `indexer.filter_text` reads it, or plain values as `filter_of` takes them."""


def read_filter(where: Where) -> Condition:
    """The condition that a caller has given in either form.

    Raises:
        FilterError: it is not understood.
    """
    return parse_filter(where) if isinstance(where, str) else filter_of(where)


def filter_of(values: Mapping[str, Any]) -> Condition:
    """Read a condition from plain values, as JSON has them.

    `{"category": "shoe", "price": {"<": 50}, "colour": ["red", "blue"], "size": {"not in": [41, 42]}, "sale": None}`:
    a value is one to be equal to, a list holds those of which one is to be had, None asks that the field be missing, a
    mapping compares, `{"is missing": False}` included. All entries must hold. Under `"or"` and `"and"` stands a list
    of such mappings, under `"not"` one.

    Raises:
        FilterError: names the entry that is not understood.
    """
    return _every_entry(values, 0)


def _every_entry(values: Mapping[str, Any], depth: int) -> Condition:
    if depth > MOST_DEPTH:
        raise FilterError(f"filter: nested more than {MOST_DEPTH} deep; write it flatter")
    return joined(Every, [_entry(name, value, depth) for name, value in values.items()])


def _entry(name: str, value: Any, depth: int) -> Condition:
    value = _plain(value)
    if name in ("and", "or"):
        if not isinstance(value, Sequence) or not all(isinstance(part, Mapping) for part in value):
            raise FilterError(f'filter: "{name}" is {value!r}; give a list of mappings')
        return joined(Every if name == "and" else Some, [_every_entry(part, depth + 1) for part in value])
    if name == "not":
        if not isinstance(value, Mapping):
            raise FilterError(f'filter: "not" is {value!r}; give a mapping')
        return Not(_every_entry(value, depth + 1))
    if value is None:
        return Missing(name)
    if isinstance(value, Mapping):
        return joined(Every, [_comparison(name, operator, operand) for operator, operand in value.items()])
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return OneOf(name, _values(name, value))
    return Compare(name, "=", _value(name, value))


def _comparison(name: str, operator: str, operand: Any) -> Condition:
    operator, operand = SYNONYMS.get(operator, operator), _plain(operand)
    if operator == "is missing" and isinstance(operand, bool):
        return Missing(name, is_negated=not operand)
    if operator in ("in", "not in"):
        return OneOf(name, _values(name, operand), is_negated=operator == "not in")
    if operator not in OPERATORS:
        known = ", ".join((*OPERATORS, "in", "not in", "is missing"))
        raise FilterError(f"filter: {name}: {operator!r} is no comparison; they are {known}")
    value = _value(name, operand)
    if isinstance(value, bool) and operator not in ("=", "!="):
        raise FilterError(f"filter: {name}: {operator} has no meaning with true and false; use = or !=")
    return Compare(name, operator, value)


def _values(name: str, values: Any) -> tuple[Value, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise FilterError(f"filter: {name}: {values!r} is no list of values")
    return tuple(_value(name, value) for value in values)


def _value(name: str, value: Any) -> Value:
    value = _plain(value)
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise FilterError(f"filter: {name}: a whole number of {value.bit_length()} bits; give one up to 1.8e308")
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    raise FilterError(f"filter: {name}: {value!r} is no text, number, true or false")


def _plain(value: Any) -> Any:
    """A scalar of numpy, or a text of a type of its own such as an enumeration's, as Python's own."""
    if isinstance(value, np.generic):
        value = value.item()
    return str.__str__(value) if isinstance(value, str) else value
