"""A gallery of everything that goes wrong: what can be used is found, what cannot is named, nothing indexed is lost."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pictures
from commands import assert_one_line, retrieve, retrieve_json, retrieve_unprivileged
from retrieval.engine import SearchEngine

MODEL = "efficientnet_lite0"
CAFE_LATIN_1 = b"caf\xe9.png"
REASONS = {
    "empty.jpg": "empty file",
    "truncated.jpg": "truncated JPEG (pass --allow-truncated to index what decodes)",
    "text.jpg": "not a picture (unknown format)",
    "broken link.png": "broken symlink",
    "loop.png": "symlink loop",
    "unreadable.png": "permission denied",
    "locked/": "permission denied",
    "bomb.png": "400.0 MP, the limit is 2 MP (raise it with --max-megapixels)",
    "large.png": "2.2 MP, the limit is 2 MP (raise it with --max-megapixels)",
    "caf\\xe9.png": "name is not UTF-8; rename it",
}


@dataclass(frozen=True)
class Indexed:
    """The gallery, its index, and how the run went that met the bad pictures."""

    gallery: Path
    index: Path
    done: subprocess.CompletedProcess[str]

    @property
    def report(self) -> Any:
        return json.loads(self.done.stdout)


def write_odd_pictures(gallery: Path, logo: Path) -> None:
    """Pictures that are unusual and can all be used; beside each, the plain picture that it looks like."""
    photo, other = pictures.photo(320, 240), pictures.photo(320, 240, seed=5)
    (gallery / "cmyk.jpg").write_bytes(pictures.jpeg(Image.fromarray(photo).convert("CMYK")))
    (gallery / "cmyk.plain.png").write_bytes(pictures.encoded(photo, "png"))
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    (gallery / "sixteen bits.png").write_bytes(pictures.encoded(Image.fromarray(grey.astype(np.uint16) * 257), "png"))
    (gallery / "sixteen bits.plain.png").write_bytes(pictures.encoded(grey, "png"))
    palette = Image.fromarray(photo).quantize(64)
    (gallery / "palette.png").write_bytes(pictures.encoded(palette, "png"))
    (gallery / "palette.plain.png").write_bytes(pictures.encoded(palette.convert("RGB"), "png"))
    shutil.copy(logo, gallery / "alpha.png")
    pictures.on_white(logo).save(gallery / "alpha.plain.png")
    frames = [Image.fromarray(pixels).quantize(64).convert("RGB") for pixels in (photo, other)]
    for kind in ("gif", "webp"):
        options = {"lossless": True} if kind == "webp" else {}
        moving = pictures.encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        (gallery / f"moving.{kind}").write_bytes(moving)
        (gallery / f"moving.plain.{kind}.png").write_bytes(pictures.encoded(frames[0], "png"))
    for orientation in range(1, 9):
        stored = pictures.stored_turned(orientation, upright=photo)
        (gallery / f"orientation {orientation}.jpg").write_bytes(stored)
    (gallery / "dot.png").write_bytes(pictures.encoded(pictures.photo(1, 1), "png"))
    (gallery / "line.png").write_bytes(pictures.encoded(pictures.photo(1, 5000), "png"))
    (gallery / "folder.jpg").mkdir()
    for name in ("folder.jpg/inside.png", "two\nlines.png", "björk 林 🍎.png"):
        shutil.copy(logo, gallery / name)


def spoil(gallery: Path) -> None:
    """Add the pictures that cannot be used, and lock some that could be before."""
    (gallery / "empty.jpg").touch()
    (gallery / "truncated.jpg").write_bytes(pictures.truncated_jpeg())
    (gallery / "text.jpg").write_text("This is a letter, not a picture.")
    (gallery / "broken link.png").symlink_to("nowhere.png")
    (gallery / "loop.png").symlink_to("loop.png")
    (gallery / "around").symlink_to(".")
    (gallery / "bomb.png").write_bytes(pictures.bomb_png(20_000, 20_000))
    (gallery / "large.png").write_bytes(pictures.bomb_png(1_500, 1_500))
    Path(os.fsdecode(os.fsencode(gallery) + b"/" + CAFE_LATIN_1)).write_bytes(pictures.encoded(pictures.photo(), "png"))
    (gallery / "unreadable.png").chmod(0)
    (gallery / "locked").chmod(0)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Iterator[Indexed]:
    """First the good pictures are indexed, then, as somebody whom permissions bind, the spoilt gallery."""
    folder = tmp_path_factory.mktemp("bad")
    gallery, index = folder / "gallery", folder / "index"
    (gallery / "locked").mkdir(parents=True)
    write_odd_pictures(gallery, demo_gallery / "apple/noto.png")
    shutil.copy(demo_gallery / "car/noto.png", gallery / "unreadable.png")
    shutil.copy(demo_gallery / "camera/noto.png", gallery / "locked/hidden.png")
    with SearchEngine.create(index, model=MODEL) as engine:
        engine.sync(gallery)
    spoil(gallery)
    yield Indexed(
        gallery, index, retrieve_unprivileged("index", gallery, "--index", index, "--max-megapixels", "2", "--json")
    )
    (gallery / "locked").chmod(0o755)  # or pytest cannot clear it away


@pytest.fixture(scope="module")
def engine(indexed: Indexed) -> Iterator[SearchEngine]:
    with SearchEngine.open(indexed.index) as engine:
        yield engine


def score(engine: SearchEngine, query: Path, key: str) -> float:
    return next(hit.score for hit in engine.search(query, k=100).hits if hit.key == key)


# What cannot be used


def test_a_run_that_met_bad_pictures_is_exit_3_with_valid_json(indexed: Indexed) -> None:
    assert indexed.done.returncode == 3, indexed.done.stderr
    assert set(indexed.report) >= {"added", "skipped", "stale"}


@pytest.mark.parametrize("key", REASONS)
def test_each_bad_picture_is_skipped_with_its_reason(indexed: Indexed, key: str) -> None:
    assert {skip["key"]: skip["reason"] for skip in indexed.report["skipped"]}[key] == REASONS[key]


@pytest.mark.parametrize("key", REASONS)
def test_each_bad_picture_has_its_line_on_standard_error(indexed: Indexed, key: str) -> None:
    named = key.replace("\\", "\\\\") if False else key
    assert f"skipped {named}: {REASONS[key]}" in indexed.done.stderr.splitlines()


def test_no_usable_picture_is_skipped(indexed: Indexed) -> None:
    assert {skip["key"] for skip in indexed.report["skipped"]} == set(REASONS)


def test_nothing_that_was_indexed_is_lost(indexed: Indexed) -> None:
    assert (indexed.report["removed"], indexed.report["added"]) == (0, 0)


def test_what_lies_in_a_folder_that_cannot_be_listed_is_still_found(indexed: Indexed, engine: SearchEngine) -> None:
    camera = engine.search(indexed.gallery.parent / "gallery/dot.png", k=100)
    assert "locked/hidden.png" in {hit.key for hit in camera.hits}


def test_an_indexed_picture_that_cannot_be_read_now_is_stale(indexed: Indexed) -> None:
    assert indexed.report["stale"] == []
