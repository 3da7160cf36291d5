"""Whether the index on disk is whole: its checksums and counts; and what can be saved when it is not."""

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexer import kept, sealing
from indexer.approximation import check_approximation, read_approximation
from indexer.catalog import Catalog
from indexer.errors import IndexDamaged
from indexer.files import sha256_of
from indexer.segments import SEGMENTS_FOLDER, SealedFile, Segment, read_raw_rows
from indexer.spaces import NO_VECTOR, ids_to_fill, newest_generation

_OF_SEGMENT = "segment_id IN (SELECT id FROM segments WHERE id = ? OR merged_into = ?)"  # and what went into it


@dataclass(slots=True)
class Integrity:
    """What `verify` found.

    Attributes:
        generation, images: of the newest generation.
        problems: one line each; empty means that the index is whole.
        orphans: files that nothing names, left by a killed writer; harmless, the next job removes them.
        lost: ids of visible pictures whose vector in the live space is missing or altered; they need their picture
            embedded again.
    """

    generation: int = 0
    images: int = 0
    problems: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Nothing is damaged."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {
            "ok": self.is_whole,
            "generation": self.generation,
            "images": self.images,
            "problems": self.problems,
            "orphans": self.orphans,
        }


@dataclass(frozen=True, slots=True)
class _SegmentRow:
    id: int
    space_id: int
    dim: int
    sealed: SealedFile


def verify(index_dir: Path) -> Integrity:
    """Check the catalog's structure and all that has a checksum: vectors, segments, approximations, kept pictures.

    Reads all of these files; writers and readers go on. Texts and numbers of the catalog have no checksum.

    Raises:
        IndexNotFound, IndexTooNew, IndexReadOnly
        IndexDamaged: the catalog itself cannot be opened.
    """
    with closing(Catalog(index_dir)) as catalog:
        while (found := _verify(catalog, index_dir)) is None:
            pass  # a job has dropped files while they were checked; it may take as long again
        return found


def _verify(catalog: Catalog, index_dir: Path) -> Integrity | None:
    """What there is to find; None where something is wrong with a file that the index no longer needs."""
    found = Integrity()
    with catalog.read() as connection:
        found.problems += [f"catalog: {line}" for line in _sqlite_problems(connection)]
        if found.problems:
            return found
        found.generation, space = newest_generation(connection)
        found.images = connection.execute("SELECT count(*) FROM pictures WHERE removed IS NULL").fetchone()[0]
        damaged = _damaged_segments(connection, index_dir)
        found.problems += (problem for _, problem in damaged)
        altered = _altered_in_catalog(connection)
        for segment, _ in damaged:
            altered += _altered_in_segment(connection, index_dir, segment)
        lost = {picture_id for picture_id, space_id in altered if space_id == space.id}
        found.lost = sorted(lost.union(ids_to_fill(connection, space.id)))
        if found.lost:
            found.problems.append(f"{len(found.lost)} pictures have no intact vector")
        if beside := sum(space_id != space.id for _, space_id in altered):
            found.problems.append(f"{beside} vectors of models that are not the live one are altered")
        others = _approximation_problems(connection, index_dir) | _kept_problems(connection, index_dir)
        found.problems += others.values()
    if damaged or others:
        with catalog.read() as connection:
            if {_path_of(segment.sealed.file) for segment, _ in damaged}.union(others) - _files_named(connection):
                return None
    orphans = [*sealing.orphan_segments(catalog, index_dir), *kept.orphans(catalog, index_dir)]
    found.orphans = [path.relative_to(index_dir).as_posix() for path in orphans]
    return found


def salvage(index_dir: Path) -> None:
    """Take damaged segments out of the index and keep those of their vectors that are intact.

    The caller holds the job lock. Pictures that have lost their vector stay in the catalog without one
    (`IndexStore.pictures_without_vector`); the caller embeds them again or removes them.

    Raises:
        IndexReadOnly, DiskFull
        IndexDamaged: the catalog itself is damaged.
    """
    with closing(Catalog(index_dir)) as catalog:
        with catalog.read() as connection:  # not while writers wait: every file is read
            if problems := _sqlite_problems(connection):
                raise IndexDamaged(
                    f"index {index_dir}: its catalog is damaged ({problems[0]}); restore it from a `retrieve backup`, "
                    "or index the gallery again into another folder"
                )
            damaged = _damaged_segments(connection, index_dir)
            approximations = _approximation_problems(connection, index_dir)
        with catalog.write() as connection:
            for segment, _ in damaged:
                _empty_segment(connection, index_dir, segment)
            connection.executemany(
                "DELETE FROM embeddings WHERE picture_id = ? AND space_id = ?", _altered_in_catalog(connection)
            )
            outdated = [(Path(name).name,) for name in approximations]
            connection.executemany("DELETE FROM approximations WHERE file = ?", outdated)


