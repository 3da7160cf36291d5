"""A training's report and curves: what was measured is drawn, in one file, whatever became of the pictures."""

import base64
import functools
import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.axes
import numpy as np
import pytest
from PIL import Image

import pictures
from reading_html import parsed
from retrieval.errors import RetrievalError
from retrieval.records import Box
from retrieval.report import sheet
from retrieval.report.curves import best_epoch, curves_png, draw_curves, panel_pngs, save_curves
from retrieval.report.reliability import draw_reliability, reliability_png
from retrieval.report.training import (
    MOST_SUSPECTS,
    Labelled,
    TrainingContent,
    save_augmented_sheet,
    save_training_report,
    training_page,
)
from retrieval.results import Failure, Figure, Sighting

EMPTY = TrainingContent("shoes")


def epoch(number: int, phase: str = "validation", **changes: Any) -> dict[str, Any]:
    measured = phase == "validation"
    return {
        "phase": phase,
        "epoch": number,
        "loss": 0.5 / number,
        "active": 0.25,
        "images_per_second": 30.0,
        "rate_factor": 1.0,
        "recall_at_1": 0.5 + 0.01 * number if measured else None,
        "map_at_r": 0.4 if measured else None,
        "variance": 0.75,
        "random_distance": 1.2,
        "is_best": measured,
        "seconds": 12.0,
        "notes": [],
    } | changes


HISTORY = [epoch(1), epoch(2), epoch(3, is_best=False), epoch(1, "refit"), epoch(2, "refit")]


def drawn(history: list[dict[str, Any]]) -> dict[str, matplotlib.axes.Axes]:
    """The panels by title."""
    return {axes.get_title("left"): axes for axes in draw_curves(history).axes}


def lines(axes: matplotlib.axes.Axes) -> dict[str, tuple[list[float], list[float]]]:
    """Epochs and values by label."""
    return {
        str(line.get_label()): ([*map(float, line.get_xdata())], [*map(float, line.get_ydata())])  # type: ignore[arg-type]
        for line in axes.lines
        if not str(line.get_label()).startswith("_")
    }


def saved(folder: Path, name: str = "a.jpg") -> str:
    (folder / name).write_bytes(pictures.jpeg())
    return str(folder / name)


def failure(path: str, name: str = "shoe") -> Failure:
    hit, positive = (Sighting(name, path, name, None, rank, 0.5) for rank in (1, 7))
    return Failure(name, path, name, None, hit, positive)


@functools.cache
def diagram() -> bytes:
    return reliability_png(draw_reliability([0.3], [0.3], [5], expected_calibration_error=0.0))


def filled(path: str) -> TrainingContent:
    return TrainingContent(
        "shoes",
        facts={"trained on": "80 pictures"},
        settings={"epochs": 3, "augmentation": {"flip": 0.5}},
        history=HISTORY,
        before={"recall_at_1": 0.25},
        after={"recall_at_1": Figure(0.625, 0.5, 0.75)},
        measured="on 20 pictures never trained on",
        augmented=[(path, [pictures.photo(32, 32, seed) for seed in range(3)])],
        failures=[failure(path)],
        suspects=[(Labelled(path, "shoe"), Labelled(path, "boot"), 0.9912)],
        reliability_png=diagram(),
        notes=["stopped by hand"],
    )


def test_curves_show_every_epoch_of_both_phases() -> None:
    loss = lines(drawn(HISTORY)["Loss"])
    assert loss == {"validation": ([1, 2, 3], [0.5, 0.25, 0.5 / 3]), "refit": ([1, 2], [0.5, 0.25])}


def test_curves_leave_out_what_was_not_measured() -> None:
    validation = lines(drawn(HISTORY)["Validation"])
    assert validation == {"Recall@1": ([1, 2, 3], [0.51, 0.52, 0.53]), "MAP@R": ([1, 2, 3], [0.4] * 3)}
    assert "Validation" not in drawn(HISTORY[3:])


def test_the_phases_differ_in_colour_and_in_dashes() -> None:
    loss = {line.get_label(): line for line in drawn(HISTORY)["Loss"].lines}
    assert loss["validation"].get_linestyle() != loss["refit"].get_linestyle()
    assert loss["validation"].get_color() != loss["refit"].get_color()


def test_the_best_epoch_is_marked_in_every_panel() -> None:
    panels = drawn(HISTORY)
    assert {axes.get_xlabel() for axes in panels.values()} == {"epoch, 2 the best"}
    ringed = [line for line in panels["Validation"].lines if line.get_markerfacecolor() == "none"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in ringed] == [(2, 0.52), (2, 0.4)]  # type: ignore[index]


def test_the_best_epoch_is_the_last_that_was_the_best_so_far() -> None:
    assert best_epoch(HISTORY) is HISTORY[1]


def test_without_validation_there_is_no_best_epoch() -> None:
    repeated = [epoch(1, "refit", is_best=True)]
    assert best_epoch(repeated) is None
    assert drawn(repeated)["Loss"].get_xlabel() == "epoch"


