"""Embedding spaces: how one is filled beside the live one, and how it takes that one's place."""

import json
import sqlite3
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.errors import IndexDamaged, ModelMismatch

MODELS_FOLDER = "models"  # of an index: models that exist nowhere else, each in a folder that their space is named by
NO_VECTOR = 0  # the checksum of a picture that is known to have none: that of no bytes
LEFT_OUT = f"(e.segment_id IS NULL AND e.vector IS NULL AND e.checksum = {NO_VECTOR})"  # a row `e` of such a picture
_SPACE = "s.id, s.model_name, s.model_fingerprint, s.dim"
_TO_FILL = (
    "FROM pictures p WHERE removed IS NULL AND NOT EXISTS"
    " (SELECT 1 FROM embeddings e WHERE e.picture_id = p.id AND e.space_id = ?)"
)


@dataclass(frozen=True, slots=True)
class Space:
    """One embedding space: the vectors of one model."""

    id: int
    model_name: str
    model_fingerprint: str
    dim: int


@dataclass(frozen=True, slots=True)
class Switch:
    """A space becoming the live one.

    Attributes:
        generation: the first that is searched in it.
        space: its vectors, which may be gone by now.
        vectors: how many pictures have one now, removed ones included.
        created_ns: when, since the epoch.
        note: of that generation.
        metrics: of its model, when it was last judged.
    """

    generation: int
    space: Space
    vectors: int
    created_ns: int
    note: str
    metrics: Mapping[str, float]


def newest_generation(connection: sqlite3.Connection) -> tuple[int, Space]:
    """The newest generation's number and its space, the live one."""
    row = connection.execute(
        f"SELECT number, {_SPACE} FROM generations g JOIN spaces s ON s.id = g.space_id ORDER BY number DESC LIMIT 1"
    ).fetchone()
    if row is None:
        raise IndexDamaged("the catalog names no generation; restore the index from a `retrieve backup`")
    return row[0], Space(*row[1:])


def all_spaces(connection: sqlite3.Connection) -> list[Space]:
    """Every space of the catalog, oldest first."""
    return [Space(*row) for row in connection.execute(f"SELECT {_SPACE} FROM spaces s ORDER BY s.id")]


def switches(connection: sqlite3.Connection) -> list[Switch]:
    """When each space became the live one, oldest first."""
    rows = connection.execute(
        f"SELECT g.number, {_SPACE}, (SELECT count(*) FROM embeddings e"
        f" WHERE e.space_id = s.id AND NOT {LEFT_OUT}), g.created_ns, g.note, s.metrics"
        " FROM (SELECT *, lag(space_id) OVER (ORDER BY number) AS former FROM generations) g"
        " JOIN spaces s ON s.id = g.space_id WHERE g.former IS NULL OR g.former != g.space_id ORDER BY g.number"
    )
    return [
        Switch(number, Space(*space), vectors, created_ns, note, json.loads(metrics))
        for number, *space, vectors, created_ns, note, metrics in rows
    ]


def note_metrics(connection: sqlite3.Connection, space_id: int, metrics: Mapping[str, float]) -> None:
    """Write down what a judgement of a space's model came to, in place of an earlier one."""
    connection.execute("UPDATE spaces SET metrics = ? WHERE id = ?", (json.dumps(metrics), space_id))


def empty(connection: sqlite3.Connection, space_id: int) -> None:
    """Drop every vector of a space; the space itself stays, since generations name it.

    Raises:
        ValueError: it is the live one.
    """
    if newest_generation(connection)[1].id == space_id:
        raise ValueError("the live space cannot be emptied")
    connection.execute("DELETE FROM embeddings WHERE space_id = ?", (space_id,))
    connection.execute("DELETE FROM segments WHERE space_id = ?", (space_id,))


def open_space(connection: sqlite3.Connection, *, model_name: str, model_fingerprint: str, dim: int) -> Space:
    """The space of a model, made if there is none yet; what it was filled with before is still there.

    Its model is from now on opened by `model_name`.
    """
    connection.execute(
        "INSERT INTO spaces (model_name, model_fingerprint, dim) VALUES (?, ?, ?)"
        " ON CONFLICT (model_fingerprint) DO UPDATE SET model_name = excluded.model_name",
        (model_name, model_fingerprint, dim),
    )
    row = connection.execute(
        f"SELECT {_SPACE} FROM spaces s WHERE s.model_fingerprint = ?", (model_fingerprint,)
    ).fetchone()
    return Space(*row)


