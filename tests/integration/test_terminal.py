"""`retrieve query --show` in terminals that answer what they can draw: kitty's protocol, Sixel, or letters alone."""

import base64
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import termios
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from commands import RETRIEVE, retrieve
from retrieval.engine import SearchEngine
from retrieval.report.sheet import SheetRow, contact_sheet

MODEL = "efficientnet_lite0"
COLUMNS, ROWS = 100, 40
ASKS_ATTRIBUTES, ASKS_KITTY, ASKS_CELL = b"\x1b[c", re.compile(rb"\x1b_Gi=(\d+),[^\x1b]*a=q[^\x1b]*\x1b\\"), b"\x1b[16t"


@pytest.fixture
def index(tmp_path: Path, gallery: Path) -> Path:
    """An index of the small gallery."""
    with SearchEngine.create(tmp_path / "index", model=MODEL) as engine:
        engine.sync(gallery)
    return tmp_path / "index"


def shown(index: Path, picture: Path, *, has_sixel: bool = False, has_kitty: bool = False) -> bytes:
    """What `retrieve query --show` writes to a terminal that says of itself what it can."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    command = [*RETRIEVE, "query", str(picture), "-k", "3", "--show", "--index", str(index)]
    size = {"COLUMNS": str(COLUMNS), "LINES": str(ROWS)}  # over what the tests themselves may have been given
    environment = {**os.environ, **size, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(command, stdin=there, stdout=there, stderr=subprocess.PIPE, env=environment)
    os.close(there)
    written, answered = b"", 0
    try:
        while select.select([here], [], [], 60)[0]:
            written += os.read(here, 65536)
            new = written[answered:]
            if ASKS_ATTRIBUTES in new:
                os.write(here, b"\x1b[?62;4;22c" if has_sixel else b"\x1b[?62;22c")
            elif asked := ASKS_KITTY.search(new):
                if has_kitty:
                    os.write(here, b"\x1b_Gi=" + asked[1] + b";OK\x1b\\")
            elif ASKS_CELL in new:
                os.write(here, b"\x1b[6;20;10t")
            else:
                continue
            answered = len(written)
    except OSError:  # the other side of the terminal has closed
        pass
    _, complaint = process.communicate(timeout=60)
    os.close(here)
    assert (process.returncode, complaint) == (0, b"")
    return written


def test_kittys_protocol_carries_the_sheet(index: Path, gallery: Path) -> None:
    query = gallery / "apple/noto.png"
    written = shown(index, query, has_kitty=True)
    pieces = re.findall(rb"\x1b_Gi=\d+,m=[01],f=100,q=2;([^\x1b]+)\x1b\\", written)
    with PIL.Image.open(io.BytesIO(base64.b64decode(b"".join(pieces)))) as drawn:
        drawn_pixels = np.asarray(drawn.convert("RGB"), np.float32)
    with SearchEngine.open(index) as engine:
        hits = engine.search(query, k=3).hits
    sheet = contact_sheet([SheetRow(query, [(hit.path, f"{hit.score:.3f}\n{hit.key}") for hit in hits])])
    assert abs(drawn_pixels.shape[1] - sheet.width) < 20
    expected = np.asarray(sheet.resize((drawn_pixels.shape[1], drawn_pixels.shape[0])), np.float32)
    assert np.abs(drawn_pixels - expected).mean() < 5
    assert b"1.000  " + os.fsencode(query) in written.replace(b"\r\n", b"\n")


def test_sixel_carries_colours(index: Path, gallery: Path) -> None:
    written = shown(index, gallery / "apple/noto.png", has_sixel=True)
    (sixels,) = re.findall(rb"\x1bP[^q]*q(.*?)\x1b\\", written, re.DOTALL)
    assert len(set(re.findall(rb"#\d+;2;(\d+;\d+;\d+)", sixels))) > 50
    assert b"1.000  " in written


def test_other_terminals_show_half_blocks(index: Path, gallery: Path) -> None:
    written = shown(index, gallery / "apple/noto.png")
    lines = [line for line in written.decode().splitlines() if "▀" in line or "▄" in line]
    assert len(lines) >= 8
    assert all(line.count("▀") + line.count("▄") <= COLUMNS for line in lines)
    assert b"1.000  " in written


def test_without_a_terminal_it_says_what_to_use(index: Path, gallery: Path) -> None:
    asked = retrieve("query", gallery / "apple/noto.png", "--show", "--index", index)
    assert asked.returncode == 1
    assert len(asked.stderr.strip().splitlines()) == 1
    assert "--sheet or --html" in asked.stderr
    for other in ("--json", "--paths"):
        assert retrieve("query", gallery / "apple/noto.png", "--show", other, "--index", index).returncode == 2
    assert retrieve("query", "--like", "apple/noto.png", "--show", "--index", index).returncode == 2
