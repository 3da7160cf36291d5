"""Pictures that exist nowhere else: bytes given by a caller, kept under their own hash."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from indexer.catalog import Catalog
from indexer.files import write_whole

KEPT_FOLDER = "pictures"
ORPHAN_AGE_S = 3600.0  # a younger file may belong to an upsert that is about to commit


def keep(index_dir: Path, content: bytes) -> str:
    """Write `content` durably and return its path relative to `index_dir`.

    Raises:
        DiskFull, IndexReadOnly
    """
    digest = hashlib.sha256(content).hexdigest()
    relative = f"{KEPT_FOLDER}/{digest[:2]}/{digest}"
    path = index_dir / relative
    if path.is_file() and path.stat().st_size == len(content):
        os.utime(path)  # young again: `remove_orphans` must not take it before the commit names it
    else:
        with write_whole(path) as file:
            file.write(content)
            file.finish()
    return relative


def orphans(catalog: Catalog, index_dir: Path) -> Iterator[Path]:
    """Kept files that no picture, not even a removed one, names."""
    with catalog.read() as connection:
        named = {row[0] for row in connection.execute("SELECT path FROM pictures WHERE path LIKE 'pictures/%'")}
    for path in sorted((index_dir / KEPT_FOLDER).glob("*/*")):
        if path.relative_to(index_dir).as_posix() not in named:
            yield path


def remove_orphans(catalog: Catalog, index_dir: Path) -> None:
    """Remove those that are old enough to belong to a killed writer."""
    oldest_s = time.time() - ORPHAN_AGE_S
    for path in orphans(catalog, index_dir):
        if path.stat().st_mtime < oldest_s:
            path.unlink(missing_ok=True)
