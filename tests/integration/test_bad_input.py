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
from commands import assert_one_line, retrieve, retrieve_unprivileged
from indexer.integrity import verify
from retrieval.engine import SearchEngine

MODEL = "efficientnet_lite0"
SAME_PICTURE = 0.999  # bfloat16, JPEG's and the palette's rounding
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
    "caf\\udce9.png": "name is not UTF-8; rename it",
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
        stored = pictures.stored_turned(orientation, upright=photo, quality=100)  # at 95 its grain turns with it
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
    assert f"skipped {key}: {REASONS[key]}" in indexed.done.stderr.splitlines()


def test_no_usable_picture_is_skipped(indexed: Indexed) -> None:
    assert {skip["key"] for skip in indexed.report["skipped"]} == set(REASONS)


def test_bad_pictures_remove_nothing_that_was_indexed(indexed: Indexed) -> None:
    assert (indexed.report["removed"], indexed.report["updated"]) == (0, 0)


def test_what_lies_in_a_folder_that_cannot_be_listed_has_not_vanished(engine: SearchEngine, demo_gallery: Path) -> None:
    assert engine.search(demo_gallery / "camera/noto.png", k=1).hits[0].key == "locked/hidden.png"


def test_an_indexed_picture_that_cannot_be_read_keeps_its_vector(
    indexed: Indexed, engine: SearchEngine, demo_gallery: Path
) -> None:
    assert indexed.report["stale"] == ["unreadable.png"]
    assert engine.search(demo_gallery / "car/noto.png", k=1).hits[0].key == "unreadable.png"


def test_a_link_around_to_the_gallery_itself_adds_nothing(indexed: Indexed) -> None:
    assert indexed.report["added"] == 0


