"""What one commit changes: the rows it is given, and how they become the next generation."""

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexer.errors import UnstorableValue
from indexer.spaces import add_generation, fill, newest_generation, refuse_other_space

ANY_PICTURE: Final = -1  # `expected_id`: whatever is under the key now, the later write wins
NO_PICTURE: Final = 0  # `expected_id`: nothing may be under the key by now
KEEP: Final[Any] = object()  # in `Changes.attributes`: stays what it is when the commit comes to it


@dataclass(frozen=True, slots=True)
class Attributes:
    """What may change of a picture without touching its vector."""

    product_id: str | None = None
    label: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Put:
    """A picture to add, or to put in place of what its key holds.

    Attributes:
        vector: (D,) unit float32, the picture's embedding in the live space.
        source_id: the gallery that owns the key, or None for an upsert, which no sync may touch.
        path: of the file; None where it is the source's folder and the key.
        expected_id: commit only if this picture is (still) what the key holds.
    """

    key: str
    vector: NDArray[np.float32]
    content_hash: str
    size_bytes: int
    mtime_ns: int
    scanned_ns: int
    source_id: int | None = None
    path: str | None = None
    box: str | None = None
    attributes: Attributes = field(default_factory=Attributes)
    expected_id: int = ANY_PICTURE


@dataclass(frozen=True, slots=True)
class Touch:
    """A picture whose file looks different and is not: remember how it looks now."""

    picture_id: int
    size_bytes: int
    mtime_ns: int
    scanned_ns: int


@dataclass(frozen=True, slots=True)
class Skip:
    """A picture that could not be decoded, remembered until its file changes."""

    source_id: int
    key: str
    reason: str
    size_bytes: int
    mtime_ns: int


