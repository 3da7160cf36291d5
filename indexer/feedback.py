"""What people said of hits: does a picture of the index show what they had searched with?"""

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from indexer.schema import is_storable


@dataclass(frozen=True, slots=True)
class Judgement:
    """One relevance judgement.

    Attributes:
        query_hash: xxh3_128 of the query picture's bytes, which tells it whatever its name.
        query_path: of its file: absolute, or as `IndexStore.keep` gave it.
        key: of the picture that was judged.
        is_relevant: it shows what the query shows.
        source: who says so; "" for whoever runs the index.
        query_box: the part that was searched with, as the caller writes it; "" for all.
    """

    query_hash: str
    query_path: str
    key: str
    is_relevant: bool
    source: str = ""
    query_box: str = ""


def record(connection: sqlite3.Connection, judgements: Iterable[Judgement]) -> list[str]:
    """Write judgements down; of each source the last one on a query and a picture stays.

    Returns:
        Keys that the newest generation does not hold; judgements of these are passed over.
    """
    strangers: list[str] = []
    for one in judgements:
        if not is_storable(one.key):
            strangers.append(one.key)
            continue
        row = connection.execute(
            "INSERT OR REPLACE INTO feedback SELECT ?, ?, id, ?, ?, ?, ? FROM pictures"
            " WHERE key = ? AND removed IS NULL RETURNING picture_id",
            (one.query_hash, one.query_box, one.source, one.query_path, one.is_relevant, time.time_ns(), one.key),
        ).fetchone()
        if row is None:
            strangers.append(one.key)
    return strangers


def judgements(connection: sqlite3.Connection, index_dir: Path) -> list[Judgement]:
    """All judgements of pictures that are still there, the newest first; paths are absolute."""
    rows = connection.execute(
        "SELECT query_hash, query_path, key, is_relevant, source, query_box FROM feedback f"
        " JOIN pictures p ON p.id = f.picture_id WHERE removed IS NULL ORDER BY given_ns DESC, p.id, source"
    )
    return [
        Judgement(query_hash, str(index_dir / query_path), key, bool(is_relevant), source, box)
        for query_hash, query_path, key, is_relevant, source, box in rows
    ]


def count_stale(connection: sqlite3.Connection) -> int:
    """The number of judgements of pictures that were removed or replaced since."""
    count: int = connection.execute(
        "SELECT count(*) FROM feedback f JOIN pictures p ON p.id = f.picture_id WHERE removed IS NOT NULL"
    ).fetchone()[0]
    return count


def kept_queries(connection: sqlite3.Connection, folder: str) -> set[str]:
    """Paths of query pictures that are kept in a folder of the index."""
    rows = connection.execute("SELECT DISTINCT query_path FROM feedback WHERE query_path LIKE ? || '/%'", (folder,))
    return {row[0] for row in rows}
