"""Makers of unit vectors and of rows to commit, and the slow exact search that every store is held against."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.catalog import CATALOG_FILE
from indexer.changes import Attributes, Put
from indexer.lookup import Picture
from indexer.snapshot import Snapshot
from indexer.store import IndexStore
from indexer.vectors import NO_ID, Neighbors


def unit_rows(count: int, dim: int, seed: int) -> NDArray[np.float32]:
    """(count, dim) unit rows that float16 holds to 1e-3."""
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clustered_rows(count: int, dim: int, seed: int, *, clusters: int = 40, spread: float = 0.5) -> NDArray[np.float32]:
    """(count, dim) unit rows around a number of places, as the pictures of products are."""
    places = unit_rows(clusters, dim, seed=7)[np.random.default_rng(seed).integers(0, clusters, count)]
    rows = places + spread * unit_rows(count, dim, seed + 1)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


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


def new_store(index_dir: Path, dim: int = 8) -> IndexStore:
    """An empty index of a model that nobody needs to have."""
    return IndexStore.create(index_dir, model_name="m", model_fingerprint="f", dim=dim)


def pictures_found(store: IndexStore, snapshot: Snapshot | None = None) -> dict[str, Picture]:
    """Every picture that a search in `snapshot` (the store's own if None) finds, under its key."""
    seen = snapshot or store.snapshot
    query = unit_rows(1, seen.space.dim, seed=0)
    ids = [id_ for id_ in seen.search(query, seen.images + 1).ids[0].tolist() if id_ != NO_ID]
    assert len(ids) == len(set(ids)) == seen.images, "each picture must be found once"
    pictures = store.pictures(seen, ids).values()
    by_key = {picture.key: picture for picture in pictures}
    assert len(by_key) == len(ids), "each id must be a picture of its own key"
    return by_key


def vectors_by_key(index_dir: Path) -> dict[str, NDArray[np.float32]]:
    """The vector of every picture of an index, as its live model has it."""
    with closing(IndexStore(index_dir)) as store:
        ids, rows = (np.concatenate(parts) for parts in zip(*store.snapshot.blocks(), strict=True))
        pictures = store.pictures(store.snapshot, ids.tolist())
    return {pictures[id_].key: row for id_, row in zip(ids.tolist(), rows, strict=True)}


def own_scores(store: IndexStore, vectors: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """How well each key's vector is found under that key: near 1 where the index holds it, 0 where it does not."""
    pictures = pictures_found(store)
    found = store.search(np.stack(list(vectors.values())), max(1, store.snapshot.images))
    scores = {}
    for key, ids, row_scores in zip(vectors, found.ids, found.scores, strict=True):
        here = np.flatnonzero(ids == pictures[key].id) if key in pictures else []
        scores[key] = float(row_scores[here[0]]) if len(here) else 0.0
    return scores


def query_catalog(index_dir: Path, sql: str, *parameters: Any) -> list[Any]:
    """Run one statement on the catalog behind the store's back, and commit it."""
    with closing(sqlite3.connect(index_dir / CATALOG_FILE)) as connection, connection:
        return connection.execute(sql, parameters).fetchall()
