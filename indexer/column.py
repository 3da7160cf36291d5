"""What do pictures have under one field, and which of them meet a comparison? Arrays that grow at their end."""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexer.filters import Value
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
        self._code_of: dict[str, int] = {}  # texts are kept as numbers, in the order of their first appearance
        self._incomparable = Growing(np.int32)  # rows with an object or an empty list

    def append(self, first_row: int, values: Iterable[Any]) -> None:
        """Add the JSON values of the rows from `first_row` on; None of a row that lacks the field."""
        rows: dict[type, list[int]] = {kind: [] for kind in _TYPES}
        found: dict[type, list[Any]] = {kind: [] for kind in _TYPES}
        incomparable = []
        for row, value in enumerate(values, first_row):
            if value is None:
                continue
            several = value if isinstance(value, list) else (value,)
            comparable = [
                float(one) if type(one) is int else one for one in several if isinstance(one, str | int | float)
            ]
            for one in comparable:
                rows[type(one)].append(row)
                found[type(one)].append(self._code(one) if isinstance(one, str) else one)
            if not comparable:
                incomparable.append(row)
        for kind in _TYPES:
            self._rows[kind].append(rows[kind])
            self._values[kind].append(found[kind])
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
            wanted: list[Any] = [value for value in values if type(value) is kind]
            if kind is str:
                wanted = [self._code_of[text] for text in wanted if text in self._code_of]
            there = self._values[kind].array
            # One value is compared many times faster than looked up in a list.
            is_met = there == wanted[0] if len(wanted) == 1 else np.isin(there, wanted)
            mask[self._rows[kind].array[is_met]] = True
        return mask

    def compared(self, count: int, sign: str, value: Value) -> Mask:
        """(count,) whether each row has a value that is <, <=, > or >= this text (by its characters) or number."""
        compare, kind = _COMPARISONS[sign], type(value)
        if isinstance(value, str):
            of_code = np.fromiter((compare(text, value) for text in self._code_of), np.bool_, len(self._code_of))
            is_met = of_code[self._values[str].array]
        else:
            is_met = compare(self._values[kind].array, value)
        mask = np.zeros(count, np.bool_)
        mask[self._rows[kind].array[is_met]] = True
        return mask

    def groups(self, count: int) -> NDArray[np.int64]:
        """(count,) a number that rows share whose (first) value is the same; -1 of rows without one."""
        groups = np.full(count, -1, np.int64)
        taken = 0
        for kind in _TYPES:
            rows, values = self._rows[kind].array, self._values[kind].array
            distinct, numbers = np.unique(values, return_inverse=True)
            groups[rows[::-1]] = numbers[::-1] + taken  # backwards: of a list, the first value stays
            taken += len(distinct)
        return groups
