"""How vectors leave the catalog for a segment: some thousands at a time, while readers and writers go on."""

import sqlite3
import uuid
import zlib
from dataclasses import astuple
from pathlib import Path

import numpy as np

from indexer.catalog import Catalog
from indexer.locks import try_seal_lock
from indexer.segments import SEGMENTS_FOLDER, SealedFile, write_segment
from indexer.spaces import Space

OF_A_JOB = "job-"  # begins the name of a file that a job writes
SEAL_ROWS = 4096  # at 1,280 values 10 MB: a fraction of a second to write, half a millisecond to search


def is_due(connection: sqlite3.Connection, space_id: int) -> bool:
    """Whether the catalog holds `SEAL_ROWS` vectors of a space or more, those of removed pictures included."""
    unsealed = "FROM embeddings WHERE space_id = ? AND segment_id IS NULL"
    return all(  # the first is counted in an index alone, and is nearly always too few for the second
        connection.execute(f"SELECT count(*) FROM (SELECT 1 {rows} LIMIT ?)", (space_id, SEAL_ROWS)).fetchone()[0]
        == SEAL_ROWS
        for rows in (unsealed, f"{unsealed} AND vector IS NOT NULL")
    )


def seal(catalog: Catalog, index_dir: Path, space: Space, *, least_rows: int | None = None) -> None:
    """Move a space's unsealed vectors into a new segment if they are as many as `least_rows`, or half of `SEAL_ROWS`.

    Vectors of pictures that were removed before they were ever sealed are dropped from the catalog; readers of older
    generations hold them in memory. Altered ones stay where `verify` finds them. Makes no new generation: every
    picture stays as visible as it was. Does nothing while another process is sealing.

    Raises:
        DiskFull
    """
    with try_seal_lock(index_dir) as is_mine:
        if not is_mine:
            return
        remove_orphan_segments(catalog, index_dir)
        with catalog.read() as connection:
            rows = connection.execute(
                "SELECT p.id, e.vector, e.checksum FROM embeddings e JOIN pictures p ON p.id = e.picture_id"
                " WHERE e.space_id = ? AND e.segment_id IS NULL AND e.vector IS NOT NULL AND p.removed IS NULL"
                " ORDER BY p.id",
                (space.id,),
            )
            intact = [(picture_id, blob) for picture_id, blob, checksum in rows if zlib.crc32(blob) == checksum]
        if len(intact) >= (SEAL_ROWS / 2 if least_rows is None else least_rows):
            _seal_rows(catalog, index_dir, space, intact)
        _drop_removed(catalog, space.id)


class _Overtaken(Exception):
    """Some of the vectors are no longer there to be sealed."""


def _seal_rows(catalog: Catalog, index_dir: Path, space: Space, rows: list[tuple[int, bytes]]) -> None:
    """Write a segment and name it, unless somebody has emptied the space meanwhile: it may be filled again later."""
    ids = np.array([picture_id for picture_id, _ in rows], np.int64)
    vectors = np.frombuffer(b"".join(blob for _, blob in rows), "<f2").astype(np.float32)
    sealed = write_segment(index_dir, f"{uuid.uuid4().hex}.faiss", ids, vectors.reshape(len(rows), space.dim))
    try:
        with catalog.write() as connection:
            segment_id = name_segment(connection, space.id, sealed)
            moved = connection.executemany(
                "UPDATE embeddings SET segment_id = ?, vector = NULL WHERE picture_id = ? AND space_id = ?"
                " AND segment_id IS NULL AND vector IS NOT NULL",
                [(segment_id, picture_id, space.id) for picture_id, _ in rows],
            ).rowcount
            if moved != len(rows):
                raise _Overtaken
    except _Overtaken:
        (index_dir / SEGMENTS_FOLDER / sealed.file).unlink(missing_ok=True)


def name_segment(connection: sqlite3.Connection, space_id: int, sealed: SealedFile) -> int:
    """Make a segment file part of a space, inside the write transaction that the caller holds; returns its id."""
    segment_id = connection.execute(
        "INSERT INTO segments (space_id, file, rows, size_bytes, sha256, frame_checksum) VALUES (?, ?, ?, ?, ?, ?)",
        (space_id, *astuple(sealed)),
    ).lastrowid
    assert segment_id is not None
    return segment_id


def _drop_removed(catalog: Catalog, space_id: int) -> None:
    with catalog.write() as connection:
        connection.execute(
            "DELETE FROM embeddings WHERE space_id = ? AND segment_id IS NULL AND EXISTS"
            " (SELECT 1 FROM pictures p WHERE p.id = picture_id AND p.removed IS NOT NULL)",
            (space_id,),
        )


def orphan_segments(catalog: Catalog, index_dir: Path) -> list[Path]:
    """Files in the segments' folder that no commit names: what a killed writer left, or a job has not finished."""
    folder = index_dir / SEGMENTS_FOLDER
    present = set(folder.iterdir()) if folder.is_dir() else set()
    with catalog.read() as connection:
        rows = connection.execute(
            "SELECT file FROM segments WHERE merged_into IS NULL UNION ALL SELECT file FROM approximations"
        )
        named = {folder / row[0] for row in rows}
    return sorted(present - named)


def remove_orphan_segments(catalog: Catalog, index_dir: Path, *, with_those_of_jobs: bool = False) -> None:
    """Remove them.

    The caller holds the seal lock, under which alone segment files come into being, but for those of jobs: these take
    their time, are named so, and are removed by whoever holds the job lock as well.
    """
    for path in orphan_segments(catalog, index_dir):
        if with_those_of_jobs or not path.name.lstrip(".").startswith(OF_A_JOB):
            path.unlink(missing_ok=True)
