"""The gate reads what is written, and lets through what reaches it and nothing else."""

import pytest

from retrieval.errors import RefreshError
from retrieval.refresh.gate import DEFAULT_GATE, parse_gate

CURRENT = {"recall_at_1": 0.8, "map_at_r": 0.5}


def unmet(gate: str, recall: float, map_at_r: float = 0.5) -> list[str]:
    return parse_gate(gate).unmet({"recall_at_1": recall, "map_at_r": map_at_r}, CURRENT)


@pytest.mark.parametrize(
    ("gate", "reached", "missed"),
    [
        (DEFAULT_GATE, 0.8, 0.7999),
        ("recall_at_1 > current", 0.8001, 0.8),
        ("recall_at_1>=current+0.01", 0.8101, 0.8099),
        ("recall_at_1 >= current - 0.05", 0.7501, 0.7499),
        ("recall_at_1 >= 0.9", 0.9, 0.8999),
        (" recall_at_1 >= .25 ", 0.25, 0.2499),
    ],
)
def test_what_reaches_the_limit_passes_and_what_does_not_is_named(gate: str, reached: float, missed: float) -> None:
    assert unmet(gate, reached) == []
    (said,) = unmet(gate, missed)
    assert said.startswith(f"recall_at_1 is {missed:.4f}, >")


def test_every_condition_must_be_met() -> None:
    gate = "recall_at_1 >= current and map_at_r >= current + 0.02"
    assert unmet(gate, 0.8, 0.53) == []
    assert unmet(gate, 0.8, 0.51) == ["map_at_r is 0.5100, >= 0.5200 is asked for"]
    assert len(unmet(gate, 0.7, 0.4)) == 2


@pytest.mark.parametrize(
    "gate",
    [
        "",
        "better",
        "recall_at_1",
        "recall_at_1 = current",
        "recall_at_1 >= former",
        "recall_at_1 >= current and",
    ],
)
def test_what_is_not_understood_is_quoted_with_an_example(gate: str) -> None:
    with pytest.raises(RefreshError, match=r'^gate ".*": ".*" is no condition; write "FIGURE >= current"'):
        parse_gate(gate)


def test_a_figure_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(RefreshError, match='there is no figure "accuracy"; there are recall_at_1, '):
        parse_gate("accuracy >= current")
