"""The report is one file that holds everything, whatever the pictures are called and whether they are still there."""

import re
from pathlib import Path

import pytest

import pictures
from reading_html import parsed
from retrieval.errors import RetrievalError
from retrieval.records import Skipped
from retrieval.report.evaluation import MOST_CLASSES, evaluation_page, save_report
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

MODEL = ModelInfo("efficientnet_lite0", "03aebfbf00", 1280)
FIGURES = dict.fromkeys(METRIC_TITLES, Figure(0.625, 0.5, 0.75))


def made(failures: list[Failure] | None = None, **changes: object) -> EvaluationReport:
    values: dict[str, object] = {
        "queries": 8,
        "gallery": 20,
        "left_out": LeftOut(0, 0, 0),
        "skipped": [],
        "per_class": [ClassScore("shoe", 8, 0.625, 0.5)],
        "precision_at_recall": [1 - at / 200 for at in range(101)],
    }
    return EvaluationReport(MODEL, FIGURES, failures=failures or [], **(values | changes))  # type: ignore[arg-type]


def failure(path: str, key: str = "shoe/1.jpg", label: str = "shoe") -> Failure:
    hit, positive = (Sighting(key, path, label, None, rank, 0.5) for rank in (1, 7))
    return Failure(key, path, label, None, hit, positive)


def test_figures_and_their_intervals_are_shown() -> None:
    page = evaluation_page(made())
    assert page.count("<strong>0.625</strong>") == len(METRIC_TITLES)
    assert page.count("0.500 to 0.750") == len(METRIC_TITLES)
    parsed(page)


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(pictures.jpeg())
    page = evaluation_page(made([failure(str(tmp_path / "a.jpg"))]))
    sources = parsed(page).sources
    assert len(sources) == 3
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.search(r"https?://|url\(|<script|<link", page)


def test_a_picture_that_is_gone_is_named_with_the_reason(tmp_path: Path) -> None:
    page = evaluation_page(made([failure(str(tmp_path / "gone.jpg"))]))
    assert parsed(page).sources == []
    assert page.count('class="gone"') == 3


def test_names_are_shown_as_they_are_and_never_become_markup(tmp_path: Path) -> None:
    odd = "<b>\"a\" & 'b'</b>"
    report = made([failure(str(tmp_path), odd, odd)], per_class=[ClassScore(odd, 1, 0, 0)], skipped=[Skipped(odd, odd)])
    page = evaluation_page(report)
    parsed(page)
    assert odd not in page
    assert "&lt;b&gt;&quot;a&quot; &amp; " in page


def test_a_name_that_is_not_utf_8_can_be_written(tmp_path: Path) -> None:
    save_report(made([failure("/gone/\udcff.jpg", "\udcff.jpg", "\udcff")]), tmp_path / "r.html")
    assert "\\udcff" in (tmp_path / "r.html").read_text()


def test_more_classes_than_are_shown_are_counted() -> None:
    many = [ClassScore(f"product {number}", 1, 0.0, 0.0) for number in range(MOST_CLASSES + 50)]
    page = evaluation_page(made(per_class=many))
    assert f"the worst {MOST_CLASSES} of {MOST_CLASSES + 50}" in page
    assert page.count("<td>product ") == MOST_CLASSES


def test_a_comparison_shows_both_models_and_the_test() -> None:
    second = ModelInfo("efficientnet_lite2", "ff", 8)
    comparison = Comparison(second, FIGURES, dict.fromkeys(METRIC_TITLES, Figure(-0.01, -0.03, 0.01)), 7, 3, 0.34375)
    page = evaluation_page(made(comparison=comparison))
    assert "Compared with efficientnet_lite2" in page
    assert "-0.010 (-0.030 to +0.010)" in page
    assert "p = 0.344" in page


def test_no_failure_is_said_so() -> None:
    assert "The first hit of every query is right." in evaluation_page(made())


def test_what_was_left_out_is_said() -> None:
    page = evaluation_page(made(left_out=LeftOut(5, 1234, 0), skipped=[Skipped("a.jpg", "cut short")]))
    assert "1,234 queries without another picture of their product" in page
    assert "5 pictures without a label" in page
    assert "cut short" in page


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(RetrievalError, match=r"cannot write the report .*taken\.html: Is a directory; choose another"):
        save_report(made(), tmp_path / "taken.html")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.html"]
