"""Pictures that exist nowhere else: bytes given by a caller, kept under their own hash."""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from indexer.catalog import Catalog
from indexer.feedback import kept_queries
from indexer.files import make_folder, sha256_of, sync_folder, translated_os_errors, write_whole
from indexer.locks import folder_lock

KEPT_FOLDER = "pictures"
ORPHAN_AGE_S = 3600.0  # a younger file may belong to an upsert that is about to commit


def keep(index_dir: Path, content: bytes) -> str:
    """Write `content` durably and return its path relative to `index_dir`.

    Raises:
        DiskFull, IndexReadOnly
    """
    digest = hashlib.sha256(content).hexdigest()
    relative = f"{KEPT_FOLDER}/{digest[:2]}/{digest}"
    path, folder = index_dir / relative, index_dir / KEPT_FOLDER
    with translated_os_errors(path):
        make_folder(folder)
        if not path.parent.is_dir():
            with folder_lock(folder, is_shared=False):  # whoever finds it, and then has the lock, finds it durable
                make_folder(path.parent)
        with folder_lock(folder, is_shared=True):
            if path.is_file() and sha256_of(path) == digest:
                os.utime(path)  # young again: `remove_orphans` must not take it before the commit names it
                sync_folder(path.parent)  # whoever put it there a moment ago may not have come to that
            else:
                with write_whole(path) as file:
                    file.write(content)
                    file.finish()
    return relative


def orphans(catalog: Catalog, index_dir: Path) -> list[Path]:
    """Kept files that no picture, not even a removed one, and no feedback names."""
    present = set((index_dir / KEPT_FOLDER).glob("*/*"))  # first: a file is there before the commit that names it
    with catalog.read() as connection:
        rows = connection.execute("SELECT path FROM pictures WHERE path LIKE 'pictures/%'")
        named = {index_dir / name for name in {row[0] for row in rows} | kept_queries(connection, KEPT_FOLDER)}
    return sorted(present - named)


def remove_orphans(catalog: Catalog, index_dir: Path) -> None:
    """Remove those that are old enough to belong to a killed writer."""
    oldest_s = time.time() - ORPHAN_AGE_S
    for path in orphans(catalog, index_dir):
        # Alone, for each: or else a picture could be kept again between the look at its age and its end.
        with folder_lock(index_dir / KEPT_FOLDER, is_shared=False), suppress(FileNotFoundError):  # in its place by now
            if path.stat().st_mtime < oldest_s:
                path.unlink()
