"""How high do rankings put pictures of the same product? Exact metrics, streamed over blocks of queries."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.vectors import Vectors, check_unit_rows
from retrieval.threads import usable_cores

RECALL_LEVELS = np.arange(101)  # percent; as in COCO's evaluation

_MOST_QUERIES = 256  # a block that keeps a matrix product busy
_BLOCK_SCORES = 1 << 24  # scores held at once, where the gallery is large: 64 MB
_CHUNK_VALUES = 1 << 22  # gallery values held as float64: 32 MB

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RankingScores:
    """How the gallery was ranked for each of the S queries that have a positive in it.

    The mean of every array of floats is the metric of that name. Queries without a positive are not among the S, as
    in pytorch-metric-learning's AccuracyCalculator: nothing could be found for them.

    Attributes:
        rows: (S,) int64, which of the queries these are, ascending.
        positives: (S,) int64, gallery pictures of the query's label: R, at least 1.
        first_positive_rank: (S,) int64, from 1.
        average_precision_at_r: (S,) float64, whose mean is MAP@R.
        average_precision: (S,) float64, whose mean is mAP.
        nearest, nearest_positive: (S,) int64, gallery rows of the first hit and of the first positive.
        nearest_score, nearest_positive_score: (S,) float32, their cosines.
        precision_at_recall: (101,) float64, interpolated precision at recall 0, 0.01, ..., 1, mean over the queries.
    """

    rows: Rows
    positives: Rows
    first_positive_rank: Rows
    average_precision_at_r: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    nearest: Rows
    nearest_positive: Rows
    nearest_score: Vectors
    nearest_positive_score: Vectors
    precision_at_recall: NDArray[np.float64]

    def found_at(self, k: int) -> NDArray[np.bool_]:
        """(S,) whether a positive is among the first k."""
        return self.first_positive_rank <= k

    def recall_at(self, k: int) -> float:
        """The share of the queries that have a positive among the first k; NaN where S is 0."""
        return float(self.found_at(k).mean()) if len(self.rows) else float("nan")

    @property
    def map_at_r(self) -> float:
        """MAP@R; NaN where S is 0."""
        return float(self.average_precision_at_r.mean()) if len(self.rows) else float("nan")

    @property
    def mean_average_precision(self) -> float:
        """The mean average precision over the whole ranking; NaN where S is 0."""
        return float(self.average_precision.mean()) if len(self.rows) else float("nan")


def score_ranking(
    queries: Vectors,
    query_labels: NDArray[Any],
    gallery: Vectors,
    gallery_labels: NDArray[Any],
    *,
    own_rows: Rows | None = None,
) -> RankingScores:
    """Rank the whole gallery for every query, exactly, and score the rankings.

    The gallery is ranked by cosine, computed in float64 and rounded to float32, so that equal vectors have equal
    scores; equal scores are ordered by gallery row, as an index orders them by id. Memory above the embeddings is
    bounded by blocks, some 0.3 GB, whatever Q and N are, and by about 1 kB a query for the results.

    Args:
        queries: (Q, D) unit rows.
        query_labels: (Q,) of any type that `gallery_labels` shares and that can be sorted.
        gallery: (N, D) unit rows. May be `queries` itself.
        gallery_labels: (N,).
        own_rows: (Q,) or (Q, M) int64, the gallery rows that are the query itself and no answer to it; they are left
            out of its ranking. -1 stands for none.

    Raises:
        VectorError: rows are not of unit length, or of different lengths D.
        ValueError: labels or `own_rows` disagree in number with the embeddings, or name rows that are not there.

    Source: Musgrave et al. 2020, "A Metric Learning Reality Check" (MAP@R). docs/metrics.md has the formulas.
    """
    dim = np.shape(queries)[-1]
    queries, gallery = check_unit_rows(queries, dim), check_unit_rows(gallery, dim)
    own = _checked_own_rows(own_rows, len(queries), len(gallery))
    same_label = _gallery_rows_by_query(query_labels, gallery_labels, len(queries), len(gallery))
    kept: list[tuple[int, _QueryScores]] = []
    precision_at_recall = np.zeros(len(RECALL_LEVELS))
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="rank") as pool:
        for start, scores in _score_blocks(queries, gallery):
            stop = start + len(scores)
            at, column = np.nonzero(own[start:stop] >= 0)
            scores[at, own[start:stop][at, column]] = -np.inf
            outcomes = pool.map(_score_query, scores, same_label[start:stop])
            for row, outcome in enumerate(outcomes, start):
                if outcome is not None:
                    kept.append((row, outcome))
                    precision_at_recall += outcome.precision_at_recall
    return _gathered(kept, precision_at_recall)


class _QueryScores(NamedTuple):
    positives: int
    first_positive_rank: int
    average_precision_at_r: float
    average_precision: float
    nearest: int
    nearest_positive: int
    nearest_score: float
    nearest_positive_score: float
    precision_at_recall: NDArray[np.float64]


def _score_query(scores: Vectors, same_label: Rows) -> _QueryScores | None:
    """Score one ranking.

    Args:
        scores: (N,) of the whole gallery; -inf leaves a row out.
        same_label: gallery rows of the query's label, ascending.
    """
    positives = same_label[scores[same_label] > -np.inf]
    if not positives.size:
        return None
    # What lies below the worst positive moves no metric: it need not be sorted.
    candidates = np.flatnonzero(scores >= scores[positives].min())
    ranking = candidates[np.argsort(-scores[candidates], kind="stable")]
    is_positive = np.zeros(len(scores), np.bool_)
    is_positive[positives] = True
    ranks = 1 + np.flatnonzero(is_positive[ranking])  # (R,) ascending
    count = len(ranks)
    precision = np.arange(1, count + 1) / ranks  # at each positive
    from_here_on = np.maximum.accumulate(precision[::-1])[::-1]
    needed = np.maximum(-(-RECALL_LEVELS * count // 100), 1)  # positives that make that recall, rounded up
    first = ranking[ranks[0] - 1]
    return _QueryScores(
        count,
        int(ranks[0]),
        float(precision[ranks <= count].sum() / count),
        float(precision.mean()),
        int(ranking[0]),
        int(first),
        float(scores[ranking[0]]),
        float(scores[first]),
        from_here_on[needed - 1],
    )


def _score_blocks(queries: Vectors, gallery: Vectors) -> Iterator[tuple[int, Vectors]]:
    """The first row of each block of queries, and its (B, N) float32 scores; the array is used again."""
    block = max(1, min(_MOST_QUERIES, _BLOCK_SCORES // max(1, len(gallery)), len(queries)))
    chunk = max(1, _CHUNK_VALUES // max(1, gallery.shape[1]))
    scores = np.empty((block, len(gallery)), np.float32)
    for start in range(0, len(queries), block):
        asking = queries[start : start + block].astype(np.float64)
        for left in range(0, len(gallery), chunk):
            part = gallery[left : left + chunk].astype(np.float64)
            scores[: len(asking), left : left + len(part)] = asking @ part.T
        yield start, scores[: len(asking)]


def _gallery_rows_by_query(
    query_labels: NDArray[Any], gallery_labels: NDArray[Any], query_count: int, gallery_count: int
) -> list[Rows]:
    """For each query the gallery rows of its label, ascending; queries of one label share an array."""
    if np.shape(query_labels) != (query_count,) or np.shape(gallery_labels) != (gallery_count,):
        raise ValueError(
            f"labels of shapes {np.shape(query_labels)} and {np.shape(gallery_labels)} given for {query_count} queries "
            f"and {gallery_count} gallery pictures; give one label a picture"
        )
    both = np.concatenate([np.asarray(query_labels), np.asarray(gallery_labels)])
    _, codes = np.unique(both, return_inverse=True)
    of_gallery = codes[query_count:]
    order = np.argsort(of_gallery, kind="stable").astype(np.int64)
    bounds = np.searchsorted(of_gallery[order], np.arange(codes.max(initial=-1) + 2))
    rows = [order[start:stop] for start, stop in pairwise(bounds)]
    return [rows[code] for code in codes[:query_count]]


def _checked_own_rows(own_rows: Rows | None, query_count: int, gallery_count: int) -> Rows:
    own = np.full((query_count, 1), -1) if own_rows is None else np.asarray(own_rows, np.int64)
    own = own.reshape(-1, 1) if own.ndim == 1 else own
    if own.ndim != 2 or len(own) != query_count:
        raise ValueError(f"own_rows of shape {own.shape} given for {query_count} queries; give a row or several each")
    if own.size and not -1 <= own.min() <= own.max() < gallery_count:
        raise ValueError(
            f"own_rows from {own.min()} to {own.max()} given, the gallery has rows 0 to {gallery_count - 1}; "
            "-1 stands for none"
        )
    return own


def _gathered(kept: list[tuple[int, _QueryScores]], precision_at_recall: NDArray[np.float64]) -> RankingScores:
    def column(name: str, dtype: type) -> NDArray[Any]:
        return np.array([getattr(outcome, name) for _, outcome in kept], dtype)

    return RankingScores(
        rows=np.array([row for row, _ in kept], np.int64),
        positives=column("positives", np.int64),
        first_positive_rank=column("first_positive_rank", np.int64),
        average_precision_at_r=column("average_precision_at_r", np.float64),
        average_precision=column("average_precision", np.float64),
        nearest=column("nearest", np.int64),
        nearest_positive=column("nearest_positive", np.int64),
        nearest_score=column("nearest_score", np.float32),
        nearest_positive_score=column("nearest_positive_score", np.float32),
        precision_at_recall=precision_at_recall / max(1, len(kept)),
    )
