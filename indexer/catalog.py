"""The SQLite file that is the index's manifest and its only commit point: opening it, and its transactions."""

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from indexer.errors import (
    DiskFull,
    IndexBusy,
    IndexDamaged,
    IndexerError,
    IndexNotFound,
    IndexReadOnly,
    IndexTooNew,
    UnstorableValue,
)
from indexer.files import sync_folder, translated_os_errors
from indexer.schema import APPLICATION_ID, FORMAT_VERSION, SCHEMA

CATALOG_FILE = "catalog.sqlite"
BUSY_TIMEOUT_S = 30.0
CHECKPOINT_TIMEOUT_S = 1.0  # while a checkpoint waits for readers, writers wait for it
TRUNCATING_CHECKPOINT = "PRAGMA wal_checkpoint(TRUNCATE)"


def has_catalog(index_dir: Path) -> bool:
    """Whether a folder holds an index.

    Raises:
        IndexReadOnly: this user may not look into it.
    """
    try:
        with translated_os_errors(index_dir):
            return stat.S_ISREG((index_dir / CATALOG_FILE).stat().st_mode)
    except (FileNotFoundError, IndexNotFound):
        return False


class Catalog:
    """One reading and one writing connection to a catalog, usable from several threads."""

    def __init__(self, index_dir: Path) -> None:
        """Open the catalog of `index_dir`, for writing where the folder allows it.

        Raises:
            IndexNotFound, IndexTooNew, IndexDamaged, IndexReadOnly
        """
        self.path = index_dir / CATALOG_FILE
        if not has_catalog(index_dir):
            if index_dir.is_file():
                raise IndexNotFound(f"{index_dir} is a file, an index is a folder; choose another place with --index")
            raise IndexNotFound(f"no index at {index_dir}; make one with `retrieve index GALLERY --index {index_dir}`")
        self.is_writable = os.access(index_dir, os.W_OK) and os.access(self.path, os.W_OK)
        self._is_frozen = not self.is_writable  # read as a file that nobody changes, without SQLite's help files
        if self._is_frozen:
            _refuse_foreign_log(self.path)
        self._read_lock = threading.RLock()
        self._write_lock = threading.RLock()
        self._signature = _signature(self.path)
        self._reader = self._connect_reader()
        self._writer: sqlite3.Connection | None = None
        try:
            self._check_format()
        except BaseException:
            self._reader.close()
            raise

    @staticmethod
    def create(index_dir: Path, *, model_name: str, model_fingerprint: str, dim: int) -> None:
        """Make an empty catalog in `index_dir`, whole or not at all."""
        path = index_dir / CATALOG_FILE
        aside = index_dir / f".{CATALOG_FILE}.tmp"
        _remove_with_logs(aside)  # what a killed process left
        try:
            with translated_sqlite_errors(path), closing(sqlite3.connect(aside, isolation_level=None)) as new:
                new.executescript(
                    f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION}; BEGIN; {SCHEMA}"
                )
                new.execute("INSERT INTO spaces VALUES (1, ?, ?, ?, '{}')", (model_name, model_fingerprint, dim))
                new.execute("INSERT INTO generations VALUES (0, 1, ?, 'created')", (time.time_ns(),))
                new.execute("COMMIT")
                new.execute("PRAGMA journal_mode = WAL")  # last: what a log holds would not be renamed with the file
            with translated_os_errors(path):
                aside.replace(path)
                sync_folder(index_dir)
        except BaseException:
            _remove_with_logs(aside)
            raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: one unchanging view of the catalog.

        Raises:
            IndexReadOnly: this folder cannot be written, and somebody who can is writing in it.
        """
        with self._read_lock, translated_sqlite_errors(self.path):
            if self._is_frozen:
                self._follow_replaced_file()
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("ROLLBACK")

    @contextmanager
    def read_apart(self) -> Iterator[sqlite3.Connection]:
        """The same on a connection of its own: for what takes seconds, while others read.

        Raises:
            IndexReadOnly: as for `read`.
        """
        with self._read_lock, translated_sqlite_errors(self.path):
            if self._is_frozen:
                self._follow_replaced_file()
            connection = _connect(self.path, frozen=self._is_frozen)
        try:
            with translated_sqlite_errors(self.path):
                connection.execute("BEGIN")
                yield connection
        finally:
            connection.close()

    def version(self) -> int:
        """A number that changes whenever another connection has committed; costs microseconds."""
        with self._read_lock, translated_sqlite_errors(self.path):
            if self._is_frozen and self.is_writable:
                self._follow_replaced_file()
            if self._is_frozen:
                return _signature(self.path)[0]
            version: int = self._reader.execute("PRAGMA data_version").fetchone()[0]
        return version

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, committed durably when the block ends and undone when it raises.

        Raises:
            IndexReadOnly, DiskFull
            IndexBusy: another process kept its own write transaction open for `BUSY_TIMEOUT_S`.
        """
        with self._write_lock, translated_sqlite_errors(self.path):
            if not self.is_writable:
                raise IndexReadOnly(
                    f"{self.path.parent} cannot be written; give this user write permission on it or choose another "
                    "index with --index"
                )
            if self._writer is None:
                self._writer = _connect(self.path, frozen=False)
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                self._thaw()
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # SQLite itself rolls back on a full disk
                    self._writer.execute("ROLLBACK")
                raise

    def checkpoint(self) -> None:
        """Move what the write-ahead log holds into the database, as far as readers let it."""
        if self._writer is not None:
            with self._write_lock, translated_sqlite_errors(self.path):
                self._writer.execute(f"PRAGMA busy_timeout = {1000 * CHECKPOINT_TIMEOUT_S:.0f}")
                self._writer.execute(TRUNCATING_CHECKPOINT)
                self._writer.execute(f"PRAGMA busy_timeout = {1000 * BUSY_TIMEOUT_S:.0f}")

    def backup_to(self, target: Path) -> None:
        """Copy one committed state into a new, self-contained database file, while others write."""
        with translated_sqlite_errors(self.path):
            copy = sqlite3.connect(target, isolation_level=None)
            try:
                with self._read_lock:
                    self._reader.backup(copy)
                copy.execute("PRAGMA journal_mode = WAL")
            finally:
                copy.close()

    def close(self) -> None:
        """Close both connections; the last process to close removes the write-ahead log."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            if self._writer is None:
                self._writer = self._reader  # which refuses from now on what it is asked for
            self._writer.close()

    def _connect_reader(self) -> sqlite3.Connection:
        try:
            return _connect(self.path, frozen=self._is_frozen)
        except DiskFull:  # SQLite has no room for its index of the log, which one that holds nothing does not need
            if _log_bytes(self.path):
                raise
            self._is_frozen = True
            return _connect(self.path, frozen=True)

    def _follow_replaced_file(self) -> None:
        """A connection that takes its file for unchanging must be opened anew when somebody did change it."""
        if self.is_writable and _log_bytes(self.path):
            self._thaw()
            return
        if not self.is_writable:
            _refuse_foreign_log(self.path)
        if _signature(self.path) != self._signature:
            self._reconnect(frozen=True)

    def _thaw(self) -> None:
        """Follow what is written again: the disk that was full has room."""
        if self._is_frozen:
            with self._read_lock:
                self._reconnect(frozen=False)

    def _reconnect(self, *, frozen: bool) -> None:
        signature, fresh = _signature(self.path), _connect(self.path, frozen=frozen)
        self._reader.close()
        self._signature, self._reader, self._is_frozen = signature, fresh, frozen

    def _check_format(self) -> None:
        with translated_sqlite_errors(self.path), self._read_lock:
            application: int = self._reader.execute("PRAGMA application_id").fetchone()[0]
            version: int = self._reader.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise IndexDamaged(f"{self.path} is not the catalog of an index; choose another folder with --index")
        if version > FORMAT_VERSION:
            raise IndexTooNew(
                f"index {self.path.parent} has format {version}, this version reads up to {FORMAT_VERSION}; "
                "upgrade retrieval-engine"
            )


def _remove_with_logs(path: Path) -> None:
    for one in path.parent.glob(f"{path.name}*"):
        one.unlink(missing_ok=True)


def _connect(path: Path, *, frozen: bool) -> sqlite3.Connection:
    with translated_sqlite_errors(path):
        if frozen:
            return sqlite3.connect(
                f"{path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None, check_same_thread=False
            )
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S, cached_statements=256
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection


def _signature(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def _log_bytes(path: Path) -> int | None:
    """The size of the write-ahead log, or None where there is none."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except FileNotFoundError:
        return None


