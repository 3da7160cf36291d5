"""What do the rankings add up to? Figures with intervals, classes, failures, and the difference of two models."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import GalleryError
from retrieval.evaluation.intervals import bootstrap_intervals, mcnemar_p
from retrieval.evaluation.metrics import RankingScores, Rows, score_ranking
from retrieval.evaluation.pictures import EmbeddedPictures
from retrieval.gallery.labelled import join
from retrieval.records import Skipped
from retrieval.results import (
    METRIC_TITLES,
    ClassScore,
    Comparison,
    EvaluationReport,
    Failure,
    Figure,
    LeftOut,
    ModelInfo,
    Sighting,
)

MOST_FAILURES = 20

Values = NDArray[np.float64]  # (S, M): a row for each scored query, a column for each of METRIC_TITLES


@dataclass(frozen=True)
class Evaluated:
    """Queries and gallery as one model embedded them; the same object where each is ranked against all others."""

    model: ModelInfo
    queries: EmbeddedPictures
    gallery: EmbeddedPictures

    def only(self, asked: Collection[str], held: Collection[str]) -> "Evaluated":
        """The same with the queries and the gallery pictures of these keys alone."""
        queries, is_same = self.queries.only(asked), self.gallery is self.queries
        return replace(self, queries=queries, gallery=queries if is_same else self.gallery.only(held))

    @property
    def skipped(self) -> list[Skipped]:
        """What could not be used of either side, each once."""
        sides = [self.queries] if self.gallery is self.queries else [self.queries, self.gallery]
        return [skip for side in sides for skip in side.pictures.skipped]


def summarised(evaluated: Evaluated, seed: int = 0) -> EvaluationReport:
    """Rank and score.

    Args:
        evaluated: what to rank for what.
        seed: of the bootstrap.

    Raises:
        GalleryError: the gallery holds no other picture of any query's product.
    """
    own_rows = find_own_rows(evaluated.queries, evaluated.gallery)
    return _report(evaluated, own_rows, scored(evaluated, own_rows), seed)


def compared(first: Evaluated, second: Evaluated, seed: int = 0) -> EvaluationReport:
    """The report on the first of two models on the same pictures, with the comparison in it.

    Raises:
        GalleryError: as in `summarised`.
    """
    own_rows = find_own_rows(first.queries, first.gallery)
    one, other = scored(first, own_rows), scored(second, own_rows)
    found_by_one, found_by_other = one.found_at(1), other.found_at(1)
    comparison = Comparison(
        second.model,
        _figures(_values(other), seed),
        _figures(_values(other) - _values(one), seed),
        only_first=int(np.sum(found_by_one & ~found_by_other)),
        only_second=int(np.sum(found_by_other & ~found_by_one)),
        p_value=mcnemar_p(found_by_one, found_by_other),
    )
    # what the second could not use is missing for both; its list begins with what the first could not
    return replace(_report(first, own_rows, one, seed), skipped=_united(first, second), comparison=comparison)


def find_own_rows(queries: EmbeddedPictures, gallery: EmbeddedPictures) -> Rows:
    """(Q, M) the gallery rows that have the same bytes as each query, -1 where there are fewer than M."""
    rows_of: dict[str, list[int]] = {}
    for row, content_hash in enumerate(gallery.content_hashes):
        rows_of.setdefault(content_hash, []).append(row)
    found = [rows_of.get(content_hash, []) for content_hash in queries.content_hashes]
    own = np.full((len(found), max(map(len, found), default=0)), -1, np.int64)
    for query, rows in enumerate(found):
        own[query, : len(rows)] = rows
    return own


def scored(evaluated: Evaluated, own_rows: Rows) -> RankingScores:
    """Rank the gallery for every query, leaving out its `own_rows`.

    Raises:
        GalleryError: the gallery holds no other picture of any query's product.
    """
    queries, gallery = evaluated.queries, evaluated.gallery
    both = join(queries.pictures, gallery.pictures)
    asked, held = both.labels[: len(queries.vectors)], both.labels[len(queries.vectors) :]
    scores = score_ranking(queries.vectors, asked, gallery.vectors, held, own_rows=own_rows)
    if not len(scores.rows):
        raise GalleryError(
            f"none of the {len(queries.vectors)} queries has another picture of its product in the gallery of "
            f"{len(gallery.vectors)}; add some"
        )
    return scores


def _values(scores: RankingScores) -> Values:
    recall = [scores.found_at(k) for k in (1, 5, 10)]
    return np.stack([*recall, scores.average_precision_at_r, scores.average_precision], axis=1).astype(np.float64)


def _figures(values: Values, seed: int) -> Mapping[str, Figure]:
    ends = bootstrap_intervals(values, seed=seed)
    columns = zip(METRIC_TITLES, values.mean(axis=0).tolist(), ends.tolist(), strict=True)
    return {name: Figure(value, low, high) for name, value, (low, high) in columns}


def _report(evaluated: Evaluated, own_rows: Rows, scores: RankingScores, seed: int) -> EvaluationReport:
    queries, gallery = evaluated.queries, evaluated.gallery
    own_pictures = np.count_nonzero((own_rows[scores.rows] >= 0).any(axis=1))
    unlabelled = queries.pictures.unlabelled + (0 if gallery is queries else gallery.pictures.unlabelled)
    return EvaluationReport(
        evaluated.model,
        _figures(_values(scores), seed),
        queries=len(scores.rows),
        gallery=len(gallery.vectors),
        left_out=LeftOut(unlabelled, len(queries.vectors) - len(scores.rows), int(own_pictures)),
        skipped=evaluated.skipped,
        per_class=_per_class(queries, scores),
        precision_at_recall=scores.precision_at_recall.tolist(),
        failures=_failures(queries, gallery, scores),
    )


def _per_class(queries: EmbeddedPictures, scores: RankingScores) -> list[ClassScore]:
    pictures = queries.pictures
    labels = pictures.labels[scores.rows]
    counts, classes = np.bincount(labels, minlength=len(pictures.names)), np.unique(labels)
    found = np.bincount(labels, scores.found_at(1), minlength=len(pictures.names))
    precision = np.bincount(labels, scores.average_precision_at_r, minlength=len(pictures.names))
    each = [
        ClassScore(
            pictures.names[one], int(counts[one]), float(found[one] / counts[one]), float(precision[one] / counts[one])
        )
        for one in classes
    ]
    return sorted(each, key=lambda score: (score.recall_at_1, score.map_at_r, score.label))


def _failures(queries: EmbeddedPictures, gallery: EmbeddedPictures, scores: RankingScores) -> list[Failure]:
    wrong = np.flatnonzero(~scores.found_at(1))
    confidence = scores.nearest_score[wrong] - scores.nearest_positive_score[wrong]
    failures = []
    for at in wrong[np.argsort(-confidence, kind="stable")][:MOST_FAILURES].tolist():
        row = int(scores.rows[at])
        record = queries.pictures.records[row]
        hit = _sighting(gallery, scores.nearest[at], 1, scores.nearest_score[at])
        rank = int(scores.first_positive_rank[at])
        positive = _sighting(gallery, scores.nearest_positive[at], rank, scores.nearest_positive_score[at])
        failures.append(Failure(record.key, record.path, queries.pictures.label(row), record.box, hit, positive))
    return failures


def _sighting(gallery: EmbeddedPictures, row: int, rank: int, score: float) -> Sighting:
    record = gallery.pictures.records[row]
    return Sighting(record.key, record.path, gallery.pictures.label(row), record.box, rank, float(score))


def _united(first: Evaluated, second: Evaluated) -> list[Skipped]:
    known = {(skip.key, skip.reason) for skip in first.skipped}
    return [*first.skipped, *(skip for skip in second.skipped if (skip.key, skip.reason) not in known)]