@dataclass(slots=True)
class Changes:
    """Everything that one commit changes.

    Attributes:
        puts: in order; of two with one key the later wins.
        removes: key -> `expected_id`.
        attributes: key -> what replaces its attributes, but for those that are `KEEP`.
        expected: of `attributes`, key -> `expected_id`; whatever is there where none is named.
        renewals: picture id -> (D,) unit float32, for pictures that have lost their vector.
        touches, skips: bookkeeping; alone, they make no new generation.
        unskips: (source_id, key) no longer to be remembered as undecodable.
    """

    puts: list[Put] = field(default_factory=list)
    removes: dict[str, int] = field(default_factory=dict)
    attributes: dict[str, Attributes] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    renewals: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    touches: list[Touch] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    unskips: list[tuple[int, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)

    @property
    def has_vectors(self) -> bool:
        """Whether any of it belongs to one space alone."""
        return bool(self.puts or self.renewals)


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did.

    Attributes:
        generation: the newest one, whether or not this commit made it.
        added, updated, removed: keys, in the order given, each once.
        outdated: keys whose `expected_id` no longer held (a later write stands there), or of removes and attributes
            for a key that holds no picture.
    """

    generation: int
    added: list[str]
    updated: list[str]
    removed: list[str]
    outdated: list[str]


def apply(connection: sqlite3.Connection, changes: Changes, space_id: int, note: str) -> Committed:
    """Write `changes` into the catalog, inside the write transaction that the caller holds.

    Args:
        space_id: of the space that their vectors are of.

    Raises:
        ModelMismatch: another space is live by now.
    """
    number, live = newest_generation(connection)
    if changes.has_vectors:
        refuse_other_space(space_id, live.id)
    writer = _Writer(connection, number + 1, live.id)
    for put in changes.puts:
        writer.put(put)
    for key, expected_id in changes.removes.items():
        writer.remove(key, expected_id)
    for key, attributes in changes.attributes.items():
        writer.set_attributes(key, attributes, changes.expected.get(key, ANY_PICTURE))
    for picture_id, vector in changes.renewals.items():
        writer.renew(picture_id, vector)
    _keep_books(connection, changes)
    if writer.has_changed:
        number += 1
        add_generation(connection, number, live.id, note)
    return Committed(number, writer.added, writer.updated, writer.removed, writer.outdated)


class _Writer:
    """Changes rows so that they take effect in one generation, and older generations stay what they were."""

    def __init__(self, connection: sqlite3.Connection, generation: int, space_id: int) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._generation = generation
        self._space_id = space_id
        self._changed: dict[str, bool] = {}  # key -> whether it was there before
        self.removed: list[str] = []
        self.outdated: list[str] = []

    @property
    def has_changed(self) -> bool:
        return bool(self._changed or self.removed)

    @property
    def added(self) -> list[str]:
        return [key for key, was_there in self._changed.items() if not was_there]

    @property
    def updated(self) -> list[str]:
        return [key for key, was_there in self._changed.items() if was_there]

    def put(self, put: Put) -> None:
        current = self._current(put.key)
        if put.expected_id not in (ANY_PICTURE, current):
            self.outdated.append(put.key)
            return
        if current != NO_PICTURE:
            self._retire(current)
        picture_id = self._execute(
            "INSERT INTO pictures (key, source_id, path, content_hash, size_bytes, mtime_ns, scanned_ns, box, added)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(put.key, put.source_id, put.path, put.content_hash),
                *(put.size_bytes, put.mtime_ns, put.scanned_ns, put.box, self._generation),
            ),
        ).lastrowid
        product_id, label, metadata = put.attributes.product_id, put.attributes.label, put.attributes.metadata
        self._complete(picture_id, put.vector, product_id, label, metadata_json(metadata))
        self._changed.setdefault(put.key, current != NO_PICTURE)

    def remove(self, key: str, expected_id: int) -> None:
        current = self._current(key)
        if current == NO_PICTURE or expected_id not in (ANY_PICTURE, current):
            self.outdated.append(key)
            return
        self._retire(current)
        self.removed.append(key)

    def set_attributes(self, key: str, attributes: Attributes, expected_id: int) -> None:
        current = self._current(key)
        if current == NO_PICTURE or expected_id not in (ANY_PICTURE, current):
            self.outdated.append(key)
            return
        product_id, label, metadata = self._attributes(current)
        self._end_attributes(current)
        self._insert_attributes(
            current,
            product_id if attributes.product_id is KEEP else attributes.product_id,
            label if attributes.label is KEEP else attributes.label,
            metadata if attributes.metadata is KEEP else metadata_json(attributes.metadata),
        )
        self._changed.setdefault(key, True)

    def renew(self, picture_id: int, vector: NDArray[np.float32]) -> None:
        row = self._execute("SELECT key FROM pictures WHERE id = ? AND removed IS NULL", (picture_id,)).fetchone()
        if row is None:
            return
        attributes = self._attributes(picture_id)
        self._retire(picture_id)
        columns = "key, source_id, path, content_hash, size_bytes, mtime_ns, scanned_ns, box"
        renewed_id = self._execute(
            f"INSERT INTO pictures ({columns}, added) SELECT {columns}, ? FROM pictures WHERE id = ?",
            (self._generation, picture_id),
        ).lastrowid
        self._complete(renewed_id, vector, *attributes)
        self._changed.setdefault(row[0], True)

    def _complete(
        self,
        picture_id: int | None,
        vector: NDArray[np.float32],
        product_id: str | None,
        label: str | None,
        metadata: str,
    ) -> None:
        """Give a picture that has just been added its vector and its attributes."""
        assert picture_id is not None
        fill(self._connection, self._space_id, {picture_id: vector})
        self._insert_attributes(picture_id, product_id, label, metadata)

    def _current(self, key: str) -> int:
        row = self._execute("SELECT id FROM pictures WHERE key = ? AND removed IS NULL", (key,)).fetchone()
        return NO_PICTURE if row is None else row[0]

    def _retire(self, picture_id: int) -> None:
        self._execute("UPDATE pictures SET removed = ? WHERE id = ?", (self._generation, picture_id))
        self._end_attributes(picture_id)

    def _end_attributes(self, picture_id: int) -> None:
        # attributes that this very generation began were never visible to anyone
        self._execute("DELETE FROM attributes WHERE picture_id = ? AND since = ?", (picture_id, self._generation))
        self._execute(
            "UPDATE attributes SET until = ? WHERE picture_id = ? AND until IS NULL", (self._generation, picture_id)
        )

    def _attributes(self, picture_id: int) -> tuple[str | None, str | None, str]:
        """Product, label and metadata as they are now."""
        row: tuple[str | None, str | None, str] = self._execute(
            "SELECT product_id, label, metadata FROM attributes WHERE picture_id = ? AND until IS NULL", (picture_id,)
        ).fetchone()
        return row

    def _insert_attributes(self, picture_id: int, product_id: str | None, label: str | None, metadata: str) -> None:
        self._execute(
            "INSERT INTO attributes VALUES (?, ?, ?, ?, ?, NULL)",
            (picture_id, product_id, label, metadata, self._generation),
        )


def metadata_json(metadata: Mapping[str, Any]) -> str:
    """Metadata as the catalog stores it: JSON with sorted keys, so that equal metadata is equal text.

    Raises:
        UnstorableValue: a number in it is not finite as a float, which JSON and SQLite cannot say.
    """
    text = json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    for name, value in metadata.items():
        if not _is_finite(value):
            raise UnstorableValue(f"metadata field {name!r} is {str(value)[:60]}; numbers must be finite, or left out")
    return text


def _is_finite(value: Any) -> bool:
    """Whether every number in a JSON value is."""
    if isinstance(value, int | float):
        try:
            return math.isfinite(value)
        except OverflowError:  # an integer beyond every float
            return False
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return all(map(_is_finite, parts))


def _keep_books(connection: sqlite3.Connection, changes: Changes) -> None:
    touches: Sequence[tuple[int, ...]] = [
        (touch.size_bytes, touch.mtime_ns, touch.scanned_ns, touch.picture_id) for touch in changes.touches
    ]
    connection.executemany("UPDATE pictures SET size_bytes = ?, mtime_ns = ?, scanned_ns = ? WHERE id = ?", touches)
    connection.executemany(
        "INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?, ?)",
        [(skip.source_id, skip.key, skip.reason, skip.size_bytes, skip.mtime_ns) for skip in changes.skips],
    )
    connection.executemany("DELETE FROM skipped WHERE source_id = ? AND key = ?", changes.unskips)
