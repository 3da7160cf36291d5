import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import common
from common import (
    bench_data,
    grocery_iconic,
    grocery_split,
    packed_bits,
    peak_memory_bytes,
    record,
    run_measured,
    unpacked_bits,
)
from photos import render_photos

MEGABYTE = 1_000_000


@pytest.fixture
def grocery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The smallest folder that looks like the Grocery Store Dataset."""
    folder = tmp_path / "grocery"
    folder.mkdir()
    (folder / "classes.csv").write_text(
        "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic Image Path (str)\n"
        "Golden-Delicious,7,Apple,3,/iconic/Golden-Delicious.jpg\n"
    )
    (folder / "test.txt").write_text("test/Apple/1.jpg, 7, 3\n")
    monkeypatch.setenv("RETRIEVE_BENCH_DATA", str(tmp_path))
    return folder


def keep(
    folder: Path, *, model: str = "lite0", protocol: str = "shelf", recall: float = 0.5
) -> list[dict[str, object]]:
    path = record("b", dataset="d", protocol=protocol, model=model, values={"recall": recall}, results=folder)
    records: list[dict[str, object]] = json.loads(path.read_text())
    return records


def test_without_a_data_folder_one_line_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETRIEVE_BENCH_DATA", raising=False)
    with pytest.raises(SystemExit, match=r"^RETRIEVE_BENCH_DATA is not set: .*marcusklasson/GroceryStoreDataset\)$"):
        bench_data()


def test_a_split_gives_paths_and_both_labels(grocery: Path) -> None:
    assert grocery_split("test") == [(grocery / "test/Apple/1.jpg", 7, 3)]


def test_the_iconic_pictures_lie_below_the_data_folder(grocery: Path) -> None:
    assert grocery_iconic() == [(grocery / "iconic/Golden-Delicious.jpg", 7, 3)]


@pytest.mark.parametrize("count", [1, 8, 2485])
def test_answers_come_back_as_they_were_kept(count: int) -> None:
    answers = np.random.default_rng(0).random(count) < 0.5
    np.testing.assert_array_equal(unpacked_bits(packed_bits(answers), count), answers)


def test_a_second_model_is_kept_beside_the_first(tmp_path: Path) -> None:
    keep(tmp_path, model="lite0")
    assert [one["model"] for one in keep(tmp_path, model="lite2")] == ["lite0", "lite2"]


def test_a_figure_measured_again_replaces_the_old_one(tmp_path: Path) -> None:
    keep(tmp_path, recall=0.5)
    assert [one["values"] for one in keep(tmp_path, recall=0.6)] == [{"recall": 0.6}]


def test_a_record_names_no_path_of_this_machine(tmp_path: Path, grocery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = str(common.REPOSITORY / "benchmarks" / "bench_x.py")
    monkeypatch.setattr(sys, "argv", [script, str(grocery), f"--out={tmp_path.parent}/elsewhere", "-k", "5"])
    [kept] = keep(tmp_path / "results")
    assert kept["command"] == 'python benchmarks/bench_x.py "$RETRIEVE_BENCH_DATA/grocery" --out=elsewhere -k 5'


def test_a_child_is_measured_without_the_memory_of_its_parent() -> None:
    held = np.ones(25 * MEGABYTE)  # 200 MB
    measured = run_measured([sys.executable, "-S", "-c", f"b'x' * {50 * MEGABYTE}"])
    assert 50 * MEGABYTE < measured.peak_bytes < 150 * MEGABYTE < held.nbytes < peak_memory_bytes()


def test_processor_time_is_the_childs() -> None:
    measured = run_measured([sys.executable, "-S", "-c", "sum(range(10**6))"])
    assert measured.cpu_seconds > 0


@pytest.mark.parametrize("command", [["no-such-program"], [sys.executable, "-S", "-c", "raise SystemExit(3)"]])
def test_a_child_that_fails_is_no_measurement(command: list[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run_measured(command)


def test_rendered_photos_have_the_size_asked_for_and_all_differ(tmp_path: Path) -> None:
    paths = render_photos(tmp_path, count=9, megapixels=0.1)
    with Image.open(paths[0]) as first:
        assert first.width * first.height == pytest.approx(0.1 * MEGABYTE, rel=0.01)
    assert len({Image.open(path).convert("RGB").tobytes() for path in paths}) == 9


def test_the_same_seed_renders_the_same_photos(tmp_path: Path) -> None:
    one, same, other = (render_photos(tmp_path / str(i), 2, 0.1, seed) for i, seed in enumerate((5, 5, 6)))
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in same] != [p.read_bytes() for p in other]


def test_rendered_photos_are_as_heavy_as_a_phones(tmp_path: Path) -> None:
    [path] = render_photos(tmp_path, count=1, megapixels=2)
    assert 0.5 * MEGABYTE < path.stat().st_size < 0.95 * MEGABYTE


def test_fewer_photos_leave_no_old_ones_behind(tmp_path: Path) -> None:
    render_photos(tmp_path, count=3, megapixels=0.1)
    render_photos(tmp_path, count=2, megapixels=0.1)
    assert [path.name for path in sorted(tmp_path.glob("*.jpg"))] == ["photo-00000.jpg", "photo-00001.jpg"]
