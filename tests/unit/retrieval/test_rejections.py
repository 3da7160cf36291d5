"""Pictures taken for training pictures wrongly are read, counted within what is trained on, and laid out."""

import json
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import GalleryError, ManifestError
from retrieval.records import Box
from retrieval.training.rejections import NO_REJECTIONS, Rejections, read_rejections


def written(folder: Path, *rows: dict[str, object]) -> str:
    path = folder / "rejections.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_pairs_are_read_and_each_picture_is_there_once(tmp_path: Path) -> None:
    source = written(
        tmp_path,
        {"key": "b", "path": "/q.jpg"},
        {"key": "a", "path": "/q.jpg"},
        {"key": "b", "path": "/q.jpg", "box": [1, 2, 3, 4]},
        {"key": "gone", "path": "/r.jpg"},
    )
    found = read_rejections(source, ["a", "b"])
    assert [(one.path, one.box) for one in found.records] == [("/q.jpg", None), ("/q.jpg", Box(1, 2, 3, 4))]
    assert list(zip(found.rows.tolist(), found.rejected.tolist(), strict=True)) == [(1, 0), (0, 0), (1, 1)]


def test_a_line_without_a_picture_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="line 1 lacks key or path"):
        read_rejections(written(tmp_path, {"key": "a"}), ["a"])
    with pytest.raises(GalleryError, match="nowhere"):
        read_rejections(str(tmp_path / "nowhere.jsonl"), ["a"])


def test_pairs_within_some_rows_are_counted_within_these_and_bring_no_other_pictures(tmp_path: Path) -> None:
    rows = [{"key": key, "path": f"/{name}.jpg"} for key, name in (("a", "q"), ("b", "r"), ("c", "s"), ("c", "q"))]
    found = read_rejections(written(tmp_path, *rows), ["a", "b", "c"]).within(np.array([2, 0]))
    assert [one.path for one in found.records] == ["/q.jpg", "/s.jpg"]
    np.testing.assert_array_equal(found.table(2), [[1, 0], [0, -1]])


def test_nothing_rejected_is_an_empty_table(tmp_path: Path) -> None:
    assert NO_REJECTIONS.within(np.arange(3)).table(3).shape == (3, 0)
    of_strangers = read_rejections(written(tmp_path, {"key": "gone", "path": "/q.jpg"}), ["a"])
    assert of_strangers.subset([]).within(np.arange(1)).table(1).shape == (1, 0)


def test_a_picture_that_cannot_be_used_takes_its_pairs_along() -> None:
    records = [object(), object()]
    found = Rejections(records, np.array([0, 1, 1]), np.array([0, 0, 1])).subset([False, True])  # type: ignore[arg-type]
    assert found.records == records[1:]
    assert (found.rows.tolist(), found.rejected.tolist()) == ([1], [0])
