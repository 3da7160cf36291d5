"""An index to change, and a second reader of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.store import IndexStore
from vectors import new_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[IndexStore]:
    """An empty index."""
    store = new_store(tmp_path / "index")
    yield store
    store.close()


@pytest.fixture
def reader(store: IndexStore) -> Iterator[IndexStore]:
    """The same index, opened again before anything is in it."""
    reader = IndexStore(store.index_dir)
    yield reader
    reader.close()
