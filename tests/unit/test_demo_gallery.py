import csv
from pathlib import Path

from PIL import Image

MAX_BYTES = 3_000_000


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_manifest_lists_exactly_the_gallery(demo_gallery: Path) -> None:
    data = demo_gallery.parent
    with (data / "gallery.csv").open(newline="") as file:
        listed = [row["path"] for row in csv.DictReader(file)]
    assert listed == [path.relative_to(data).as_posix() for path in pictures(demo_gallery)]


def test_every_thing_has_two_drawings(demo_gallery: Path) -> None:
    assert {len(pictures(thing)) for thing in demo_gallery.iterdir()} == {2}


def test_every_query_shows_a_thing_of_the_gallery(demo_gallery: Path, demo_queries: Path) -> None:
    assert {path.stem for path in pictures(demo_queries)} <= {thing.name for thing in demo_gallery.iterdir()}


def test_no_query_is_in_the_gallery(demo_gallery: Path, demo_queries: Path) -> None:
    shown = {_pixels(path) for path in pictures(demo_gallery)}
    assert not shown & {_pixels(path) for path in pictures(demo_queries)}


def test_the_demo_stays_small(demo_gallery: Path) -> None:
    assert sum(path.stat().st_size for path in pictures(demo_gallery.parent)) < MAX_BYTES


def _pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.convert("RGBA").resize((64, 64)).tobytes()
