"""How bytes reach the disk safely: written aside, synced, renamed; and whether the disk can be trusted with it."""

import errno
import hashlib
import os
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from indexer.errors import DiskFull, IndexNotFound, IndexReadOnly

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "glusterfs", "lustre", "gpfs", "9p", "beegfs"}
)
_BLOCK_BYTES = 1 << 20


class HashingFile:
    """A file open for writing that knows the sha256 and the number of bytes so far."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=1 << 20)
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes | memoryview, /) -> int:
        """Append `data`."""
        self._hash.update(data)
        self.size_bytes += len(data)
        return self._file.write(data)

    def finish(self) -> str:
        """Flush to the disk itself and return the sha256 in hexadecimal."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()

    def abandon(self) -> None:
        """Close without caring whether what is buffered still fits on the disk."""
        with suppress(OSError):
            self._file.close()


@contextmanager
def write_whole(path: Path) -> Iterator[HashingFile]:
    """Write a file so that under its name there is all of it or nothing, also after a power cut.

    The caller calls `finish()` on the file; leaving the block renames it into place.

    Raises:
        DiskFull, IndexReadOnly: instead of the OSErrors that mean this.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # two threads may keep the same picture at once
    file: HashingFile | None = None
    try:
        with translated_os_errors(path):
            make_folder(path.parent)
            file = HashingFile(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield file
            aside.replace(path)
            sync_folder(path.parent)
    except BaseException:
        if file is not None:
            file.abandon()
        aside.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, each durable in the one above."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def translated_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's "no space", "not allowed" and "no such place" into our errors, naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(
                f"{path}: {os.strerror(error.errno)}; what was committed before is safe, free some space and run again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise IndexReadOnly(
                f"{path}: {os.strerror(error.errno)}; give this user write permission on the index or choose another "
                "with --index"
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            raise IndexNotFound(
                f"{path}: {os.strerror(error.errno)}; an index is a folder, choose another place with --index"
            ) from error
        raise


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32_of(path: Path) -> int:
    """The crc32 of a file's bytes: twice as fast as sha256, for what is checked whenever it is opened."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            checksum = zlib.crc32(block, checksum)
    return checksum


def total_bytes(paths: Iterable[Path]) -> int:
    """The size of all those of `paths` that are files; one that vanishes meanwhile counts nothing."""
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def network_file_system(folder: Path) -> str | None:
    """The name of the network file system that holds `folder`, or None for a local disk.

    File locks and memory maps, which SQLite's WAL rests on, cannot be trusted over a network. Only Linux tells
    (/proc/mounts); elsewhere the answer is None.
    """
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    return _network_file_system_among(mounts, folder.absolute().resolve())


def _network_file_system_among(mounts: list[str], folder: Path) -> str | None:
    holder, kind = Path("/"), ""
    for line in mounts:
        _, mount_point, mount_kind, *_ = line.split(" ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), mount_point))
        if folder.is_relative_to(point) and len(point.parts) >= len(holder.parts):
            holder, kind = point, mount_kind
    is_network = kind in NETWORK_FILE_SYSTEMS or kind == "fuse.sshfs"
    return kind if is_network else None