@pytest.fixture(scope="module")
def allowed(indexed: Indexed, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The next run, over a copy of the index, with the options that the reasons name."""
    index = shutil.copytree(indexed.index, tmp_path_factory.mktemp("allowed") / "index")
    return retrieve_unprivileged(
        "index", indexed.gallery, "--index", index, "--allow-truncated", "--max-megapixels", "3", "--json"
    )


@pytest.mark.parametrize("key", ["truncated.jpg", "large.png"])
def test_what_was_refused_before_is_taken_with_the_option_that_was_named(
    allowed: subprocess.CompletedProcess[str], key: str
) -> None:
    report = json.loads(allowed.stdout)
    assert report["added"] == 2
    assert key not in {skip["key"] for skip in report["skipped"]}


def test_what_decodes_of_a_truncated_picture_is_indexed_and_said_so(
    allowed: subprocess.CompletedProcess[str],
) -> None:
    assert "note truncated.jpg: truncated JPEG: only what decodes is used" in allowed.stderr.splitlines()


def test_what_no_option_can_mend_is_known_and_not_named_again(allowed: subprocess.CompletedProcess[str]) -> None:
    known = {skip["key"] for skip in json.loads(allowed.stdout)["skipped"] if skip["known"]}
    assert known == {"empty.jpg", "text.jpg", "caf\\udce9.png"}
    assert "skipped empty.jpg" not in allowed.stderr


# What is unusual and can be used


@pytest.mark.parametrize(
    ("odd", "plain"),
    [
        ("cmyk.jpg", "cmyk.plain.png"),
        ("sixteen bits.png", "sixteen bits.plain.png"),
        ("palette.png", "palette.plain.png"),
        ("alpha.png", "alpha.plain.png"),
        ("moving.gif", "moving.plain.gif.png"),
        ("moving.webp", "moving.plain.webp.png"),
        *((f"orientation {number}.jpg", "orientation 1.jpg") for number in range(2, 9)),
    ],
)
def test_an_unusual_picture_is_found_as_what_it_shows(
    indexed: Indexed, engine: SearchEngine, odd: str, plain: str
) -> None:
    assert score(engine, indexed.gallery / plain, odd) > SAME_PICTURE


@pytest.mark.parametrize("key", ["dot.png", "line.png"])
def test_a_picture_of_one_pixels_width_is_found_as_itself(indexed: Indexed, engine: SearchEngine, key: str) -> None:
    assert score(engine, indexed.gallery / key, key) > SAME_PICTURE


@pytest.mark.parametrize("key", ["two\nlines.png", "björk 林 🍎.png", "folder.jpg/inside.png"])
def test_any_utf8_name_is_a_key_of_its_own_for_the_same_picture(
    indexed: Indexed, engine: SearchEngine, key: str
) -> None:
    same = {hit.key: hit.path for hit in engine.search(indexed.gallery / "alpha.png", k=100, min_score=0.999).hits}
    assert same[key] == indexed.gallery / key


# Galleries and manifests that cannot be used


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Path:
    """A small index with a gallery beside it; what is refused must leave both as they are."""
    folder = tmp_path_factory.mktemp("kept")
    shutil.copytree(demo_gallery / "apple", folder / "gallery")
    with SearchEngine.create(folder / "index", model=MODEL) as engine:
        engine.sync(folder / "gallery")
    return folder


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("path,key\nnoto.png,one\nfluent.webp,one\n", 'key "one" is also that of line 2; give every row its own key'),
        ("file,key\nnoto.png,one\n", "has no column `path` (it has file, key)"),
        ('path,box\nnoto.png,"1,2,3"\n', "it must be x,y,width,height in pixels"),
        ("", "shop.csv"),
    ],
    ids=["duplicate key", "wrong column", "bad box", "empty"],
)
def test_a_wrong_manifest_is_refused_in_one_line_and_changes_nothing(
    kept: Path, tmp_path: Path, manifest: str, said: str
) -> None:
    (tmp_path / "shop.csv").write_text(manifest)
    refused = retrieve("index", tmp_path / "shop.csv", "--index", kept / "index")
    assert refused.returncode == 1
    assert_one_line(refused.stderr)
    assert said in refused.stderr
    assert verify(kept / "index").images == 2


def test_a_manifests_missing_file_and_box_beside_the_picture_are_skipped_and_the_rest_is_indexed(
    kept: Path, tmp_path: Path
) -> None:
    index = shutil.copytree(kept / "index", tmp_path / "index")
    (tmp_path / "shop.csv").write_text(
        f"path,key,box\n{kept}/gallery/noto.png,good,\nmissing.png,missing,\n"
        f'{kept}/gallery/noto.png,beside,"9000,0,10,10"\n'
    )
    done = retrieve("index", tmp_path / "shop.csv", "--index", index, "--json")
    assert done.returncode == 3
    report = json.loads(done.stdout)
    reasons = {skip["key"]: skip["reason"] for skip in report["skipped"]}
    assert (report["added"], set(reasons)) == (1, {"missing", "beside"})
    assert reasons["missing"] == "no such file"
    assert "shows nothing of the" in reasons["beside"]


@pytest.mark.parametrize("name", ["galery", "empty", "index"], ids=["mistyped", "empty", "the index itself"])
def test_a_gallery_that_is_none_is_refused_in_one_line_and_changes_nothing(kept: Path, name: str) -> None:
    (kept / "empty").mkdir(exist_ok=True)
    refused = retrieve("index", kept / name, "--index", kept / "index")
    assert refused.returncode == 1
    assert_one_line(refused.stderr)
    assert str(kept / name) in refused.stderr
    assert verify(kept / "index").images == 2


def test_an_emptied_gallery_is_refused_in_one_line_and_changes_nothing(kept: Path, tmp_path: Path) -> None:
    index = shutil.copytree(kept / "index", tmp_path / "index")
    (kept / "gallery").rename(kept / "moved away")
    (kept / "gallery").mkdir()
    refused = retrieve("index", kept / "gallery", "--index", index)
    (kept / "gallery").rmdir()
    (kept / "moved away").rename(kept / "gallery")
    assert refused.returncode == 1
    assert_one_line(refused.stderr)
    assert "2 of the 2 pictures" in refused.stderr
    assert verify(index).images == 2


@pytest.mark.parametrize("where", ["index", "gallery"], ids=["elsewhere", "in the gallery itself"])
def test_an_empty_folder_makes_no_index(tmp_path: Path, where: str) -> None:
    (tmp_path / "gallery").mkdir()
    refused = retrieve("index", tmp_path / "gallery", "--index", tmp_path / where)
    assert refused.returncode == 1
    assert "holds no pictures" in refused.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["gallery"]


def test_a_folder_of_pictures_is_not_made_an_index(tmp_path: Path, demo_gallery: Path) -> None:
    shutil.copytree(demo_gallery / "apple", tmp_path / "gallery")
    refused = retrieve("index", tmp_path / "gallery", "--index", tmp_path / "gallery")
    assert refused.returncode == 1
    assert_one_line(refused.stderr)
    assert "an index needs a folder of its own" in refused.stderr
    assert {path.name for path in (tmp_path / "gallery").iterdir()} == {"noto.png", "fluent.webp"}
