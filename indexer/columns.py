"""Which pictures of a generation meet a condition? Their attributes in memory, one column for each field asked for.

A row is what was said of a picture from one generation to another, as in the catalog. Rows are added and never changed
but for their end, so the same table answers for older generations while it follows the newest one, and following costs
in proportion to what has changed.
"""

import functools
import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.catalog import Catalog
from indexer.column import Column, Growing
from indexer.conditions import BUILT_IN, Compare, Condition, Every, Missing, Not, OneOf, Some, Value
from indexer.errors import FilterError
from indexer.forgetting import oldest_generation, refuse_forgotten
from indexer.spaces import newest_generation
from indexer.vectors import Mask

_STILL = np.iinfo(np.int64).max  # the end of a row that holds
_ROWS = (
    "SELECT a.picture_id, a.since, a.until, p.key, a.product_id, a.label, a.metadata"
    " FROM attributes a JOIN pictures p ON p.id = a.picture_id"
)
_ROWS_AT_ONCE = 10_000
_LEAST_WASTE = 10_000  # rows that no longer hold, below which they are no burden
_MOST_KEPT = 16
_MOST_NAMED = 12
_Places = NDArray[np.int64] | slice


class Columns:
    """The attributes of an index, read when the first condition asks for them; safe in several threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._table: _Table | None = None
        self._lock = threading.Lock()

    def meeting(self, condition: Condition, generation: int) -> Mask:
        """(highest id + 1,) bool, by picture id: which pictures of a generation meet a condition. Not to be changed.

        Raises:
            FilterError: it names a field that no picture has, or compares it with a value of a type it never has.
        """
        with self._lock:
            return self._table_for(generation, set(_fields_of(condition))).meeting(condition, generation)

    def groups(self, field: str, generation: int) -> NDArray[np.int64]:
        """(highest id + 1,) int64, by picture id: the same number for pictures with the same value, -1 where none.

        Raises:
            FilterError: no picture has that field.
        """
        with self._lock:
            return self._table_for(generation, {field}).groups(field, generation)

    def _table_for(self, generation: int, fields: set[str]) -> "_Table":
        table = self._table
        if table is None or generation < table.first_generation or table.is_wasteful:
            known = set() if table is None else table.fields
            table = self._read(generation, fields | known)
        if generation > table.generation:
            with self._catalog.read() as connection:
                is_whole = oldest_generation(connection) <= table.generation
                if is_whole:
                    table.advance(connection)
            if not is_whole:
                table = self._read(generation, fields | table.fields)
        if (fields & table.names) - table.fields:
            table = self._read(generation, fields | table.fields)
        return table

    def _read(self, generation: int, fields: set[str]) -> "_Table":
        with self._catalog.read_apart() as connection:
            refuse_forgotten(connection, generation)
            self._table = _Table(connection, generation, fields)
        return self._table


class _Table:
    """The rows that hold in some generation from the first on."""

    def __init__(self, connection: sqlite3.Connection, first_generation: int, fields: set[str]) -> None:
        self.first_generation = first_generation
        self.generation, _ = newest_generation(connection)
        self.names = set(BUILT_IN)  # every field that a row has
        self.fields = fields
        self._columns = {name: Column() for name in fields}
        self._ids, self._since, self._until = Growing(np.int64), Growing(np.int64), Growing(np.int64)
        self._row_of = Growing(np.int32)  # by picture id, the one of its rows that holds still
        self._ended = 0  # rows, since these were read
        self._rows_of: tuple[int, _Places, _Places] | None = None  # of the generation that was asked for last
        self._answers: OrderedDict[tuple[str, str, int], NDArray[Any]] = OrderedDict()
        rows = connection.execute(f"{_ROWS} WHERE a.until IS NULL OR a.until > ?", (first_generation,))
        while several := rows.fetchmany(_ROWS_AT_ONCE):
            self._append(several)

    @property
    def is_wasteful(self) -> bool:
        """Most rows have ended since they were read: a generation that somebody holds on to needs those from before."""
        return self._ended > max(_LEAST_WASTE, len(self._ids.array) // 2)

    def advance(self, connection: sqlite3.Connection) -> None:
        """Follow to the newest generation, reading only what has changed since."""
        ended = connection.execute(
            "SELECT picture_id, until FROM attributes WHERE until > ? AND since <= ?",
            (self.generation, self.generation),
        ).fetchall()
        if ended:
            ids, until = np.array(ended, np.int64).T
            self._until.array[self._row_of.array[ids]] = until
            self._ended += len(ended)
        self._append(connection.execute(f"{_ROWS} WHERE a.since > ? ORDER BY a.since", (self.generation,)).fetchall())
        self.generation, _ = newest_generation(connection)

    def _append(self, rows: list[tuple[Any, ...]]) -> None:
        if not rows:
            return
        ids, since, until, keys, product_ids, labels, metadata = zip(*rows, strict=True)
        said = [json.loads(text) for text in metadata]
        self.names.update(*said)
        first = len(self._ids.array)
        built_in = dict(zip(BUILT_IN, (keys, product_ids, labels), strict=True))
        for name, column in self._columns.items():
            column.append(first, built_in[name] if name in built_in else [values.get(name) for values in said])
        self._ids.append(ids)
        self._since.append(since)
        self._until.append([_STILL if end is None else end for end in until])
        self._row_of.append(np.full(max(0, max(ids) + 1 - len(self._row_of.array)), -1))
        holds = np.array([end is None for end in until])
        self._row_of.array[np.array(ids)[holds]] = first + np.flatnonzero(holds)

    def meeting(self, condition: Condition, generation: int) -> Mask:
        """See `Columns.meeting`."""
        # by its text: true and 1 are equal in Python, and so are conditions that ask for them
        wanted = "meeting", repr(condition), generation
        return self._kept(wanted, lambda: self._by_id(self._holds(condition), False, generation))

    def groups(self, field: str, generation: int) -> NDArray[np.int64]:
        """See `Columns.groups`."""
        column, count = self._column(field, 0), len(self._ids.array)
        wanted = "groups", field, generation
        return self._kept(wanted, lambda: self._by_id(column.groups(count), -1, generation))

    def _kept(self, wanted: tuple[str, str, int], make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What was asked for lately, or else is made."""
        if wanted not in self._answers:
            self._answers[wanted] = make()
            self._answers[wanted].setflags(write=False)
            if len(self._answers) > _MOST_KEPT:
                self._answers.popitem(last=False)
        self._answers.move_to_end(wanted)
        return self._answers[wanted]

    def _by_id(self, of_rows: NDArray[Any], without: object, generation: int) -> NDArray[Any]:
        """By picture id, what (rows,) values say of a generation's pictures."""
        rows, ids = self._of(generation)
        by_id = np.full(len(self._row_of.array), without, of_rows.dtype)
        by_id[ids] = of_rows[rows]
        return by_id

    def _of(self, generation: int) -> tuple[_Places, _Places]:
        """The rows of a generation, one a picture, and the pictures' ids."""
        if self._rows_of is None or self._rows_of[0] != generation:
            rows = np.flatnonzero((self._since.array <= generation) & (generation < self._until.array))
            self._rows_of = generation, _as_run(rows), _as_run(self._ids.array[rows])
        return self._rows_of[1:]

    def _holds(self, condition: Condition) -> Mask:
        """(rows,) of which rows a condition is true."""
        count = len(self._ids.array)
        match condition:
            case Every(parts):
                return functools.reduce(np.logical_and, map(self._holds, parts), np.ones(count, np.bool_))
            case Some(parts):
                return functools.reduce(np.logical_or, map(self._holds, parts), np.zeros(count, np.bool_))
            case Not(part):
                return ~self._holds(part)
            case Missing(field, is_negated, at):
                is_present = self._column(field, at).present(count)
                return is_present if is_negated else ~is_present
            case OneOf(field, values, is_negated, at):
                column = self._column(field, at, *values)
                has_one = column.one_of(count, values)
                return column.present(count) & ~has_one if is_negated else has_one
            case Compare(field, "=" | "!=" as operator, value, at):
                return self._holds(OneOf(field, (value,), operator == "!=", at))
            case Compare(field, operator, value, at):
                return self._column(field, at, value).compared(count, operator, value)

    def _column(self, field: str, at: int, *values: Value) -> Column:
        """The field's values, if it is one and can be compared with these."""
        where = f"filter, position {at}" if at else "filter"
        column = self._columns.get(field, Column())
        if field not in self.names and len(self._ids.array):
            names = sorted(self.names - set(BUILT_IN))
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            known = ", ".join((*BUILT_IN, *names[:_MOST_NAMED]))
            raise FilterError(f"{where}: no picture has a field {field!r}; there are {known}{more}")
        for value in values:
            if column.types and not column.takes(value):
                held = " or ".join(column.types)
                raise FilterError(f"{where}: {field} holds {held}, never anything like {value!r}")
        return column


def _as_run(places: NDArray[np.int64]) -> _Places:
    """Places as a slice where they are one behind the other: copied several times as fast."""
    is_run = places.size > 0 and bool((np.diff(places) == 1).all())
    return slice(int(places[0]), int(places[-1]) + 1) if is_run else places


def _fields_of(condition: Condition) -> Iterator[str]:
    match condition:
        case Every(parts) | Some(parts):
            for part in parts:
                yield from _fields_of(part)
        case Not(part):
            yield from _fields_of(part)
        case _:
            yield condition.field
