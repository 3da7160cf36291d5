"""A report replaces a file whole, leaves a link one, and is written into what is no file."""

import os
import stat
import threading
from pathlib import Path

import pytest

from retrieval.errors import RetrievalError
from retrieval.report.page import save_page
from retrieval.report.sheet import SheetRow, save_sheet
from unprivileged import run_unprivileged

ROW = SheetRow("/gone.png")


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_one(tmp_path: Path, is_there: bool) -> None:
    link, target = tmp_path / "link.html", tmp_path / "elsewhere" / "page.html"
    target.parent.mkdir()
    link.symlink_to(target)
    if is_there:
        target.write_text("before")
    save_page("after", link)
    assert link.is_symlink()
    assert target.read_text() == "after"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["elsewhere", "link.html", "page.html"]


@pytest.mark.parametrize("kind", ["page", "sheet"])
def test_a_pipe_is_written_into(tmp_path: Path, kind: str) -> None:
    pipe, got = tmp_path / "pipe.png", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    if kind == "page":
        save_page("a page", pipe)
    else:
        save_sheet([ROW], pipe)
    reader.join(30)
    assert got[0].startswith(b"a page" if kind == "page" else b"\x89PNG")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.png"]


def test_a_folder_is_refused_whatever_its_name(tmp_path: Path) -> None:
    for folder in (tmp_path, "/", "."):
        with pytest.raises(RetrievalError, match=r"cannot write the report .*: Is a directory; choose another file"):
            save_page("page", folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_device_is_told_and_stays_a_device() -> None:
    code = """
from retrieval.report.page import save_page
if os.geteuid() == 0: os.setuid(65534)  # nobody, who could not replace a device
try: save_page('page', '/dev/full')
except Exception as error: print(type(error).__name__, error)
"""
    done = run_unprivileged(code)
    assert "RetrievalError cannot write the report /dev/full: No space left on device" in done.stdout, done.stderr
    assert Path("/dev/full").is_char_device()
