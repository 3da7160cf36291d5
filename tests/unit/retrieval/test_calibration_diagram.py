"""The reliability diagram: what is drawn is what was measured."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from retrieval.report.reliability import draw_reliability, reliability_png, save_reliability

BINS = ([0.1, 0.5, 0.9], [0.0, 0.6, 1.0], [700, 20, 80])


def test_points_and_counts_are_those_of_the_bins() -> None:
    upper, lower = draw_reliability(*BINS, expected_calibration_error=0.1).axes
    diagonal, curve = upper.lines
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == BINS[:2]
    assert [bar.get_height() for bar in lower.patches] == BINS[2]  # type: ignore[attr-defined]


def test_the_error_and_the_number_of_pairs_are_written_into_it() -> None:
    upper, _ = draw_reliability(*BINS, expected_calibration_error=0.0449).axes
    assert upper.texts[0].get_text() == "expected calibration error 0.045\n800 held-out pairs"


def test_it_is_saved_as_a_png(tmp_path: Path) -> None:
    save_reliability(draw_reliability(*BINS, expected_calibration_error=0.1), tmp_path / "reliability.png")
    with PIL.Image.open(tmp_path / "reliability.png") as drawn:
        assert drawn.size == (720, 806)
        assert len(np.unique(np.asarray(drawn.convert("L")))) > 10


def test_a_single_bin_can_be_drawn() -> None:
    assert reliability_png(draw_reliability([0.3], [0.3], [5], expected_calibration_error=0.0)).startswith(b"\x89PNG")


def test_bins_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="1 predicted, 2 observed and 1 counts"):
        draw_reliability([0.3], [0.3, 0.4], [5], expected_calibration_error=0.0)
