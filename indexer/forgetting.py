"""What was removed or replaced leaves the catalog at last, once it is so old that nobody asks for it any more.

Readers leave no trace of the generation that they search, so this goes by age. One that has slept through it finds out
at its next refresh, and begins anew.
"""

import sqlite3
from dataclasses import asdict, dataclass
from typing import Any

from indexer.catalog import Catalog
from indexer.errors import GenerationForgotten

_OLDEST = "oldest_generation"  # among the settings
_ROWS_AT_ONCE = 5000  # in one transaction, between which writers get their turn: some tens of milliseconds
# Indexes made before it was part of the schema lack it, and would look through all feedback for each row.
_INDEX = "CREATE INDEX IF NOT EXISTS feedback_picture ON feedback (picture_id)"
_STEPS = {
    "versions": "DELETE FROM attributes WHERE (picture_id, since) IN"
    " (SELECT picture_id, since FROM attributes WHERE until <= ? LIMIT ?)",
    "pictures": "DELETE FROM pictures WHERE id IN (SELECT id FROM pictures p WHERE removed <= ?"
    " AND NOT EXISTS (SELECT 1 FROM attributes WHERE picture_id = p.id)"
    " AND NOT EXISTS (SELECT 1 FROM embeddings WHERE picture_id = p.id)"
    " AND NOT EXISTS (SELECT 1 FROM feedback WHERE picture_id = p.id) LIMIT ?)",
    "generations": "DELETE FROM generations WHERE number IN (SELECT number FROM"
    " (SELECT number, space_id, lag(space_id) OVER (ORDER BY number) AS former FROM generations WHERE number < ?)"
    " WHERE former = space_id LIMIT ?)",  # those stay in which another model became the live one
}


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What is gone.

    Attributes:
        pictures: that were removed or replaced.
        versions: of what was said of pictures, of these and of others.
        generations: that cannot be asked for any more.
    """

    pictures: int
    versions: int
    generations: int

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return asdict(self)


def oldest_generation(connection: sqlite3.Connection) -> int:
    """The oldest generation that is whole; of earlier ones rows are missing."""
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (_OLDEST,)).fetchone()
    return 0 if row is None else int(row[0])


def refuse_forgotten(connection: sqlite3.Connection, generation: int) -> None:
    """Raise where a generation is not whole any more.

    Raises:
        GenerationForgotten
    """
    oldest = oldest_generation(connection)
    if generation < oldest:
        raise GenerationForgotten(
            f"generation {generation} was pruned from the index, the oldest that is left is {oldest}; refresh, and ask "
            "again"
        )


def generation_at(connection: sqlite3.Connection, time_ns: int) -> int:
    """The generation that was the newest at a time since the epoch; 0 if there was none."""
    row = connection.execute("SELECT max(number) FROM generations WHERE created_ns <= ?", (time_ns,)).fetchone()
    return row[0] or 0


def forget(catalog: Catalog, oldest: int) -> Forgotten:
    """Drop the rows that only generations before the `oldest` show; those of vectors must be gone already.

    Rows stay that feedback or a vector of some space names. Where it is cut off, calling it again goes on.

    Raises:
        IndexReadOnly, IndexBusy, DiskFull
    """
    with catalog.write() as connection:
        if oldest > oldest_generation(connection):
            connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (_OLDEST, str(oldest)))
        connection.execute(_INDEX)
    gone = {name: _in_parts(catalog, sql, oldest) for name, sql in _STEPS.items()}
    return Forgotten(**gone)


def _in_parts(catalog: Catalog, sql: str, oldest: int) -> int:
    total = 0
    while True:
        with catalog.write() as connection:
            count = connection.execute(sql, (oldest, _ROWS_AT_ONCE)).rowcount
        total += count
        if count < _ROWS_AT_ONCE:
            return total
