"""One long job at a time, and one server: locks that say who holds them, and that the kernel frees after a kill."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from indexer.errors import IndexBusy
from indexer.files import translated_os_errors

JOB_LOCK = "job.lock"
SERVER_LOCK = "server.lock"
SEAL_LOCK = "seal.lock"


def job_lock(index_dir: Path, verb: str) -> AbstractContextManager[None]:
    """Hold the index's job lock; syncs, refreshes and rebuilds take it, upserts and readers never.

    Raises:
        IndexBusy: another process holds it; names its process, host and verb.
    """
    return _named_lock(index_dir, JOB_LOCK, verb, "wait for it to end, then run again")


def server_lock(index_dir: Path) -> AbstractContextManager[None]:
    """Hold the lock of the one server that writes to an index.

    Raises:
        IndexBusy: another process holds it; names its process and host.
    """
    return _named_lock(index_dir, SERVER_LOCK, "serve", "stop it, or serve this index with --read-only")


@contextmanager
def _named_lock(index_dir: Path, name: str, verb: str, remedy: str) -> Iterator[None]:
    path = index_dir / name
    with translated_os_errors(path):
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        if not _try_lock(descriptor):
            raise IndexBusy(f"index {index_dir} is busy: {_holder(descriptor)}; {remedy}")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "verb": verb, "since": time.strftime("%F %T")}
        with translated_os_errors(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


@contextmanager
def try_seal_lock(index_dir: Path) -> Iterator[bool]:
    """Hold the lock under which segment files come and go; yields False, at once, where another holds it."""
    path = index_dir / SEAL_LOCK
    with translated_os_errors(path):
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def folder_lock(folder: Path, *, is_shared: bool) -> Iterator[None]:
    """Wait for a folder: among several who share it, or alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return f"`retrieve {owner['verb']}` runs as process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError):
        return "another job has just started or is about to end"
