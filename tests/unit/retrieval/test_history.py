"""What happened in each epoch is told in lines of JSON, and the best epoch is the earliest with the best score."""

import json
import random
from pathlib import Path

import pytest

from retrieval.training.history import Epoch, Measures, best_epoch, write_history


def epoch(number: int, recall_at_1: float | None = None, map_at_r: float | None = None) -> Epoch:
    return Epoch(
        phase="validation",
        epoch=number,
        loss=1 / 3,
        active=None,
        images_per_second=100.0,
        rate_factor=0.3,
        recall_at_1=recall_at_1,
        map_at_r=map_at_r,
        variance=0.1,
        random_distance=1.0,
        is_best=False,
        seconds=2.5,
        notes=["a note"],
    )


def test_the_score_is_the_mean_of_both_measures() -> None:
    assert Measures(recall_at_1=0.9, map_at_r=0.5).score == pytest.approx(0.7)


def test_the_best_epoch_has_the_best_score() -> None:
    # scores 0.5, 0.7 and 0.65: neither the highest Recall@1 (0.9) nor the highest MAP@R (0.6) alone decides
    history = [epoch(1, 0.9, 0.1), epoch(2, 0.85, 0.55), epoch(3, 0.7, 0.6)]
    assert best_epoch(history) == history[1]


def test_of_equal_epochs_the_earliest_is_best() -> None:
    history = [epoch(1, 0.5, 0.5), epoch(2, 0.75, 0.75), epoch(3, 0.75, 0.75)]
    assert best_epoch(history) == history[1]


def test_no_later_epoch_is_better_than_the_best_and_no_earlier_one_as_good() -> None:
    drawn = random.Random(0)
    for _ in range(50):
        history = [epoch(n, drawn.randint(0, 3) / 4, drawn.randint(0, 3) / 4) for n in range(1, 8)]
        best = best_epoch(history)
        assert best is not None
        scores = [one.measures.score for one in history if one.measures is not None]
        score = scores[best.epoch - 1]
        assert all(other <= score for other in scores)
        assert all(other < score for other in scores[: best.epoch - 1])


@pytest.mark.parametrize("history", [[], [epoch(1), epoch(2)]], ids=["empty", "unmeasured"])
def test_nothing_is_best_where_nothing_was_measured(history: list[Epoch]) -> None:
    assert best_epoch(history) is None


def test_an_epoch_that_was_not_measured_is_passed_over() -> None:
    assert best_epoch([epoch(1), epoch(2, 0.0, 0.0)]) == epoch(2, 0.0, 0.0)


def test_an_epoch_comes_back_from_json_as_it_was() -> None:
    one = epoch(3, 2 / 3, 0.1)
    assert Epoch.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_a_history_is_one_line_an_epoch(tmp_path: Path) -> None:
    history = [epoch(1, 0.5, 0.4), epoch(2)]
    write_history(history, tmp_path / "metrics.jsonl")
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [one.to_dict() for one in history]
