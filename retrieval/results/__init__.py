"""What a caller gets back; `to_dict()` is the stable shape of --json, of Python and of HTTP alike."""

from retrieval.results.evaluation import (
    METRIC_TITLES,
    ClassScore,
    Comparison,
    EvaluationReport,
    Failure,
    Figure,
    LeftOut,
    Sighting,
)
from retrieval.results.feedback import Contradiction, FeedbackReport, FeedbackUse
from retrieval.results.indexing import IndexInfo, IndexReport, ModelInfo
from retrieval.results.moving import MoveReport, RefreshReport, Reign
from retrieval.results.searching import Duplicate, Hit, IndexedPicture, MatchResult, SearchResult
from retrieval.results.training import TrainingReport

__all__ = [
    "METRIC_TITLES",
    "ClassScore",
    "Comparison",
    "Contradiction",
    "Duplicate",
    "EvaluationReport",
    "Failure",
    "FeedbackReport",
    "FeedbackUse",
    "Figure",
    "Hit",
    "IndexInfo",
    "IndexReport",
    "IndexedPicture",
    "LeftOut",
    "MatchResult",
    "ModelInfo",
    "MoveReport",
    "RefreshReport",
    "Reign",
    "SearchResult",
    "Sighting",
    "TrainingReport",
]
