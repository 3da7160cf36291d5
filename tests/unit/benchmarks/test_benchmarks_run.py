"""What the benchmarks import is still there."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("bench_*.py")))
def test_a_benchmark_can_be_loaded(name: str) -> None:
    assert callable(importlib.import_module(name).main)