def _sqlite_problems(connection: sqlite3.Connection) -> list[str]:
    try:
        lines = [row[0] for row in connection.execute("PRAGMA integrity_check(20)")]
        lines += [f"{row[0]}: a row names what is not there" for row in connection.execute("PRAGMA foreign_key_check")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [line.replace("\n", "; ") for line in lines if line != "ok"]


def _files_named(connection: sqlite3.Connection) -> set[str]:
    """The files that the newest generation needs, by their paths in the index."""
    segments = "SELECT file FROM segments WHERE merged_into IS NULL UNION ALL SELECT file FROM approximations"
    kept_pictures = "SELECT path FROM pictures WHERE removed IS NULL AND path LIKE 'pictures/%'"
    return {_path_of(row[0]) for row in connection.execute(segments)}.union(
        row[0] for row in connection.execute(kept_pictures)
    )


def _path_of(file: str) -> str:
    return f"{SEGMENTS_FOLDER}/{file}"


def _damaged_segments(connection: sqlite3.Connection, index_dir: Path) -> list[tuple[_SegmentRow, str]]:
    """Those that are not as they were written, and what is wrong with each."""
    checked = ((segment, _segment_problem(connection, index_dir, segment)) for segment in _segments(connection))
    return [(segment, f"{_path_of(segment.sealed.file)} {problem}") for segment, problem in checked if problem]


def _segments(connection: sqlite3.Connection) -> list[_SegmentRow]:
    rows = connection.execute(
        "SELECT g.id, s.id, s.dim, g.file, g.rows, g.size_bytes, g.sha256, g.frame_checksum FROM segments g"
        " JOIN spaces s ON s.id = g.space_id WHERE g.merged_into IS NULL ORDER BY g.id"
    )
    return [
        _SegmentRow(segment_id, space_id, dim, SealedFile(*sealed))
        for segment_id, space_id, dim, *sealed in rows.fetchall()
    ]


def _segment_problem(connection: sqlite3.Connection, index_dir: Path, segment: _SegmentRow) -> str | None:
    if problem := _file_problem(index_dir / SEGMENTS_FOLDER / segment.sealed.file, segment.sealed.sha256):
        return problem
    try:
        Segment(index_dir, segment.id, segment.sealed)
    except IndexDamaged:
        return "differs from what the catalog says of it"
    sql = f"SELECT count(*) FROM embeddings WHERE {_OF_SEGMENT}"
    held = connection.execute(sql, (segment.id, segment.id)).fetchone()[0]
    return None if held == segment.sealed.rows else f"has {segment.sealed.rows} vectors, {held} in the catalog"


def _file_problem(path: Path, sha256: str) -> str | None:
    try:
        return None if sha256_of(path) == sha256 else "differs from its checksum"
    except (FileNotFoundError, IsADirectoryError):
        return "is missing"


def _altered_in_catalog(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Picture and space of each unsealed vector that differs from its checksum."""
    rows = connection.execute(
        "SELECT p.id, s.id, e.vector, e.checksum, 2 * s.dim FROM embeddings e JOIN spaces s ON s.id = e.space_id"
        " JOIN pictures p ON p.id = e.picture_id WHERE e.segment_id IS NULL AND p.removed IS NULL"
    )
    return [
        (picture_id, space_id)
        for picture_id, space_id, vector, checksum, size in rows
        if (checksum != NO_VECTOR if vector is None else len(vector) != size or zlib.crc32(vector) != checksum)
    ]


def _altered_in_segment(connection: sqlite3.Connection, index_dir: Path, segment: _SegmentRow) -> list[tuple[int, int]]:
    """Picture and space of each vector of a damaged segment that differs from its checksum."""
    intact = {picture_id for picture_id, _ in _intact_rows(connection, index_dir, segment)}
    rows = connection.execute(
        "SELECT p.id FROM embeddings e JOIN pictures p ON p.id = e.picture_id"
        f" WHERE e.{_OF_SEGMENT} AND p.removed IS NULL",
        (segment.id, segment.id),
    )
    return [(row[0], segment.space_id) for row in rows if row[0] not in intact]


def _intact_rows(connection: sqlite3.Connection, index_dir: Path, segment: _SegmentRow) -> Iterator[tuple[int, bytes]]:
    """Picture id and float16 bytes of each vector of a damaged segment that still has its checksum."""
    rows = connection.execute(
        f"SELECT picture_id, checksum FROM embeddings WHERE {_OF_SEGMENT} ORDER BY picture_id", (segment.id, segment.id)
    ).fetchall()
    blobs = read_raw_rows(index_dir, segment.sealed.file, segment.dim)
    for (picture_id, checksum), blob in zip(rows, blobs, strict=False):
        if zlib.crc32(blob) == checksum:
            yield picture_id, blob


def _empty_segment(connection: sqlite3.Connection, index_dir: Path, segment: _SegmentRow) -> None:
    for picture_id, blob in list(_intact_rows(connection, index_dir, segment)):
        connection.execute(
            "UPDATE embeddings SET segment_id = NULL, vector = ? WHERE picture_id = ? AND space_id = ?",
            (blob, picture_id, segment.space_id),
        )
    connection.execute(f"DELETE FROM embeddings WHERE {_OF_SEGMENT}", (segment.id, segment.id))
    connection.execute("DELETE FROM segments WHERE id = ? OR merged_into = ?", (segment.id, segment.id))


def _approximation_problems(connection: sqlite3.Connection, index_dir: Path) -> dict[str, str]:
    """What is wrong with each damaged approximation, by its file."""
    found = {}
    for segment_id, file in connection.execute("SELECT segment_id, file FROM approximations").fetchall():
        path = index_dir / SEGMENTS_FOLDER / file
        try:
            check_approximation(path, read_approximation(connection, segment_id))
        except IndexDamaged as error:
            found[_path_of(file)] = str(error).replace(str(path), str(path.relative_to(index_dir)))
    return found


def _kept_problems(connection: sqlite3.Connection, index_dir: Path) -> dict[str, str]:
    """What is wrong with each damaged picture that is kept, by its file."""
    found = {}
    rows = connection.execute("SELECT key, path FROM pictures WHERE removed IS NULL AND path LIKE 'pictures/%'")
    remedy = "upsert the picture again, or remove the key"
    for key, relative in rows:
        path = index_dir / relative
        if problem := _file_problem(path, path.name):
            found[relative] = f"{relative}, the kept picture of {key!r}, {problem}; {remedy}"
    return found
