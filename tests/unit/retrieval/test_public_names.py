"""The names that callers rely on; taking one away is a breaking change."""

import subprocess
import sys

import retrieval

PUBLIC = {
    *("Box", "DecodeLimits", "Encoder", "Hit", "ImageLike", "IndexInfo", "IndexReport", "ModelInfo", "Progress"),
    *("EvaluationOptions", "EvaluationReport", "MatchResult", "evaluate"),
    *("Refinements", "SearchEngine", "SearchResult", "Skipped", "describe_model", "open_encoder"),
}


def test_the_public_names_are_these() -> None:
    assert set(retrieval.__all__) == PUBLIC
    assert set(dir(retrieval)) >= PUBLIC


def test_every_public_name_can_be_had() -> None:
    code = "import retrieval; print([getattr(retrieval, name) is not None for name in retrieval.__all__])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("True") == len(PUBLIC)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(retrieval, "NoSuchName")
