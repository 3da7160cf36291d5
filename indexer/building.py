"""How is an approximation built? It learns from a segment's vectors, holds all, and is tuned until it finds enough."""

import math
import time
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.approximation import RECALL_K, Approximation, ApproximationFile, Tuning
from indexer.errors import RecipeError
from indexer.recipe import IndexRecipe, centroids_of, empty_index, innermost
from indexer.segments import Segment
from indexer.vectors import Vectors

_POINTS_PER_CENTROID = 64  # FAISS takes 256 where it is given as many, for four times the time
_LEAST_POINTS = 20_000
_ROWS_AT_ONCE = 65_536
_QUERIES = 1000
_TIMED_QUERIES = 200
_POOLS = (1, 2, 4, 8, 16, 32, 64, 128)
_STEP = 1.25  # between one effort and the next
_MOST_BREADTH = 4096  # of a walk through a graph
_TIE = 1e-6  # scores that differ by less are equal: whichever of the two is found


class Built(NamedTuple):
    """An approximation in memory.

    Attributes:
        measured_recall: the share of the true `RECALL_K` nearest of `_QUERIES` of the vectors, each left out itself.
    """

    index: Any
    tuning: Tuning
    measured_recall: float


def build(segment: Segment, recipe: IndexRecipe, recall: float, seed: int = 0) -> Built:
    """Build an approximation of a segment.

    Args:
        recall: of the true `RECALL_K` nearest, the share to find at least; it is taken to be reached when two standard
            errors below what is measured are above it.
        seed: of the drawing of vectors to learn from and to measure with.

    Raises:
        RecipeError: the recipe does not find that many, however thoroughly it is searched.
    """
    random = np.random.default_rng(seed)
    index = empty_index(recipe.factory, segment.dim)
    points = min(len(segment.ids), max(_LEAST_POINTS, _POINTS_PER_CENTROID * centroids_of(index)))
    index.train(segment.rows(np.sort(random.choice(len(segment.ids), points, replace=False))))
    for start in range(0, len(segment.ids), _ROWS_AT_ONCE):
        index.add(segment.read(start, min(start + _ROWS_AT_ONCE, len(segment.ids))))
    tuning, measured = _tuned(segment, index, recipe.factory, recall, random)
    return Built(index, tuning, measured)


class _Measure:
    """What vectors of the segment, as queries, have for true neighbours other than themselves."""

    def __init__(self, segment: Segment, random: np.random.Generator) -> None:
        count = min(_QUERIES, len(segment.ids))
        self.rows = np.sort(random.choice(len(segment.ids), count, replace=False))
        self.queries = segment.rows(self.rows)
        self.k = min(RECALL_K, len(segment.ids) - 1)
        true = segment.search(self.queries, self.k + 1)
        is_other = true.ids != segment.ids[self.rows][:, np.newaxis]
        self._least = _first_of(true.scores, is_other, self.k)[:, -1:]  # (Q, 1) the score of the last true neighbour

    def recall(self, approximation: Approximation, tuning: Tuning) -> NDArray[np.float64]:
        """(Q,) the share of each query's true neighbours that is found."""
        found = approximation.search(self.queries, self.k + 1, tuning)
        is_other = found.ids != self.rows[:, np.newaxis]
        shares: NDArray[np.float64] = np.mean(_first_of(found.scores, is_other, self.k) >= self._least - _TIE, axis=1)
        return shares


def _first_of(scores: Vectors, is_wanted: NDArray[np.bool_], k: int) -> Vectors:
    """(Q, k) of each row's (k + 1,) scores, without the one that is not wanted, or else the last."""
    order = np.argsort(~is_wanted, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1)


def _tuned(
    segment: Segment, index: Any, factory: str, recall: float, random: np.random.Generator
) -> tuple[Tuning, float]:
    """The fastest tuning that finds enough, and what it finds."""
    measure = _Measure(segment, random)
    efforts = _efforts(index)
    untuned = ApproximationFile("", 0, 0, factory, Tuning(efforts[-1], _POOLS[-1]), recall, 0.0)
    approximation = Approximation(segment, index, untuned)
    best: tuple[float, Tuning, float] | None = None
    most_found = 0.0
    for pool in _POOLS:
        shares = {efforts[-1]: measure.recall(approximation, Tuning(efforts[-1], pool))}
        most_found = max(most_found, float(shares[efforts[-1]].mean()))
        if not _is_enough(shares[efforts[-1]], recall):
            continue
        low, high = 0, len(efforts) - 1
        while low < high:  # each effort finds at least what those before it find
            middle = (low + high) // 2
            shares[efforts[middle]] = measure.recall(approximation, Tuning(efforts[middle], pool))
            low, high = (low, middle) if _is_enough(shares[efforts[middle]], recall) else (middle + 1, high)
        tuning = Tuning(efforts[high], pool)
        seconds = _seconds(approximation, measure, tuning)
        if best is not None and seconds >= best[0]:
            break  # with a larger pool still fewer lists would do, for more and more of scoring
        best = seconds, tuning, float(shares[efforts[high]].mean())
    if best is None:
        raise RecipeError(
            f"recipe {factory!r} finds {most_found:.3f} of the nearest at most, {recall:g} are asked for; ask for less "
            "with --recall, or write a recipe with longer codes"
        )
    return best[1], best[2]


def _is_enough(shares: NDArray[np.float64], recall: float) -> bool:
    """Whether queries that find these shares leave little doubt that others find as many."""
    return float(shares.mean() - 2 * shares.std() / math.sqrt(len(shares))) >= recall


def _efforts(index: Any) -> list[int]:
    """Every effort worth trying, least first."""
    inner = innermost(index)
    if isinstance(inner, faiss.IndexIVF):
        least, most = 1, int(inner.nlist)
    elif isinstance(inner, faiss.IndexHNSW):
        least, most = RECALL_K + 1, _MOST_BREADTH  # a walk is as broad as there are hits at least
    else:
        return [0]
    steps = math.ceil(math.log(most / least, _STEP))
    return sorted({min(most, round(least * _STEP**step)) for step in range(steps + 1)})


def _seconds(approximation: Approximation, measure: _Measure, tuning: Tuning) -> float:
    """How long some searches take, one query at a time; the faster of two runs."""
    queries = measure.queries[:_TIMED_QUERIES]
    times = []
    for _ in range(2):
        start = time.perf_counter()
        for query in queries:
            approximation.search(query[np.newaxis], RECALL_K, tuning)
        times.append(time.perf_counter() - start)
    return min(times)
