"""What rankings add up to: figures, classes, failures, comparison, and the pictures that are no answer."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.errors import GalleryError
from retrieval.evaluation.pictures import EmbeddedPictures
from retrieval.evaluation.summary import Evaluated, compared, find_own_rows, summarised
from retrieval.gallery.labelled import number_classes
from retrieval.records import ImageRecord, Skipped
from retrieval.results import METRIC_TITLES, EvaluationReport, ModelInfo

MODEL = ModelInfo("m", "0123456789abcdef", 2)


def embedded(*pictures: tuple[str, float], hashes: str | None = None, unlabelled: int = 0) -> EmbeddedPictures:
    """Pictures named "label/number" at a cosine to (1, 0); a letter of `hashes` each says which bytes they have."""
    labelled = [(ImageRecord(key, f"/{key}", 1, 1), key.partition("/")[0]) for key, _ in pictures]
    vectors = np.array([(cosine, np.sqrt(1 - cosine**2)) for _, cosine in pictures], np.float32)
    known = [f"hash of {key}" for key, _ in pictures] if hashes is None else list(hashes)
    return EmbeddedPictures(number_classes(labelled, unlabelled=unlabelled), vectors, known)


QUERIES = embedded(("shoe/q1", 1), ("shoe/q2", 0), ("hat/q", 1))
GALLERY = embedded(("hat/1", 0.9), ("shoe/1", 0.5), ("bag/1", 0.1))
# shoe/q1 sees hat, shoe, bag: rank 2. shoe/q2 sees bag, shoe, hat: rank 2. hat/q sees hat, shoe, bag: rank 1.


@pytest.fixture
def report() -> EvaluationReport:
    return summarised(Evaluated(MODEL, QUERIES, GALLERY))


def test_figures_are_the_means_over_the_queries(report: EvaluationReport) -> None:
    assert report.recall_at == {"1": pytest.approx(1 / 3), "5": 1.0, "10": 1.0}
    assert report.map_at_r == pytest.approx(1 / 3)  # R is 1: the first picture decides
    assert report.mean_average_precision == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert (report.queries, report.gallery) == (3, 3)


def test_every_figure_lies_in_its_interval(report: EvaluationReport) -> None:
    assert list(report.figures) == list(METRIC_TITLES)
    assert all(0 <= figure.low <= figure.value <= figure.high <= 1 for figure in report.figures.values())


def test_classes_come_worst_first(report: EvaluationReport) -> None:
    assert [(one.label, one.queries, one.recall_at_1) for one in report.per_class] == [("shoe", 2, 0), ("hat", 1, 1)]


def test_failures_come_with_the_most_confident_first(report: EvaluationReport) -> None:
    # shoe/q1: 0.9 against 0.5. shoe/q2: sqrt(1 - 0.01) = 0.995 against sqrt(1 - 0.25) = 0.866.
    assert [failure.key for failure in report.failures] == ["shoe/q1", "shoe/q2"]
    first = report.failures[0]
    assert (first.hit.key, first.hit.label, first.hit.rank) == ("hat/1", "hat", 1)
    assert (first.positive.key, first.positive.rank) == ("shoe/1", 2)
    assert (first.hit.score, first.positive.score) == (pytest.approx(0.9), pytest.approx(0.5))


def test_the_stable_shape(report: EvaluationReport) -> None:
    shape = report.to_dict()
    assert set(shape) >= {"recall_at", "map_at_r", "mean_average_precision", "intervals", "queries", "skipped"}
    assert list(shape["recall_at"]) == ["1", "5", "10"]
    assert shape["intervals"].keys() == {"recall_at", "map_at_r", "mean_average_precision"}
    low, high = shape["intervals"]["recall_at"]["1"]
    assert 0 <= low <= shape["recall_at"]["1"] <= high
    assert len(shape["precision_at_recall"]) == 101


def test_the_same_bytes_under_any_name_are_no_answer() -> None:
    gallery = embedded(("shoe/copy", 1), ("shoe/other", 0.5), ("hat/1", 0.9), ("shoe/again", 1), hashes="abca")
    queries = embedded(("shoe/q", 1), hashes="a")
    assert find_own_rows(queries, gallery).tolist() == [[0, 3]]
    report = summarised(Evaluated(MODEL, queries, gallery))
    assert report.recall_at["1"] == 0
    assert report.failures[0].positive.key == "shoe/other"
    assert report.left_out.own_pictures == 1


def test_queries_without_another_picture_of_their_product_are_counted() -> None:
    alone = embedded(("shoe/1", 1), ("shoe/2", 0.9), ("hat/1", 0), unlabelled=4)
    report = summarised(Evaluated(MODEL, alone, alone))
    assert (report.queries, report.left_out.without_positive, report.left_out.without_label) == (2, 1, 4)


def test_nothing_to_find_at_all_is_an_error() -> None:
    alone = embedded(("shoe/1", 1), ("hat/1", 0))
    with pytest.raises(GalleryError, match="none of the 2 queries has another picture of its product in the gallery"):
        summarised(Evaluated(MODEL, alone, alone))


def turned(pictures: EmbeddedPictures, vectors: NDArray[np.float32]) -> EmbeddedPictures:
    return replace(pictures, vectors=vectors)


def test_two_models_are_compared_query_by_query() -> None:
    """The second model puts every gallery picture at its label's own place: all three queries are right."""
    places = {"hat": (1.0, 0.0), "shoe": (0.0, 1.0), "bag": (-1.0, 0.0)}

    def placed(pictures: EmbeddedPictures) -> EmbeddedPictures:
        labels = [pictures.pictures.label(row) for row in range(len(pictures.vectors))]
        return turned(pictures, np.array([places[label] for label in labels], np.float32))

    second = Evaluated(ModelInfo("n", "f", 2), placed(QUERIES), placed(GALLERY))
    comparison = compared(Evaluated(MODEL, QUERIES, GALLERY), second).comparison
    assert comparison is not None
    assert comparison.figures["recall_at_1"].value == 1
    assert comparison.differences["recall_at_1"].value == pytest.approx(2 / 3)
    assert (comparison.only_first, comparison.only_second, comparison.p_value) == (0, 2, pytest.approx(0.5))


def test_a_model_compared_with_itself_differs_by_nothing() -> None:
    one = Evaluated(MODEL, QUERIES, GALLERY)
    comparison = compared(one, one).comparison
    assert comparison is not None
    assert all(figure == (0, 0, 0) for figure in comparison.differences.values())
    assert comparison.p_value == 1


def test_what_either_model_could_not_use_is_named_once() -> None:
    lost, gone = Skipped("a", "cut"), Skipped("b", "vanished")
    one, other = (
        Evaluated(MODEL, replace(QUERIES, pictures=replace(QUERIES.pictures, skipped=skipped)), GALLERY)
        for skipped in ([lost], [lost, gone])
    )
    assert compared(one, other).skipped == [lost, gone]


def test_a_side_that_is_reduced_stays_the_same_object_where_it_was() -> None:
    alone = embedded(("shoe/1", 1), ("shoe/2", 0.9), ("hat/1", 0))
    reduced = Evaluated(MODEL, alone, alone).only({"shoe/1", "shoe/2"}, {"shoe/1", "shoe/2"})
    assert reduced.gallery is reduced.queries
    assert reduced.queries.keys == ["shoe/1", "shoe/2"]
