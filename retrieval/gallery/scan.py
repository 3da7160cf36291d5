"""Which pictures lie in a folder, and what in it cannot be used?"""

import operator
import os
import time
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

from retrieval.errors import GalleryError
from retrieval.files import NOT_A_FILE, why_unreadable
from retrieval.records import ImageRecord, Listing, Skipped

PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")
)

_INDEX_FILE = "catalog.sqlite"  # a folder that holds it is an index, whose kept pictures are no gallery
_NOT_UTF8 = "name is not UTF-8; rename it"


def scan_folder(
    root: str | os.PathLike[str], *, key_prefix: str = "", exclude: Collection[str | os.PathLike[str]] = ()
) -> Listing:
    """List the pictures of a folder and of all folders in it.

    Pictures are files with a picture's suffix, in upper or lower case. Names that begin with a dot are passed over, and
    so are folders that are themselves an index. Links are followed; each real folder is listed once, under its own name
    rather than a link's where both lie in the gallery.

    Args:
        root: the folder.
        key_prefix: put in front of every key as it is.
        exclude: folders and files to pass over.

    Returns:
        The listing, in the same order every time. A broken link without a picture's suffix may have been a folder, so
        it counts as a folder that could not be listed.

    Raises:
        GalleryError: `root` is missing, no folder, an index, or cannot be listed.
    """
    source, scanned_ns = os.path.abspath(root), time.time_ns()
    try:
        source.encode()
        walk = _Walk(source, exclude)
        if Path(source, _INDEX_FILE).exists():
            raise GalleryError(f"gallery {source} is an index; pass the folder of the pictures")
        walk.run(key_prefix)
    except UnicodeEncodeError as error:
        raise GalleryError(f"gallery {_shown(source)}: {_NOT_UTF8}") from error
    except NotADirectoryError as error:
        remedy = "pass a folder, or a .csv, .jsonl or .parquet manifest"
        raise GalleryError(f"gallery {source} is not a folder; {remedy}") from error
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = why_unreadable(error, source)
        raise GalleryError(f"gallery {source}: {reason}; check its name and permissions") from error
    return Listing(source, "folder", walk.records, walk.skipped, walk.unlisted, scanned_ns)


class _Walk:
    """One walk over a tree: what was found, and which folders were seen."""

    def __init__(self, source: str, exclude: Collection[str | os.PathLike[str]]) -> None:
        self.records: list[ImageRecord] = []
        self.skipped: list[Skipped] = []
        self.unlisted: list[Skipped] = []
        self._root = source if source.endswith("/") else source + "/"
        self._excluded = {os.path.abspath(path) for path in exclude}
        self._seen = {_identity(path) for path in self._excluded if Path(path).exists()}  # never entered (again)
        self._folders: list[tuple[str, str]] = []  # path and key of those still to list, each with "/"; the next last
        self._links: deque[tuple[str, str]] = deque()  # likewise, behind links: taken when no real folder is left

    def run(self, key_prefix: str) -> None:
        """List the root and everything under it.

        Raises:
            OSError: the root cannot be listed.
        """
        self._seen.add(_identity(self._root))
        self._list(self._root, key_prefix)
        while self._folders or self._links:
            path, key = self._folders.pop() if self._folders else self._links.popleft()
            try:
                identity = _identity(path)
                if identity not in self._seen:
                    self._seen.add(identity)
                    self._list(path, key)
            except OSError as error:
                self.unlisted.append(Skipped(key, why_unreadable(error, path.rstrip("/")), cause="access"))

    def _list(self, folder: str, folder_key: str) -> None:
        # Kept flat, and ours is called for what is no picture only: 100,000 files must cost little more than the walk.
        with os.scandir(folder) as found:
            entries = sorted(found, key=_name_of)
        if _INDEX_FILE in [entry.name for entry in entries]:
            return
        records, excluded, inner = self.records, self._excluded, len(self._folders)
        nothing: dict[str, Any] = {}  # shared: with one each, the garbage collector takes a third of the time
        for entry in entries:
            name = entry.name
            if name[0] == "." or (excluded and folder + name in excluded):
                continue
            is_named_picture = name[name.rfind(".") :].lower() in PICTURE_SUFFIXES
            try:
                if is_named_picture and entry.is_file():
                    if not name.isascii():
                        name.encode()
                    status = entry.stat()
                    size, mtime = status.st_size, status.st_mtime_ns
                    records.append(
                        ImageRecord(folder_key + name, folder + name, size, mtime, None, None, None, nothing)
                    )
                else:
                    self._note(entry, folder + name, folder_key + name, is_named_picture)
            except UnicodeEncodeError:
                self.skipped.append(Skipped(_shown(folder_key + name), _NOT_UTF8))
            except OSError as error:
                self._cannot_reach(folder + name, folder_key + name, is_named_picture, error)
        self._folders[inner:] = reversed(self._folders[inner:])

    def _note(self, entry: "os.DirEntry[str]", path: str, key: str, is_named_picture: bool) -> None:
        """Look at what is not a picture file: a folder, a link, a pipe; other files are passed over."""
        if entry.is_dir():
            key.encode()
            (self._links if entry.is_symlink() else self._folders).append((path + "/", key + "/"))
        elif is_named_picture or entry.is_symlink():
            status = entry.stat()  # raises for a broken link
            if is_named_picture:
                key.encode()
                size, mtime = status.st_size, status.st_mtime_ns
                self.skipped.append(Skipped(key, NOT_A_FILE, size_bytes=size, mtime_ns=mtime))

    def _cannot_reach(self, path: str, key: str, is_named_picture: bool, error: OSError) -> None:
        shown, reason = _shown(key), why_unreadable(error, path)
        if is_named_picture:
            self.skipped.append(Skipped(shown, reason, cause="access"))
        else:
            self.unlisted.append(Skipped(shown + "/", reason, cause="access"))


_name_of = operator.attrgetter("name")


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _identity(path: str) -> tuple[int, int]:
    status = Path(path).stat()
    return status.st_dev, status.st_ino