def test_curves_of_a_single_epoch_count_it_with_a_whole_number() -> None:
    axes = drawn([epoch(1)])["Loss"]
    assert [tick for tick in axes.get_xticks() if 0.5 <= tick <= 1.5] == [1]


def test_a_loss_that_is_no_number_leaves_a_gap() -> None:
    _, values = lines(drawn([epoch(1), epoch(2, loss=math.nan), epoch(3)])["Loss"])["validation"]
    assert math.isnan(values[1])


def test_curves_without_an_epoch_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one epoch"):
        curves_png([])


def test_an_epoch_of_an_unknown_phase_is_refused() -> None:
    with pytest.raises(ValueError, match='phase "warm up"; it must be one of validation, refit'):
        panel_pngs([epoch(1, "warm up")])


def test_curves_are_written_as_a_png_that_opens(tmp_path: Path) -> None:
    save_curves(HISTORY, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as written:
        assert written.format == "PNG"
        assert len(np.unique(np.asarray(written.convert("L")))) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_curves_that_cannot_be_written_keep_those_that_were_there(tmp_path: Path) -> None:
    (tmp_path / "curves.png").write_bytes(b"former")
    with pytest.raises(ValueError, match="at least one epoch"):
        save_curves([], tmp_path / "curves.png")
    with pytest.raises(RetrievalError, match=r"cannot write the curves .*gone/curves\.png: No such file"):
        save_curves([epoch(1)], tmp_path / "gone" / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == b"former"


def test_a_page_with_everything_is_well_formed_and_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = training_page(filled(saved(tmp_path)))
    tags = parsed(page)
    # 6 panels, 1 + 3 augmented, 3 of a failure, 2 of a suspect, 1 diagram
    assert len(tags.sources) == 16
    assert all(re.match(r"data:image/(png|jpeg);base64,", source) for source in tags.sources)
    assert not re.search(r"https?://|url\(|<script|<link|@import", page)


def test_pictures_in_the_page_open(tmp_path: Path) -> None:
    for source in parsed(training_page(filled(saved(tmp_path)))).sources:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as shown:
            shown.load()


def test_of_a_suspect_only_its_box_is_shown(tmp_path: Path) -> None:
    halves = np.zeros((40, 80, 3), np.uint8)
    halves[:, :40, 0] = 255  # red at the left
    Image.fromarray(halves).save(tmp_path / "halves.png")
    path = str(tmp_path / "halves.png")
    suspect = (Labelled(path, "red", Box(0, 0, 40, 40)), Labelled(path, "black", Box(40, 0, 40, 40)), 0.99)

    shown = parsed(training_page(replace(EMPTY, suspects=[suspect]))).sources

    colours = []
    for source in shown:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
            assert picture.size[0] == picture.size[1]
            colours.append(np.asarray(picture).reshape(-1, 3).mean(axis=0).round())
    assert colours[0] == pytest.approx([254, 0, 0], abs=3)
    assert colours[1] == pytest.approx([0, 0, 0], abs=3)


@pytest.mark.parametrize(
    ("name", "nothing", "heading"),
    [
        ("notes", (), "Worth knowing"),
        ("facts", {}, "Pictures, split and time"),
        ("history", (), "Epoch by epoch"),
        ("augmented", (), "What the network sees"),
        ("failures", (), "Hardest failures"),
        ("suspects", (), "Probable label errors"),
        ("reliability_png", None, "Are the probabilities right?"),
        ("settings", {}, "Settings"),
    ],
)
def test_a_section_with_nothing_to_show_is_left_out(tmp_path: Path, name: str, nothing: Any, heading: str) -> None:
    whole = filled(saved(tmp_path))
    if name != "history":
        whole = replace(whole, history=())  # curves take their time
    assert heading in parsed(training_page(whole)).texts
    assert heading not in parsed(training_page(replace(whole, **{name: nothing}))).texts


def test_an_empty_report_is_its_title_alone() -> None:
    assert set(parsed(training_page(EMPTY)).texts) == {"Training of shoes", "shoes"}


def test_figures_before_and_after_and_how_they_were_measured_are_shown() -> None:
    content = replace(EMPTY, before={"recall_at_1": 0.25}, after={"recall_at_1": 0.625}, measured="on 20 pictures")
    texts = parsed(training_page(content)).texts
    # 0.625 - 0.25 = +0.375
    assert {"Recall@1", "0.625", "before training 0.250, +0.375", "on 20 pictures"} <= set(texts)


def test_the_bar_of_a_figure_that_fell_is_marked_as_lost() -> None:
    page = training_page(replace(EMPTY, before={"map_at_r": 0.5}, after={"map_at_r": 0.25}))
    assert '<i class="lost" style="left:25.00%;width:25.00%">' in page
    assert "before training 0.500, -0.250" in page


def test_an_interval_is_shown_where_there_is_one() -> None:
    page = training_page(replace(EMPTY, after={"recall_at_1": Figure(0.625, 0.5, 0.75)}))
    assert "best epoch; 95%: 0.500 to 0.750" in page


def test_a_figure_that_was_never_beaten_stands_as_that_of_the_start() -> None:
    texts = parsed(training_page(replace(EMPTY, before={"recall_at_1": 0.25}))).texts
    assert {"0.250", "before training"} <= set(texts)


def test_the_course_of_the_run_is_told_in_a_line() -> None:
    texts = parsed(training_page(replace(EMPTY, history=HISTORY))).texts
    assert "3 epochs, the best was number 2; trained afresh on everything for 2" in texts


def test_notes_of_epochs_say_which_epoch() -> None:
    history = [epoch(1), epoch(2, notes=["softer mining"])]
    assert "Validation epoch 2: softer mining" in training_page(replace(EMPTY, history=history))


def test_epochs_stand_in_a_table_with_the_best_named() -> None:
    texts = parsed(training_page(replace(EMPTY, history=HISTORY))).texts
    assert [text for text in texts if text.endswith("best")] == ["validation 2, best"]


def test_nested_settings_are_named_by_their_way() -> None:
    settings = {"dim": None, "refit": True, "rate": 4e-4, "window": [0, 64], "augmentation": {"flip": 0.5}}
    texts = parsed(training_page(replace(EMPTY, settings=settings))).texts
    assert texts[texts.index("dim") :] == [
        *("dim", "none", "refit", "yes", "rate", "0.0004", "window", "0, 64", "augmentation.flip", "0.5")
    ]


def test_a_picture_that_is_gone_is_named_with_the_reason(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.jpg")
    content = replace(
        EMPTY,
        augmented=[(gone, [])],
        failures=[failure(gone)],
        suspects=[(Labelled(gone, "a"), Labelled(gone, "b"), 1.0)],
    )
    page = training_page(content)
    assert parsed(page).sources == []
    assert page.count('class="gone"') == 6  # 1 + 3 + 2
    assert "gone.jpg: no such file" in page


def test_names_are_shown_as_they_are_and_never_become_markup(tmp_path: Path) -> None:
    odd = "<b>\"a\" & 'b'</b>"
    content = TrainingContent(
        odd,
        facts={odd: odd},
        settings={odd: odd},
        history=[epoch(1, notes=[odd])],
        before={"recall_at_1": 0.5},
        measured=odd,
        augmented=[(odd, [])],
        failures=[failure(str(tmp_path), odd)],
        suspects=[(Labelled(odd, odd), Labelled(odd, odd), 1.0)],
        notes=[odd],
    )
    page = training_page(content)
    parsed(page)
    assert odd not in page
    assert "<b>&quot;" not in page


def test_more_suspects_than_are_shown_are_counted(tmp_path: Path) -> None:
    page = training_page(
        replace(EMPTY, suspects=[(Labelled("gone.jpg", "a"), Labelled("gone.jpg", "b"), 0.99)] * (MOST_SUSPECTS + 5))
    )
    assert f"The first {MOST_SUSPECTS} of {MOST_SUSPECTS + 5}." in page
    assert page.count('class="pair"') == MOST_SUSPECTS


def test_a_report_is_written_with_names_that_are_not_utf_8(tmp_path: Path) -> None:
    save_training_report(tmp_path / "r.html", replace(EMPTY, failures=[failure("/gone/\udcff.jpg", "\udcff")]))
    assert "\\udcff" in (tmp_path / "r.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(RetrievalError, match=r"cannot write the report .*taken\.html: Is a directory; choose another"):
        save_training_report(tmp_path / "taken.html", EMPTY)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.html"]


def test_the_sheet_shows_what_the_network_sees_beside_the_original(tmp_path: Path) -> None:
    original = tmp_path / "red.png"
    Image.new("RGB", (40, 40), (200, 30, 30)).save(original)
    seen = np.full((24, 24, 3), (30, 30, 200), np.uint8)
    save_augmented_sheet([(str(original), [seen, seen])], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as written:
        pixels = np.asarray(written.convert("RGB"))
    red, blue = (np.flatnonzero((pixels == colour).all(-1).any(0)) for colour in ((200, 30, 30), (30, 30, 200)))
    assert red.max() < blue.min()
    assert len(blue) == 2 * (sheet.TILE_PX - 2 * sheet.INSET_PX)


def test_the_sheet_keeps_what_the_network_saw_of_a_picture_that_is_gone(tmp_path: Path) -> None:
    seen = np.full((24, 24, 3), (30, 30, 200), np.uint8)
    save_augmented_sheet([(str(tmp_path / "gone.png"), [seen])], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as written:
        pixels = np.asarray(written.convert("RGB"))
    assert (pixels == (30, 30, 200)).all(-1).any()
    assert (pixels == tuple(bytes.fromhex(sheet.BROKEN[1:]))).all(-1).any()


def test_a_sheet_of_no_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match="at least one"):
        save_augmented_sheet([], tmp_path / "sheet.png")
