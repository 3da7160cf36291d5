"""A small gallery of real pictures and an engine over it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.engine import SearchEngine

MODEL = "efficientnet_lite0"
THINGS = ("apple", "banana", "bicycle", "butterfly", "camera", "car")


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