def _refuse_foreign_log(path: Path) -> None:
    """Without write permission a catalog is read as a file that never changes; a log beside it says it does."""
    if _log_bytes(path) is not None:
        raise IndexReadOnly(
            f"index {path.parent} is being written by another user, or was left open by a killed one, and this user "
            "may not write there; give this user write permission, or let a user who has it run `retrieve info` once"
        )


@contextmanager
def translated_sqlite_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, naming the catalog; and Python's, of text that SQLite cannot be given."""
    try:
        yield
    except UnicodeEncodeError as error:
        nearby = error.object[max(0, error.start - 30) : error.end + 30]
        raise UnstorableValue(
            f"index {path.parent}: {nearby!r} is not UTF-8 and cannot be stored; write it in other characters"
        ) from error
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.ProgrammingError) and "closed" not in str(error):
            raise  # a mistake of the caller, and of no index
        raise _translate(error, path) from error


def _translate(error: sqlite3.Error, path: Path) -> IndexerError:
    name = getattr(error, "sqlite_errorname", "") or ""
    index_dir = path.parent
    if isinstance(error, sqlite3.ProgrammingError):
        return IndexerError(f"index {index_dir} was closed; open it again")
    if isinstance(error, sqlite3.IntegrityError):
        return IndexerError(f"index {index_dir} cannot hold what it was given ({error}); nothing was changed")
    if name == "SQLITE_FULL" or name in ("SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_SHMSIZE"):
        return DiskFull(
            f"index {index_dir}: no space left to write ({error}); everything committed before is safe, free some "
            "space and run again"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
        return IndexBusy(f"index {index_dir} was held by another writer for {BUSY_TIMEOUT_S:.0f} s; try again")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return IndexReadOnly(f"index {index_dir} cannot be opened or written ({error}); check its permissions")
    return IndexDamaged(
        f"index {index_dir}: its catalog cannot be read ({error}); restore it from a `retrieve backup`, "
        "or index the gallery again into another folder"
    )
