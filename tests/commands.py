"""Running `retrieve` as a user does: a process, its output, its exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from unprivileged import run_unprivileged

RETRIEVE = [sys.executable, "-m", "retrieval.cli"]


def retrieve(*arguments: str | Path, stdin: bytes | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `retrieve` to its end; output is decoded as a terminal would show it."""
    done = subprocess.run(
        [*RETRIEVE, *map(os.fspath, arguments)], input=stdin, capture_output=True, timeout=240, check=False, **options
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


def retrieve_json(*arguments: str | Path, **options: Any) -> Any:
    """Run `retrieve ... --json`, which must succeed, and return what it printed."""
    done = retrieve(*arguments, "--json", **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def retrieve_unprivileged(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `retrieve` to its end as a user whom file permissions bind."""
    return run_unprivileged("from retrieval.cli import main; main(sys.argv[1:])", *arguments, timeout_s=240)


def assert_one_line(said: str) -> None:
    """Standard error is one line, and no traceback."""
    assert len(said.strip().splitlines()) == 1, said
    assert "Traceback" not in said
