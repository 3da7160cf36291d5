"""What the catalog knows of its pictures: by id for an answer, by source for a sync, by key for a caller."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from indexer.changes import Attributes
from indexer.schema import is_storable
from indexer.spaces import left_out, newest_generation

_ROWS_A_QUERY = 500  # below SQLite's limit on the parameters of one statement


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of one generation.

    Attributes:
        path: of its file, absolute.
        source_id: the gallery that owns it, or None for an upsert.
    """

    id: int
    key: str
    path: Path
    source_id: int | None
    content_hash: str
    box: str | None
    attributes: Attributes


class Known(NamedTuple):
    """What a sync compares a file with; times and sizes as the catalog remembers them."""

    id: int
    size_bytes: int
    mtime_ns: int
    scanned_ns: int
    content_hash: str
    box: str | None
    path: str | None
    product_id: str | None
    label: str | None
    metadata: str  # JSON as `changes.metadata_json` writes it


@dataclass(frozen=True, slots=True)
class KnownSkip:
    """A picture remembered as undecodable."""

    reason: str
    size_bytes: int
    mtime_ns: int


_PICTURE_COLUMNS = (
    "p.id, p.key, COALESCE(p.path, s.path || '/' || substr(p.key, length(s.key_prefix) + 1)),"
    " p.source_id, p.content_hash, p.box, a.product_id, a.label, a.metadata"
)
_PICTURES = "pictures p LEFT JOIN sources s ON s.id = p.source_id JOIN attributes a ON a.picture_id = p.id"


def pictures_by_id(
    connection: sqlite3.Connection, index_dir: Path, generation: int, ids: Sequence[int]
) -> dict[int, Picture]:
    """The pictures of these ids as they were in `generation`, whatever was changed since."""
    found: dict[int, Picture] = {}
    for start in range(0, len(ids), _ROWS_A_QUERY):
        chunk = ids[start : start + _ROWS_A_QUERY]
        rows = connection.execute(
            f"SELECT {_PICTURE_COLUMNS} FROM {_PICTURES} WHERE p.id IN ({','.join('?' * len(chunk))})"
            " AND a.since <= ? AND (a.until IS NULL OR a.until > ?)",
            (*chunk, generation, generation),
        )
        found.update((row[0], _picture(row, index_dir)) for row in rows)
    return found


def picture_by_key(connection: sqlite3.Connection, index_dir: Path, key: str) -> Picture | None:
    """The picture under `key` in the newest generation."""
    if not is_storable(key):
        return None
    row = connection.execute(
        f"SELECT {_PICTURE_COLUMNS} FROM {_PICTURES} WHERE p.key = ? AND p.removed IS NULL AND a.until IS NULL", (key,)
    ).fetchone()
    return None if row is None else _picture(row, index_dir)


def _picture(row: Sequence[Any], index_dir: Path) -> Picture:
    attributes = Attributes(row[6], row[7], json.loads(row[8]))
    path = Path(row[2]) if row[2].startswith("/") else index_dir / row[2]  # joining costs more, and hits are many
    return Picture(row[0], row[1], path, row[3], row[4], row[5], attributes)


def known_pictures(connection: sqlite3.Connection, source_id: int) -> dict[str, Known]:
    """What is known of every picture that this source owns, under its key.

    Of one that the live model could not embed, neither content nor time counts as known: it is to be looked at again.
    """
    rows = connection.execute(
        "SELECT p.key, p.id, p.size_bytes, p.mtime_ns, p.scanned_ns, p.content_hash, p.box, p.path,"
        " a.product_id, a.label, a.metadata FROM pictures p JOIN attributes a ON a.picture_id = p.id"
        " WHERE p.source_id = ? AND p.removed IS NULL AND a.until IS NULL",
        (source_id,),
    )
    known = {row[0]: Known(*row[1:]) for row in rows}
    if without_vector := left_out(connection, newest_generation(connection)[1].id):
        for key, picture in known.items():
            if picture.id in without_vector:
                known[key] = picture._replace(mtime_ns=-1, content_hash="")
    return known


def known_skips(connection: sqlite3.Connection, source_id: int) -> dict[str, KnownSkip]:
    """Why each picture was set aside and in which state of its file, under its key."""
    rows = connection.execute("SELECT key, reason, size_bytes, mtime_ns FROM skipped WHERE source_id = ?", (source_id,))
    return {row[0]: KnownSkip(*row[1:]) for row in rows}


def ids_of_keys(connection: sqlite3.Connection, generation: int, keys: Iterable[str]) -> dict[str, int]:
    """For those of `keys` that `generation` holds, the id of what was under it then."""
    found: dict[str, int] = {}
    for key in filter(is_storable, keys):
        row = connection.execute(
            "SELECT id FROM pictures WHERE key = ? AND removed IS NULL AND added <= ? UNION ALL"
            " SELECT id FROM pictures WHERE key = ? AND removed > ? AND added <= ?",
            (key, generation, key, generation, generation),
        ).fetchone()
        if row is not None:
            found[key] = row[0]
    return found


def owners(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, str | None]:
    """For those of `keys` that the index holds: the path of the gallery that owns it, or None for an upsert."""
    found: dict[str, str | None] = {}
    for key in filter(is_storable, keys):
        row = connection.execute(
            "SELECT s.path FROM pictures p LEFT JOIN sources s ON s.id = p.source_id"
            " WHERE p.key = ? AND p.removed IS NULL",
            (key,),
        ).fetchone()
        if row is not None:
            found[key] = row[0]
    return found


def product_count(connection: sqlite3.Connection) -> int:
    """The number of different products in the newest generation."""
    count: int = connection.execute(
        "SELECT count(DISTINCT product_id) FROM attributes WHERE until IS NULL AND product_id IS NOT NULL"
    ).fetchone()[0]
    return count
