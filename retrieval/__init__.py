"""Pixels to vectors to answers: a visual search engine trained on its own catalogue.

The names below are the public ones. They are loaded when they are first used (PEP 562): importing this package loads
neither torch nor faiss nor openvino.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.embedder import ImageLike
    from retrieval.encoder.runtime import Encoder, describe_model, open_encoder
    from retrieval.engine import SearchEngine
    from retrieval.evaluation.protocol import EvaluationOptions, evaluate
    from retrieval.images import DecodeLimits
    from retrieval.records import Box, Skipped
    from retrieval.results import EvaluationReport, Hit, IndexInfo, IndexReport, MatchResult, ModelInfo, SearchResult
    from retrieval.sync import Progress

_HOMES = {
    "Box": "records",
    "DecodeLimits": "images",
    "Encoder": "encoder.runtime",
    "EvaluationOptions": "evaluation.protocol",
    "EvaluationReport": "results",
    "Hit": "results",
    "ImageLike": "embedder",
    "IndexInfo": "results",
    "IndexReport": "results",
    "MatchResult": "results",
    "ModelInfo": "results",
    "Progress": "sync",
    "Refinements": "answer",
    "SearchEngine": "engine",
    "SearchResult": "results",
    "Skipped": "records",
    "describe_model": "encoder.runtime",
    "evaluate": "evaluation.protocol",
    "open_encoder": "encoder.runtime",
}

__all__ = [
    "Box",
    "DecodeLimits",
    "Encoder",
    "EvaluationOptions",
    "EvaluationReport",
    "Hit",
    "ImageLike",
    "IndexInfo",
    "IndexReport",
    "MatchResult",
    "ModelInfo",
    "Progress",
    "Refinements",
    "SearchEngine",
    "SearchResult",
    "Skipped",
    "describe_model",
    "evaluate",
    "open_encoder",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