def models_in_use(connection: sqlite3.Connection) -> list[str]:
    """Folders, within the index, of the models that it keeps: the live one's, and those of spaces that hold vectors."""
    rows = connection.execute(
        "SELECT model_name FROM spaces s WHERE model_name LIKE ? || '/%' AND (s.id = ?"
        " OR EXISTS (SELECT 1 FROM segments WHERE space_id = s.id)"
        " OR EXISTS (SELECT 1 FROM embeddings WHERE space_id = s.id AND segment_id IS NULL))",
        (MODELS_FOLDER, newest_generation(connection)[1].id),
    )
    return [row[0] for row in rows]


def ids_to_fill(connection: sqlite3.Connection, space_id: int, after_id: int = 0, most: int = -1) -> list[int]:
    """The visible pictures above `after_id` that have no vector in a space, ascending; the first `most`, -1 for all."""
    rows = connection.execute(f"SELECT id {_TO_FILL} AND id > ? ORDER BY id LIMIT ?", (space_id, after_id, most))
    return [row[0] for row in rows]


def count_to_fill(connection: sqlite3.Connection, space_id: int) -> int:
    """The number of visible pictures that have no vector in a space."""
    count: int = connection.execute(f"SELECT count(*) {_TO_FILL}", (space_id,)).fetchone()[0]
    return count


def fill(connection: sqlite3.Connection, space_id: int, vectors: Mapping[int, NDArray[np.float32]]) -> None:
    """Give pictures their vector in a space; those that were removed meanwhile, or have one by now, are passed over.

    Pictures that were known to have none have one now.

    Args:
        vectors: picture id -> (D,) unit float32.
    """
    for picture_id, vector in vectors.items():
        blob = np.ascontiguousarray(vector, dtype="<f2").tobytes()
        connection.execute(
            "INSERT INTO embeddings SELECT id, ?, NULL, ?, ? FROM pictures WHERE id = ? AND removed IS NULL"
            " ON CONFLICT (picture_id, space_id) DO UPDATE SET vector = excluded.vector, checksum = excluded.checksum"
            " WHERE vector IS NULL AND segment_id IS NULL",
            (space_id, blob, zlib.crc32(blob), picture_id),
        )


def leave_out(connection: sqlite3.Connection, space_id: int, picture_ids: Iterable[int]) -> None:
    """Note that pictures cannot be embedded by a model: they have no vector in its space, and none is missed."""
    connection.executemany(
        "INSERT OR IGNORE INTO embeddings SELECT id, ?, NULL, NULL, ? FROM pictures WHERE id = ? AND removed IS NULL",
        [(space_id, NO_VECTOR, picture_id) for picture_id in picture_ids],
    )


def left_out(connection: sqlite3.Connection, space_id: int) -> set[int]:
    """The pictures that `leave_out` has noted."""
    rows = connection.execute(f"SELECT picture_id FROM embeddings e WHERE space_id = ? AND {LEFT_OUT}", (space_id,))
    return {row[0] for row in rows}


def forget_left_out(connection: sqlite3.Connection, space_id: int) -> None:
    """Let pictures be embedded again that could not be before."""
    connection.execute(f"DELETE FROM embeddings AS e WHERE space_id = ? AND {LEFT_OUT}", (space_id,))


def add_generation(connection: sqlite3.Connection, number: int, space_id: int, note: str) -> None:
    """Write the newest generation: with the space of the one before it, or with one that becomes the live one.

    The caller sees to it that every visible picture has a vector there.
    """
    connection.execute("INSERT INTO generations VALUES (?, ?, ?, ?)", (number, space_id, time.time_ns(), note))


def refuse_other_space(space_id: int, live_id: int) -> None:
    """Raise unless the space of some vectors is the live one.

    Raises:
        ModelMismatch
    """
    if space_id != live_id:
        raise ModelMismatch(
            "the index has moved to another model since these vectors were computed; refresh and embed them again"
        )
