"""Rankings are scored exactly: by hand, against a slow loop, against pytorch-metric-learning, and in little memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer.errors import VectorError
from retrieval.evaluation import metrics
from retrieval.evaluation.metrics import RankingScores, score_ranking
from vectors import unit_rows

# Any of these ranks against itself and the others with scores that float32 holds exactly or rounds alike.
DIRECTIONS = np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8], [0.8, 0.6], [-0.6, 0.8]], np.float32)
MEASURE_MEMORY = Path(__file__).with_name("measure_metrics_memory.py")


def at_cosines(*cosines: float) -> NDArray[np.float32]:
    """Unit vectors of the plane with these cosines to (1, 0)."""
    return np.array([(cosine, np.sqrt(1 - cosine**2)) for cosine in cosines], np.float32)


def clustered(count: int, dim: int, classes: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(count, dim) unit rows about one centre a class, overlapping, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    rows = unit_rows(classes, dim, seed)[labels] + 1.2 / np.sqrt(dim) * generator.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def slow_scores(
    queries: NDArray[np.float32],
    query_labels: NDArray[np.int64],
    gallery: NDArray[np.float32],
    gallery_labels: NDArray[np.int64],
    own_rows: list[list[int]],
) -> dict[str, list[float]]:
    """The slow obvious loop: rank everything for every query, then walk down the ranking."""
    found: dict[str, list[float]] = {"rows": [], "first": [], "at_r": [], "map": [], "nearest": [], "curve": []}
    for row, query in enumerate(queries):
        ranking = []
        for other, vector in enumerate(gallery):
            if other not in own_rows[row]:
                score = np.float32(np.dot(query.astype(np.float64), vector.astype(np.float64)))
                ranking.append((-score, other))
        ranking.sort()
        is_right = [gallery_labels[other] == query_labels[row] for _, other in ranking]
        count = sum(is_right)
        if count == 0:
            continue
        precision = [sum(is_right[: rank + 1]) / (rank + 1) for rank in range(len(is_right))]
        found["rows"].append(row)
        found["first"].append(1 + is_right.index(True))
        found["at_r"].append(sum(precision[rank] for rank in range(count) if is_right[rank]) / count)
        found["map"].append(sum(precision[rank] for rank in range(len(is_right)) if is_right[rank]) / count)
        found["nearest"].append(ranking[0][1])
        recall = [sum(is_right[: rank + 1]) for rank in range(len(is_right))]
        found["curve"].append(
            [max(precision[r] for r in range(len(recall)) if 100 * recall[r] >= level * count) for level in range(101)]
        )
    return found


def assert_equals_the_loop(scores: RankingScores, slow: dict[str, list[float]]) -> None:
    np.testing.assert_array_equal(scores.rows, slow["rows"])
    np.testing.assert_array_equal(scores.first_positive_rank, slow["first"])
    np.testing.assert_array_equal(scores.nearest, slow["nearest"])
    np.testing.assert_allclose(scores.average_precision_at_r, slow["at_r"], atol=1e-12)
    np.testing.assert_allclose(scores.average_precision, slow["map"], atol=1e-12)
    curve = np.mean(slow["curve"], axis=0) if slow["curve"] else np.zeros(101)
    np.testing.assert_allclose(scores.precision_at_recall, curve, atol=1e-12)


def test_a_ranking_scored_by_hand() -> None:
    """Positives (label 7) at ranks 1, 3 and 5 of six: R = 3, precision at them 1/1, 2/3 and 3/5.

    Average precision (1 + 2/3 + 3/5) / 3 = 34/45. At R = 3 the first two count: (1 + 2/3) / 3 = 5/9.
    Interpolated precision: 1 up to recall 1/3, 2/3 up to 2/3, then 3/5.
    """
    labels = np.array([0, 7, 7, 1, 7, 2])
    scores = score_ranking(at_cosines(1), np.array([7]), at_cosines(0.8, 0.9, 0.5, 0.6, 0.7, 0.4), labels)
    assert scores.positives.tolist() == [3]
    assert scores.first_positive_rank.tolist() == [1]
    assert (scores.nearest.tolist(), scores.nearest_positive.tolist()) == ([1], [1])
    assert scores.mean_average_precision == pytest.approx(34 / 45)
    assert scores.map_at_r == pytest.approx(5 / 9)
    curve = scores.precision_at_recall
    assert curve.tolist() == pytest.approx([1] * 34 + [2 / 3] * 33 + [0.6] * 34)


def test_recall_at_k_asks_for_one_positive_among_the_first_k() -> None:
    """The only positives of the two queries are at ranks 2 and 1."""
    queries, gallery = at_cosines(1, 0), at_cosines(0.9, 0.5, 0.1)
    scores = score_ranking(queries, np.array([1, 2]), gallery, np.array([0, 1, 2]))
    assert scores.first_positive_rank.tolist() == [2, 1]
    assert [scores.recall_at(k) for k in (1, 2, 3)] == [0.5, 1.0, 1.0]


def test_the_nearest_picture_and_the_nearest_positive_come_with_their_scores() -> None:
    scores = score_ranking(at_cosines(1), np.array([1]), at_cosines(0.3, 0.9, 0.5), np.array([1, 0, 1]))
    assert (scores.nearest.tolist(), scores.nearest_positive.tolist()) == ([1], [2])
    assert scores.nearest_score.tolist() == pytest.approx([0.9])
    assert scores.nearest_positive_score.tolist() == pytest.approx([0.5])


def test_equal_scores_are_ordered_by_gallery_row() -> None:
    gallery = np.repeat(at_cosines(0.5), 4, axis=0)
    first, last = (score_ranking(at_cosines(1), np.array([1]), gallery, np.array(labels))
                   for labels in ([1, 0, 0, 0], [0, 0, 0, 1]))  # fmt: skip
    assert first.first_positive_rank.tolist() == [1]
    assert last.first_positive_rank.tolist() == [4]


def test_equal_vectors_are_equal_scores_wherever_they_lie_in_a_large_gallery() -> None:
    """Sums of a matrix product may be rounded differently from row to row: the copies must tie all the same."""
    copy, others = unit_rows(1, 96, seed=1), unit_rows(997, 96, seed=2)
    gallery = np.concatenate([others, copy, others[:500], copy, others[:331], copy])
    labels = np.zeros(len(gallery), np.int64)
    labels[-1] = 1
    query = unit_rows(1, 96, seed=3) * 0.2 + copy
    scores = score_ranking(query / np.linalg.norm(query), np.array([1]), gallery, labels)
    assert scores.first_positive_rank.tolist() == [3]


def test_a_query_without_a_positive_is_left_out() -> None:
    scores = score_ranking(at_cosines(1, 0.5, 0), np.array([8, 1, 9]), at_cosines(0.9, 0.1), np.array([1, 0]))
    assert scores.rows.tolist() == [1]


def test_without_any_positive_there_is_nothing_to_take_the_mean_of() -> None:
    scores = score_ranking(at_cosines(1, 0), np.array([8, 9]), at_cosines(0.9), np.array([1]))
    assert len(scores.rows) == 0
    assert np.isnan([scores.recall_at(1), scores.map_at_r, scores.mean_average_precision]).all()


def test_a_query_alone_in_its_class_is_left_out_once_it_is_no_answer_to_itself() -> None:
    vectors = at_cosines(1, 0.9, 0)
    scores = score_ranking(vectors, np.array([1, 1, 2]), vectors, np.array([1, 1, 2]), own_rows=np.arange(3))
    assert scores.rows.tolist() == [0, 1]
    assert scores.positives.tolist() == [1, 1]


def test_several_rows_can_be_the_query_itself() -> None:
    gallery, labels = at_cosines(1, 0.9, 1, 0.5), np.array([1, 0, 1, 1])
    own = np.array([[0, 2, -1]])
    scores = score_ranking(at_cosines(1), np.array([1]), gallery, labels, own_rows=own)
    assert (scores.nearest.tolist(), scores.first_positive_rank.tolist(), scores.positives.tolist()) == ([1], [2], [1])


def test_no_gallery_leaves_every_query_out() -> None:
    scores = score_ranking(unit_rows(3, 4, 0), np.arange(3), np.empty((0, 4), np.float32), np.empty(0, np.int64))
    assert len(scores.rows) == 0


def test_no_queries_are_no_scores() -> None:
    scores = score_ranking(np.empty((0, 4), np.float32), np.empty(0, np.int64), unit_rows(3, 4, 0), np.arange(3))
    assert len(scores.rows) == 0


def test_labels_may_be_texts() -> None:
    scores = score_ranking(at_cosines(1), np.array(["shoe"]), at_cosines(0.9, 0.5), np.array(["a long name", "shoe"]))
    assert scores.first_positive_rank.tolist() == [2]


@given(st.data())
def test_any_ranking_full_of_ties_equals_the_slow_loop(drawn: st.DataObject) -> None:
    vectors = st.lists(st.integers(0, len(DIRECTIONS) - 1), min_size=1, max_size=12)
    asked, held = drawn.draw(vectors), drawn.draw(vectors)
    labels = st.integers(0, 2)
    query_labels = np.array([drawn.draw(labels) for _ in asked])
    gallery_labels = np.array([drawn.draw(labels) for _ in held])
    own = np.array([[drawn.draw(st.integers(-1, len(held) - 1)) for _ in range(2)] for _ in asked])
    arguments = (DIRECTIONS[asked], query_labels, DIRECTIONS[held], gallery_labels)
    scores = score_ranking(*arguments, own_rows=own)
    assert_equals_the_loop(scores, slow_scores(*arguments, own.tolist()))


def test_clustered_embeddings_against_themselves_equal_the_slow_loop() -> None:
    vectors, labels = clustered(150, 16, 23, seed=4)
    scores = score_ranking(vectors, labels, vectors, labels, own_rows=np.arange(150))
    assert 0.2 < scores.recall_at(1) < 0.95, "neither trivial nor hopeless"
    assert_equals_the_loop(scores, slow_scores(vectors, labels, vectors, labels, [[row] for row in range(150)]))


def test_the_size_of_the_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, labels = clustered(300, 16, 40, seed=5)
    whole = score_ranking(vectors, labels, vectors, labels, own_rows=np.arange(300))
    monkeypatch.setattr(metrics, "_MOST_QUERIES", 7)
    monkeypatch.setattr(metrics, "_CHUNK_VALUES", 16 * 31)
    small = score_ranking(vectors, labels, vectors, labels, own_rows=np.arange(300))
    for name in RankingScores.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(small, name), getattr(whole, name), err_msg=name)


def test_turning_all_embeddings_changes_no_metric() -> None:
    vectors, labels = clustered(200, 16, 30, seed=6)
    turn, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((16, 16)))
    turned = (vectors @ turn).astype(np.float32)
    one, other = (score_ranking(rows, labels, rows, labels, own_rows=np.arange(200)) for rows in (vectors, turned))
    np.testing.assert_allclose(one.average_precision, other.average_precision, atol=1e-12)
    assert (one.recall_at(1), one.map_at_r) == (other.recall_at(1), pytest.approx(other.map_at_r))


def test_the_order_of_the_gallery_changes_no_metric_where_nothing_ties() -> None:
    vectors, labels = clustered(200, 16, 30, seed=8)
    queries, query_labels = clustered(50, 16, 30, seed=9)
    order = np.random.default_rng(10).permutation(200)
    one = score_ranking(queries, query_labels, vectors, labels)
    other = score_ranking(queries, query_labels, vectors[order], labels[order])
    np.testing.assert_array_equal(one.average_precision, other.average_precision)


# In a process of its own: importing it changes FAISS's search for the whole process (faiss.contrib.torch_utils).
ACCURACY_CALCULATOR = """
import json, sys
import numpy as np, torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
names = ("precision_at_1", "mean_average_precision_at_r", "mean_average_precision")
calculator = AccuracyCalculator(include=names, k=None, device=torch.device("cpu"))
print(json.dumps(calculator.get_accuracy(**np.load(sys.argv[1]))))
"""


@pytest.mark.parametrize("is_among_itself", [True, False])
def test_metrics_equal_those_of_pytorch_metric_learning(tmp_path: Path, is_among_itself: bool) -> None:
    vectors, labels = clustered(600, 32, 150, seed=11)  # four a class on average: some have one picture, or none
    if is_among_itself:
        given = {"query": vectors, "query_labels": labels}
        ours = score_ranking(vectors, labels, vectors, labels, own_rows=np.arange(600))
    else:
        given = {"query": vectors[:200], "query_labels": labels[:200]}
        given |= {"reference": vectors[200:], "reference_labels": labels[200:]}
        ours = score_ranking(vectors[:200], labels[:200], vectors[200:], labels[200:])
    np.savez(tmp_path / "given.npz", **given)
    command = [sys.executable, "-c", ACCURACY_CALCULATOR, tmp_path / "given.npz"]
    theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0 < len(ours.rows) < len(given["query"]), "some are left out"
    assert theirs == {
        "precision_at_1": pytest.approx(ours.recall_at(1), abs=1e-6),
        "mean_average_precision_at_r": pytest.approx(ours.map_at_r, abs=1e-6),
        "mean_average_precision": pytest.approx(ours.mean_average_precision, abs=1e-6),
    }


def test_rows_that_are_not_of_unit_length_are_refused() -> None:
    with pytest.raises(VectorError, match="row 1: length 2 given, unit length needed"):
        score_ranking(at_cosines(1), np.array([0]), at_cosines(1, 0) * [[1], [2]], np.arange(2))


def test_queries_of_another_length_are_refused() -> None:
    with pytest.raises(VectorError, match=r"vectors of shape \(2, 2\) given, the index takes \(N, 4\)"):
        score_ranking(unit_rows(1, 4, 0), np.array([0]), at_cosines(1, 0), np.arange(2))


def test_a_label_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match=r"labels of shapes \(1,\) and \(1,\) given for 1 queries and 2 gallery"):
        score_ranking(at_cosines(1), np.array([0]), at_cosines(1, 0), np.arange(1))


def test_own_rows_of_another_number_of_queries_are_refused() -> None:
    with pytest.raises(ValueError, match=r"own_rows of shape \(2, 1\) given for 1 queries"):
        score_ranking(at_cosines(1), np.array([0]), at_cosines(1, 0), np.arange(2), own_rows=np.array([0, 1]))


def test_own_rows_beyond_the_gallery_are_refused() -> None:
    with pytest.raises(ValueError, match="own_rows from 2 to 2 given, the gallery has rows 0 to 1"):
        score_ranking(at_cosines(1), np.array([0]), at_cosines(1, 0), np.arange(2), own_rows=np.array([2]))


def grown_bytes(count: int) -> int:
    """How much a process that scores `count` embeddings of 128 values against themselves grows beyond them."""
    command = [sys.executable, MEASURE_MEMORY, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_memory_stays_below_one_matrix_of_all_scores() -> None:
    """6,000 x 6,000 float32 scores would be 144 MB; a block of them, and what sorting it takes, is some 40 MB."""
    assert grown_bytes(6_000) < 100e6


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sixty_thousand_embeddings_against_themselves_take_less_than_a_gigabyte() -> None:
    assert grown_bytes(60_000) < 1e9
