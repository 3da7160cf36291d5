"""The examples run as they are printed in the documentation, each as a process of its own, warnings being errors."""

import subprocess
import sys
from pathlib import Path

import pytest

from indexer.integrity import verify
from retrieval.engine import SearchEngine

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(example: str, *arguments: str | Path) -> list[str]:
    """Run an example, which must succeed quietly, and return the lines that it printed."""
    command = [sys.executable, "-W", "error", EXAMPLES / example, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the product backend below keeps its index."""
    return tmp_path_factory.mktemp("example") / "shop.index"


@pytest.fixture(scope="module")
def backend(index: Path) -> list[str]:
    """What the product backend prints at its first start."""
    return run("product_backend.py", index)


def test_the_backend_makes_its_index_at_the_first_start(backend: list[str], index: Path) -> None:
    assert backend[:2] == [f"opened {index}: 0 products, generation 0", "put 50 products: generation 50"]


def test_the_backend_reads_its_own_writes(backend: list[str]) -> None:
    assert "found butterfly by its own picture, score 1.000" in backend


def test_the_backend_finds_a_product_by_a_photo_it_has_never_seen_and_shows_the_new_price(backend: list[str]) -> None:
    best = backend[backend.index("the customer's photo looks like:") + 1]
    assert best.startswith("  1. 0.")
    assert best.endswith("  Butterfly, 1.99")


def test_the_backend_asks_for_less_than_a_price(backend: list[str]) -> None:
    start = backend.index("and for less than 10.00, one picture a product:")
    prices = [float(line.rsplit(", ", 1)[1]) for line in backend[start + 1 : start + 4]]
    assert len(prices) == 3
    assert max(prices) < 10
    assert backend[start + 1].endswith("  Butterfly, 1.99")


def test_another_process_keeps_its_generation_until_it_refreshes(backend: list[str]) -> None:
    start = backend.index("storefront finds butterfly, generation 51")
    assert backend[start + 1 : start + 4] == [
        "removed butterfly: generation 52",
        "storefront still finds butterfly, generation 51",
        "storefront refreshes: generation 52",
    ]


def test_another_process_finds_a_removed_product_no_more_once_it_refreshes(backend: list[str]) -> None:
    now = next(line for line in backend if line.startswith("storefront now finds "))
    assert now.endswith(", generation 52")
    assert "butterfly" not in now


def test_the_backend_leaves_a_whole_index_with_what_it_said(backend: list[str], index: Path) -> None:
    assert backend[-1] == "closed with 49 products, generation 52"
    assert verify(index).is_whole
    with SearchEngine.open(index) as engine:
        assert (engine.info().products, engine.generation) == (49, 52)


def test_the_backend_opens_its_index_at_the_next_start(backend: list[str], tmp_path: Path, index: Path) -> None:
    with SearchEngine.open(index) as engine:
        engine.backup(tmp_path / "copy")  # the tests above look at the index as the first start left it
    again = run("product_backend.py", tmp_path / "copy")
    assert again[0] == f"opened {tmp_path / 'copy'}: 49 products, generation 52"
    assert again[-1] == "closed with 49 products, generation 104"


def test_training_on_a_folder_teaches_things_that_were_never_shown() -> None:
    said = run("train_on_folder.py")

    assert said[0] == "on 42 pictures of things that it was never shown:"
    before, after = (float(value) for value in said[2].removeprefix("  map_at_r ").split(" -> "))
    assert after > before + 0.2
    hits = [line.split() for line in said[-3:]]
    assert hits[0][0] == "1.000"
    assert len({key.split("/")[0] for _, key in hits}) == 1  # three views of one thing
