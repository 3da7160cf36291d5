"""Every command and every line of Python in the README runs as written, in the order in which a reader meets them."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with the committed data in it, where nothing was indexed yet."""
    (tmp_path / "data").symlink_to(REPOSITORY / "data")
    return tmp_path


def run(command: list[str] | str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, shell=isinstance(command, str), cwd=folder, env={**os.environ, "PATH": path}, timeout=240,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_commands_run_as_written(shop: Path) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith(("retrieve ", "curl "))]
    assert len(commands) >= 10
    served = commands.index("retrieve serve &")
    for command in commands[:served]:
        succeed(command, shop)
    with serving(shop):
        for command in commands[served + 1 :]:
            succeed(command, shop)
        done = run([sys.executable, "-c", blocks("python")[1]], shop)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == "1.000 new/apple"


def succeed(command: str, folder: Path) -> None:
    done = run(command, folder)
    assert done.returncode == 0, f"{command}: {done.stderr}"


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """`retrieve serve`, at the port that the README names."""
    with subprocess.Popen([str(Path(sys.executable).parent / "retrieve"), "serve"], cwd=folder) as process:
        until_s = time.monotonic() + 60
        while not is_ready():
            assert process.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.1)
        yield
        process.terminate()
        assert process.wait(60) == 0


def is_ready() -> bool:
    try:
        return httpx2.get("http://127.0.0.1:8000/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def test_the_shown_output_is_what_comes(shop: Path) -> None:
    shown = blocks("text")[0].splitlines()
    indexed, asked = (run(command, shop).stdout for command in blocks("sh")[1].splitlines())
    assert re.sub(r"\d+\.\d s, \d+ images", "", indexed).strip() == re.sub(r"\d+\.\d s, \d+ images", "", shown[0])
    for line, expected in zip(asked.splitlines(), shown[1:], strict=True):
        score, path = line.split("  ")
        expected_score, expected_path = expected.split("  ")
        assert float(score) == pytest.approx(float(expected_score), abs=0.006)  # bfloat16 against float32
        assert Path(path).relative_to(shop) == Path(expected_path).relative_to("/shop")


def test_the_python_runs_as_written(shop: Path) -> None:
    done = run([sys.executable, "-c", blocks("python")[0]], shop)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "1.000 new/apple {'price': 0.9}"


def test_make_has_the_two_commands() -> None:
    assert blocks("sh")[0].split()[:2] == ["make", "demo"]
    planned = run(["make", "--dry-run", "demo", "test"], REPOSITORY)
    assert planned.returncode == 0, planned.stderr
    assert "retrieve query data/queries" in planned.stdout
    assert "pytest" in planned.stdout


def test_every_link_to_a_file_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
