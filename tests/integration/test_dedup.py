"""Pictures that are nearly the same are listed, of a gallery or of an index."""

import shutil
from pathlib import Path

import PIL.Image
import pytest

from commands import retrieve, retrieve_json
from retrieval.engine import SearchEngine

MODEL = "efficientnet_lite0"


@pytest.fixture
def doubled(gallery: Path) -> Path:
    """The small gallery, with one picture twice, and another once more in another size."""
    shutil.copy(gallery / "apple/noto.png", gallery / "car/an apple.png")
    picture = PIL.Image.open(gallery / "banana/noto.png").convert("RGBA")
    white = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    white.resize((120, 120)).save(gallery / "banana/other.png")
    return gallery


EXPECTED = [["apple/noto.png", "car/an apple.png"], ["banana/noto.png", "banana/other.png"]]


def test_the_groups_of_an_index(engine: SearchEngine, doubled: Path) -> None:
    engine.sync(doubled)
    groups = engine.duplicates(0.95)
    assert [[one.key for one in group] for group in groups] == EXPECTED
    assert [group[0].score for group in groups] == pytest.approx([1, 1], abs=1e-3)
    assert groups[0][1].score == pytest.approx(1, abs=1e-3)
    assert 0.95 <= groups[1][1].score < 0.9995
    assert groups[0][1].path == doubled / "car/an apple.png"
    said = retrieve_json("dedup", "--score", "0.95", "--index", engine.index_dir)
    assert said == {"score": 0.95, "groups": [[one.to_dict() for one in group] for group in groups]}


def test_a_gallery_is_looked_at_and_left_as_it_is(doubled: Path, tmp_path: Path) -> None:
    (doubled / "broken.jpg").write_bytes(b"no picture")
    before = sorted(tmp_path.rglob("*"))
    listed = retrieve("dedup", doubled, "--score", "0.95", "--model", MODEL, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    first, second = (group.splitlines() for group in listed.stdout.split("\n\n"))
    named = [[line.split("  ", 1)[1] for line in group] for group in (first, second)]
    assert named == [[str(doubled / key) for key in group] for group in EXPECTED]
    assert "skipped broken.jpg" in listed.stderr
    said = retrieve_json("dedup", doubled, "--score", "0.95", "--model", MODEL, cwd=tmp_path)
    assert [one["key"] for one in said["skipped"]] == ["broken.jpg"]
    assert len(said["groups"]) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_all_but_the_first_can_be_handed_on(engine: SearchEngine, doubled: Path) -> None:
    engine.sync(doubled)
    listed = retrieve("dedup", "--others", "-0", "--score", "0.95", "--index", engine.index_dir)
    assert listed.stdout == "".join(f"{doubled / group[1]}\0" for group in EXPECTED)


def test_nothing_alike_is_nothing_listed(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    assert engine.duplicates(0.999) == []
    assert retrieve("dedup", "--score", "0.999", "--index", engine.index_dir).stdout == ""


@pytest.mark.parametrize("arguments", [("--others", "--json"), ("x", "--index", "y"), ("--score", "2")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert retrieve("dedup", *arguments).returncode == 2
