"""What every test may use: the committed demo gallery, and a cache of converted models that outlives a run."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

# The same examples in every run, and no opinion about how long one takes.
settings.register_profile("seeded", derandomize=True, deadline=None, database=None)
settings.load_profile("seeded")

# A shell has what it starts in the background ignore Ctrl-C, and all that this starts: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def demo_gallery() -> Path:
    """Folder of the committed demo gallery: 100 pictures of 50 things, two each. Read it, do not write to it."""
    return REPOSITORY / "data" / "gallery"


@pytest.fixture(scope="session")
def demo_queries() -> Path:
    """Folder of the committed queries: 12 pictures named after the things they show, none in the gallery."""
    return REPOSITORY / "data" / "queries"


@pytest.fixture
def gallery_copy(tmp_path: Path, demo_gallery: Path) -> Path:
    """A copy of the demo gallery to change; the files keep their times of change, which are long past."""
    return Path(shutil.copytree(demo_gallery, tmp_path / "gallery"))


@pytest.fixture(scope="session", autouse=True)
def _surroundings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep the user's index and settings out of the tests, and converted models between runs.

    Converting a model takes some 10 s; pytest's cache folder survives the run, `RETRIEVE_CACHE` overrides it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RETRIEVE_INDEX", raising=False)
        if "RETRIEVE_CACHE" not in os.environ:
            patch.setenv("RETRIEVE_CACHE", str(_lasting_folder(request)))
        yield


def _lasting_folder(request: pytest.FixtureRequest) -> Path:
    cache = getattr(request.config, "cache", None)  # absent under -p no:cacheprovider
    if cache is not None:
        return Path(cache.mkdir("retrieve-models"))
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    return factory.mktemp("retrieve-models")
