"""Which pictures of other products does the network take for this one, among all that it is trained on?"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.changes import NO_PICTURE, Attributes, Changes, Put
from indexer.store import IndexStore

_ROWS_AT_ONCE = 2048
_MOST_SUSPECTS = 200
_RANDOM_PAIRS = 4096
_ROOM_FOR_SUSPECTS = 32  # of one picture; with more than that, its window is short


@dataclass(frozen=True)
class Suspect:
    """Two pictures that look the same and are labelled differently; row < other."""

    row: int
    other: int
    score: float


@dataclass(frozen=True)
class MinedNegatives:
    """For every picture, those of other labels that are nearest to it.

    Attributes:
        rows: (N, W) int64, by ascending rank within the window; -1 where there is none.
        suspects: near-duplicates of another label, most alike first; they are in nobody's `rows`.
    """

    rows: NDArray[np.int64]
    suspects: list[Suspect]


def mine_from_index(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    window: tuple[int, int],
    duplicate_share: float = 0.0,
) -> MinedNegatives:
    """Index the embeddings, search the index with each of them, and keep a window of the ranks of other labels.

    Args:
        embeddings: (N, D) unit rows.
        labels: (N,) class numbers.
        window: ranks among the pictures of other labels, from 0: the first that is kept and the first that is not.
            W is their difference.
        duplicate_share: a pair of different labels is set aside as a probable label error where its squared distance
            is at most this share of that of two random pictures; 0 sets none aside.

    Returns:
        `MinedNegatives`.

    Source: rank windows as in sentence-transformers' `mine_hard_negatives`; Moreira et al. 2024, "NV-Retriever".
    """
    first, last = window
    largest_class = int(np.bincount(labels).max(initial=0))
    # Its own class may fill the first ranks, and suspects are passed over.
    k = min(len(labels), largest_class + last + _ROOM_FOR_SUSPECTS)
    duplicate_score = _duplicate_score(embeddings, duplicate_share)
    mined = np.full((len(labels), last - first), -1, np.int64)
    found: dict[tuple[int, int], float] = {}
    with tempfile.TemporaryDirectory(prefix="retrieve-mining-") as folder:
        store = _index_of(Path(folder) / "index", embeddings)
        try:
            for start in range(0, len(labels), _ROWS_AT_ONCE):
                near = store.search(embeddings[start : start + _ROWS_AT_ONCE], k)
                for row, (ids, scores) in enumerate(zip(near.ids - 1, near.scores, strict=True), start):
                    is_other = (ids >= 0) & (labels[ids] != labels[row])
                    is_suspect = is_other & (scores >= duplicate_score)
                    for other, score in zip(ids[is_suspect].tolist(), scores[is_suspect].tolist(), strict=True):
                        found[min(row, other), max(row, other)] = score
                    kept = ids[is_other & ~is_suspect][first:last]
                    mined[row, : len(kept)] = kept
        finally:
            store.close()
    suspects = [Suspect(*rows, score) for rows, score in found.items()]
    suspects.sort(key=lambda suspect: (-suspect.score, suspect.row, suspect.other))
    return MinedNegatives(mined, suspects[:_MOST_SUSPECTS])


def _duplicate_score(embeddings: NDArray[np.float32], share: float) -> float:
    """The cosine from which two pictures count as the same; relative, because untrained networks find all alike."""
    if share <= 0 or len(embeddings) < 2:
        return math.inf
    first, second = np.random.default_rng(0).integers(0, len(embeddings), (2, _RANDOM_PAIRS))
    scores = np.einsum("nd,nd->n", embeddings[first], embeddings[second])[first != second]
    return float(1.0 - share * (1.0 - np.median(scores)))


def _index_of(index_dir: Path, embeddings: NDArray[np.float32]) -> IndexStore:
    """An index whose ids are the rows, counted from 1."""
    store = IndexStore.create(index_dir, model_name="in training", model_fingerprint="0", dim=embeddings.shape[1])
    nothing = Attributes()
    for start in range(0, len(embeddings), _ROWS_AT_ONCE):
        puts = [
            Put(str(row), vector, content_hash="", size_bytes=0, mtime_ns=0, scanned_ns=0, path="", attributes=nothing,
                expected_id=NO_PICTURE)
            for row, vector in enumerate(embeddings[start : start + _ROWS_AT_ONCE], start)
        ]  # fmt: skip
        store.commit(Changes(puts=puts), "mining")
    return store
