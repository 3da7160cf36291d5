"""Makers of unit vectors and of rows to commit, and the slow exact search that every store is held against."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.changes import Attributes, Put
from indexer.vectors import Neighbors


def unit_rows(count: int, dim: int, seed: int) -> NDArray[np.float32]:
    """(count, dim) unit rows that float16 holds to 1e-3."""
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def put(key: str, vector: NDArray[np.float32], **changes: Any) -> Put:
    """A picture to commit; only what matters to a test needs to be named."""
    attributes = Attributes(changes.pop("product_id", None), None, changes.pop("metadata", {}))
    values: dict[str, Any] = {
        "content_hash": f"hash of {key}",
        "size_bytes": 1,
        "mtime_ns": 1,
        "scanned_ns": 2,
        "path": f"/pictures/{key}",
    }
    return Put(key, vector, attributes=attributes, **(values | changes))


def exact_search(held: Mapping[int, NDArray[np.float32]], queries: NDArray[np.float32], k: int) -> Neighbors:
    """The slow obvious loop: every score of every query, sorted by score and then by id."""
    found = Neighbors.empty(len(queries), k)
    for row, query in enumerate(queries):
        scored = [(-float(query @ vector.astype(np.float16).astype(np.float32)), id_) for id_, vector in held.items()]
        for column, (score, id_) in enumerate(sorted(scored)[:k]):
            found.ids[row, column], found.scores[row, column] = id_, -score
    return found
