"""What is a condition on the attributes of pictures? A tree of comparisons.

A picture without a field meets no comparison of it, `!=` and `not in` included; `Not` is true of whatever its part is
not. A list in the metadata meets a comparison if one of its values does, `!=` and `not in` if none is equal. Texts,
numbers and flags are equal to nothing of another type.
"""

import dataclasses
from dataclasses import dataclass
from typing import Final

BUILT_IN: Final = ("key", "product_id", "label")  # metadata of these names cannot be asked for
MOST_DEPTH = 100  # of what is nested; Python's stack takes some hundreds

Value = str | float | bool
OPERATORS: Final = ("=", "!=", "<", "<=", ">", ">=")
SYNONYMS: Final = {"==": "=", "<>": "!="}


@dataclass(frozen=True, slots=True)
class Compare:
    """A field is in a relation to a value.

    Attributes:
        at: where this stands in the text, from 1; 0 for a condition that was no text.
    """

    field: str
    operator: str
    value: Value
    at: int = dataclasses.field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class OneOf:
    """A field has one of some values or, negated, another one."""

    field: str
    values: tuple[Value, ...]
    is_negated: bool = False
    at: int = dataclasses.field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Missing:
    """A picture lacks a field or, negated, has it."""

    field: str
    is_negated: bool = False
    at: int = dataclasses.field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Not:
    """A condition does not hold."""

    part: "Condition"


@dataclass(frozen=True, slots=True)
class Every:
    """All of some conditions hold; of none, always."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Some:
    """One of some conditions holds, or several; of none, never."""

    parts: tuple["Condition", ...]


Condition = Compare | OneOf | Missing | Not | Every | Some


def joined(kind: type[Every] | type[Some], parts: list[Condition]) -> Condition:
    """Several conditions as one; of one, itself."""
    return parts[0] if len(parts) == 1 else kind(tuple(parts))
