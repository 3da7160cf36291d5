"""A copy of the index that is one generation, whole, however busy the index is."""

import os
import shutil
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.catalog import CATALOG_FILE, Catalog
from indexer.errors import IndexDamaged, IndexExists
from indexer.feedback import kept_queries
from indexer.files import sync_folder, total_bytes, translated_os_errors
from indexer.kept import KEPT_FOLDER
from indexer.segments import SEGMENTS_FOLDER
from indexer.spaces import models_in_use


@dataclass(frozen=True, slots=True)
class Backup:
    """What was copied."""

    path: Path
    generation: int
    images: int
    size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return {
            "path": str(self.path),
            "generation": self.generation,
            "images": self.images,
            "size_bytes": self.size_bytes,
        }


def backup(index_dir: Path, destination: Path) -> Backup:
    """Copy the newest generation to `destination`, which appears whole or not at all.

    The catalog goes first, through SQLite's own backup; then exactly the files that this copy names. They never
    change, so it does not matter what is committed meanwhile; where one was dropped, it is begun again.

    Raises:
        IndexNotFound, IndexTooNew, IndexDamaged: there is no index to copy.
        IndexExists: there is something at `destination` already, or it lies in the index.
        DiskFull, IndexReadOnly
    """
    destination = destination.absolute()
    if destination.resolve().is_relative_to(index_dir.resolve()):
        raise IndexExists(f"{destination} lies in the index {index_dir} itself; name a folder elsewhere")
    if destination.exists():
        raise IndexExists(f"{destination} exists already; a backup makes a new folder, name one that is not there")
    while True:
        try:
            return _backup(index_dir, destination)
        except _Dropped:
            continue  # a newer generation no longer names it


class _Dropped(Exception):
    """A file was dropped by a job while it was about to be copied."""


def _backup(index_dir: Path, destination: Path) -> Backup:
    aside = destination.with_name(f".{destination.name}.{uuid.uuid4().hex}.tmp")
    try:
        with translated_os_errors(destination):
            aside.mkdir(parents=True)
            with closing(Catalog(index_dir)) as catalog:
                catalog.backup_to(aside / CATALOG_FILE)
                with closing(sqlite3.connect(aside / CATALOG_FILE)) as copy:
                    generation, images = _newest(copy)
                    needed, optional = _names(copy)
                for name in (*sorted(needed), *sorted(optional)):
                    _copy_named(catalog, name, aside, is_needed=name in needed)
            for folder in (aside, *(path for path in aside.rglob("*") if path.is_dir())):
                sync_folder(folder)
            size_bytes = total_bytes(aside.rglob("*"))
            aside.replace(destination)
            sync_folder(destination.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return Backup(destination, generation, images, size_bytes)


def _newest(connection: sqlite3.Connection) -> tuple[int, int]:
    """The newest generation and the number of its pictures."""
    generation: int = connection.execute("SELECT max(number) FROM generations").fetchone()[0]
    images: int = connection.execute("SELECT count(*) FROM pictures WHERE removed IS NULL").fetchone()[0]
    return generation, images


def _names(connection: sqlite3.Connection) -> tuple[set[str], set[str]]:
    """The files and folders that the newest generation needs, and those that no answer depends on."""
    segments = connection.execute("SELECT file FROM segments WHERE merged_into IS NULL")
    pictures = connection.execute("SELECT path FROM pictures WHERE removed IS NULL AND path LIKE 'pictures/%'")
    needed = {f"{SEGMENTS_FOLDER}/{row[0]}" for row in segments} | {row[0] for row in pictures}
    needed.update(models_in_use(connection))
    optional = {f"{SEGMENTS_FOLDER}/{row[0]}" for row in connection.execute("SELECT file FROM approximations")}
    return needed, optional | (kept_queries(connection, KEPT_FOLDER) - needed)


def _copy_named(catalog: Catalog, name: str, target: Path, *, is_needed: bool) -> None:
    """Copy a file, or all files of a folder, which a model is."""
    index_dir = catalog.path.parent
    path, is_missing = index_dir / name, False
    is_folder = path.is_dir()
    try:
        for each in [each for each in path.rglob("*") if each.is_file()] if is_folder else [path]:
            _copy(each, target / each.relative_to(index_dir))
    except FileNotFoundError:
        is_missing = True
    if is_missing or is_folder:  # of a folder some may be gone
        with catalog.read() as connection:
            is_named = any(name in names for names in _names(connection))
        if not is_named:
            raise _Dropped
    if is_missing and is_needed:
        raise IndexDamaged(f"{path} is missing; run `retrieve verify --repair`, then back up again")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())
