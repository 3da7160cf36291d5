"""What do pictures have under one field, and which of them meet a comparison? Arrays that grow at their end."""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexer.conditions import Value
from indexer.vectors import Mask

_LEAST_ROOM = 1024
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TYPES = {str: "texts", float: "numbers", bool: "true or false"}


class Growing:
    """A one-dimensional array with spare room at its end."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._room = np.empty(_LEAST_ROOM, dtype)
        self._used = 0

    def append(self, values: ArrayLike) -> None:
        """Add (N,) values."""
        values = np.asarray(values, self._room.dtype)
        end = self._used + len(values)
        if end > len(self._room):
            larger = np.empty(2 * end, self._room.dtype)
            larger[: self._used] = self.array
            self._room = larger
        self._room[self._used : end] = values
        self._used = end

    @property
    def array(self) -> NDArray[Any]:
        """All values so far, as a view."""
        return self._room[: self._used]


class Column:
    """The values of one field by row, each type by itself: 5, "5" and true are equal to nothing of another type.

    A row may have none, one or, where its value is a list, several.
    """

    def __init__(self) -> None:
        self._rows = {kind: Growing(np.int32) for kind in _TYPES}
        self._values = {str: Growing(np.int32), float: Growing(np.float64), bool: Growing(np.bool_)}
        self._behind = {kind: Growing(np.int32) for kind in _TYPES}  # rows where a value of another type comes first
        self._is_of_every_row = dict.fromkeys(_TYPES, True)  # so far: each has exactly one value of that type
        self._code_of: dict[str, int] = {}  # texts are kept as numbers, in the order of their first appearance
        self._incomparable = Growing(np.int32)  # rows with an object or an empty list

    def append(self, first_row: int, values: Iterable[Any]) -> None:
        """Add the JSON values of the rows from `first_row` on; None of a row that lacks the field."""
        rows: dict[type, list[int]] = {kind: [] for kind in _TYPES}
        found: dict[type, list[Any]] = {kind: [] for kind in _TYPES}
        behind: dict[type, list[int]] = {kind: [] for kind in _TYPES}
        incomparable = []
        for row, value in enumerate(values, first_row):
            if value is None:
                continue
            several = value if isinstance(value, list) else (value,)
            comparable = [
                _number(one) if type(one) is int else one for one in several if isinstance(one, str | int | float)
            ]
            for kind in {type(one) for one in comparable[1:]} - {type(one) for one in comparable[:1]}:
                behind[kind].append(row)
            for one in comparable:
                rows[type(one)].append(row)
                found[type(one)].append(self._code(one) if isinstance(one, str) else one)
            if not comparable:
                incomparable.append(row)
        for kind in _TYPES:
            here = range(len(self._rows[kind].array), len(self._rows[kind].array) + len(rows[kind]))
            self._is_of_every_row[kind] &= rows[kind] == list(here)
            self._rows[kind].append(rows[kind])
            self._values[kind].append(found[kind])
            self._behind[kind].append(behind[kind])
        self._incomparable.append(incomparable)

    def _code(self, text: str) -> int:
        return self._code_of.setdefault(text, len(self._code_of))

    @property
    def types(self) -> list[str]:
        """What the values are, in words."""
        return [words for kind, words in _TYPES.items() if len(self._rows[kind].array)]

    def takes(self, value: Value) -> bool:
        """Whether some row has, or has had, a value of this one's type."""
        return len(self._rows[type(value)].array) > 0

    def present(self, count: int) -> Mask:
        """(count,) whether each of the first so many rows has any value."""
        mask = np.zeros(count, np.bool_)
        for rows in (*self._rows.values(), self._incomparable):
            mask[rows.array] = True
        return mask

    def one_of(self, count: int, values: Sequence[Value]) -> Mask:
        """(count,) whether each row has one of the values."""
        mask = np.zeros(count, np.bool_)
        for kind in _TYPES:
            wanted = [value for value in values if type(value) is kind]
            if not wanted:
                continue
            there = self._values[kind].array
            if kind is str:
                codes = [self._code_of[text] for text in wanted if text in self._code_of]
                is_met = self._of_codes(np.isin(np.arange(len(self._code_of)), codes))
            else:  # one value is compared many times faster than looked up in a list
                is_met = there == wanted[0] if len(wanted) == 1 else np.isin(there, wanted)
            mask |= self._by_row(count, kind, is_met)
        return mask

    def compared(self, count: int, sign: str, value: Value) -> Mask:
        """(count,) whether each row has a value that is <, <=, > or >= this text (by its characters) or number."""
        compare = _COMPARISONS[sign]
        if isinstance(value, str):
            texts = (compare(text, value) for text in self._code_of)
            return self._by_row(count, str, self._of_codes(np.fromiter(texts, np.bool_, len(self._code_of))))
        return self._by_row(count, float, compare(self._values[float].array, value))

    def _of_codes(self, is_met: Mask) -> Mask:
        """What a mask of the different texts says of the text of each value."""
        met: Mask = is_met[self._values[str].array]
        return met

    def _by_row(self, count: int, kind: type, is_met: Mask) -> Mask:
        """(count,) whether one of a row's values of a type is met, where it is known of (M,) values."""
        if self._is_of_every_row[kind] and len(is_met) == count:
            return is_met
        mask = np.zeros(count, np.bool_)
        mask[self._rows[kind].array[is_met]] = True
        return mask

    def groups(self, count: int) -> NDArray[np.int64]:
        """(count,) a number that rows share whose (first) value is the same; -1 of rows without one."""
        groups = np.full(count, -1, np.int64)
        taken = 0
        for kind in _TYPES:
            rows, numbers, behind = self._rows[kind].array, self._values[kind].array, self._behind[kind].array
            if kind is float:  # of texts and flags, the values are such numbers
                numbers = np.unique(numbers, return_inverse=True)[1]
            before = groups[behind]
            groups[rows[::-1]] = numbers[::-1] + taken  # backwards: of a list, the first value stays
            groups[behind] = before
            taken += int(numbers.max(initial=-1)) + 1
        return groups


def _number(whole: int) -> float:
    """The nearest float; infinite where a whole number is beyond all."""
    try:
        return float(whole)
    except OverflowError:
        return math.inf if whole > 0 else -math.inf
