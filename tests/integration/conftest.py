"""A small gallery of real pictures and an engine over it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.encoder.runtime import describe_model
from retrieval.engine import SearchEngine

MODEL = "efficientnet_lite0"
THINGS = ("apple", "banana", "bicycle", "butterfly", "camera", "car")


@pytest.fixture(scope="session", autouse=True)
def _models_are_prepared(_surroundings: None) -> None:
    """What happens once for a machine has happened: its notice would be a second line where a test wants one."""
    for model in ("efficientnet_lite0", "efficientnet_lite2"):
        describe_model(model)


@pytest.fixture
def gallery(tmp_path: Path, demo_gallery: Path) -> Path:
    """Twelve pictures of six things, to change as a test likes; their files were last changed long ago."""
    for thing in THINGS:
        shutil.copytree(demo_gallery / thing, tmp_path / "gallery" / thing)
    return tmp_path / "gallery"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SearchEngine]:
    """An engine over an empty index."""
    with SearchEngine.create(tmp_path / "index", model=MODEL) as engine:
        yield engine


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1.2 megabytes: a hundred pictures and the log that they are written through fit."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # a failed test still maps a segment that lies there
