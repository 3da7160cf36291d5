"""Bytes reach the disk whole or not at all, and disks that cannot be trusted are recognised."""

import errno
import hashlib
import threading
from pathlib import Path

import pytest

from indexer.errors import DiskFull, IndexReadOnly
from indexer.files import (
    _network_file_system_among,
    network_file_system,
    sha256_of,
    total_bytes,
    translated_os_errors,
    write_whole,
)


def test_a_file_written_whole_has_its_content_its_size_and_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    with write_whole(path) as file:
        file.write(b"one ")
        file.write(memoryview(b"two"))
        sha256 = file.finish()
    assert path.read_bytes() == b"one two"
    assert file.size_bytes == 7
    assert sha256 == sha256_of(path) == hashlib.sha256(b"one two").hexdigest()
    assert list(path.parent.iterdir()) == [path]


def test_until_it_is_whole_a_file_has_its_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with write_whole(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
        file.finish()
    assert path.read_bytes() == b"new"


def test_a_file_that_fails_midway_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(TypeError), write_whole(tmp_path / "file") as file:
        file.write("text is not bytes")  # type: ignore[arg-type]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with write_whole(tmp_path / "file") as one, write_whole(tmp_path / "file") as other:
        for file in (one, other):
            file.write(b"same")
            file.finish()
    assert (tmp_path / "file").read_bytes() == b"same"


def test_many_threads_may_write_one_file(tmp_path: Path) -> None:
    content, failures = bytes(200_000), []

    def write() -> None:
        try:
            with write_whole(tmp_path / "file") as file:
                file.write(content)
                file.finish()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [path.read_bytes() == content for path in tmp_path.iterdir()] == [True]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EFBIG, DiskFull),
        (errno.EACCES, IndexReadOnly),
        (errno.EPERM, IndexReadOnly),
        (errno.EROFS, IndexReadOnly),
        (errno.EIO, OSError),
    ],
)
def test_errors_of_the_system_become_ours_where_they_mean_this(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, translated_os_errors(Path("/index/file")):
        raise OSError(number, "x")
    assert type(caught.value) is kind
    assert kind is OSError or str(caught.value).startswith("/index/file: ")


def test_sizes_count_files_and_not_what_has_vanished(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(5))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_bytes(bytes(7))
    assert total_bytes([*tmp_path.rglob("*"), tmp_path / "vanished"]) == 12


MOUNTS = [
    "/dev/sda1 / ext4 rw,relatime 0 0",
    "server:/export /srv nfs4 rw 0 0",
    "tmpfs /srv/local tmpfs rw 0 0",
    r"//nas/photos /mnt/my\040photos cifs rw 0 0",
    "host:/home /mnt/ssh fuse.sshfs rw 0 0",
    "server:/other /mnt/фото nfs rw 0 0",
    "server:/old /mnt/twice nfs rw 0 0",
    "/dev/sdb1 /mnt/twice xfs rw 0 0",
    r"server:/back /mnt/back\134slash nfs rw 0 0",
]


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me", None),
        ("/srv", "nfs4"),
        ("/srv/shop/index", "nfs4"),
        ("/srv/local/index", None),
        ("/srvother", None),
        ("/mnt/my photos/index", "cifs"),
        ("/mnt/ssh/index", "fuse.sshfs"),
        ("/mnt/фото/index", "nfs"),
        ("/mnt/twice", None),
        ("/mnt/back\\slash", "nfs"),
    ],
)
def test_the_innermost_newest_mount_tells_the_file_system(folder: str, kind: str | None) -> None:
    assert _network_file_system_among(MOUNTS, Path(folder)) == kind


def test_the_disk_of_these_tests_is_local(tmp_path: Path) -> None:
    assert network_file_system(tmp_path) is None
