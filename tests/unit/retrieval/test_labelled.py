"""A source says which pictures show the same product, or is refused in one line that says what is missing."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import pictures
from retrieval.errors import GalleryError, LabelsMissing, ManifestError
from retrieval.gallery.labelled import LabelledPictures, join, label_of
from retrieval.gallery.sources import read_labelled
from retrieval.records import ImageRecord


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """hats/1.jpg, hats/2.jpg, shoes/red/3.jpg."""
    for name in ("hats/1.jpg", "hats/2.jpg", "shoes/red/3.jpg"):
        put(tmp_path, name)
    return tmp_path


def put(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pictures.jpeg())
    return path


def manifest(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text)
    return path


def read_as_pairs(labelled: LabelledPictures) -> list[tuple[str, str]]:
    return [(record.key, labelled.label(row)) for row, record in enumerate(labelled.records)]


def refusal(source: Path) -> str:
    with pytest.raises(LabelsMissing) as caught:
        read_labelled(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What one record shows


@pytest.mark.parametrize(
    ("key", "product_id", "label", "expected"),
    [
        ("a/b/x.jpg", "7", "shoe", "7"),
        ("a/b/x.jpg", None, "shoe", "shoe"),
        ("a/b/x.jpg", None, None, "a/b"),
        ("a/x.jpg", None, None, "a"),
        ("x.jpg", None, None, None),
    ],
)
def test_a_picture_shows_its_product_else_its_label_else_its_folder(
    key: str, product_id: str | None, label: str | None, expected: str | None
) -> None:
    assert label_of(ImageRecord(key, f"/{key}", 1, 1, product_id, label)) == expected


# Folders


def test_the_class_of_a_picture_is_its_folder(folder: Path) -> None:
    labelled = read_labelled(folder)
    assert read_as_pairs(labelled) == [("hats/1.jpg", "hats"), ("hats/2.jpg", "hats"), ("shoes/red/3.jpg", "shoes/red")]
    assert (labelled.names, labelled.unlabelled, labelled.skipped) == (["hats", "shoes/red"], 0, [])


def test_labels_are_numbers_into_the_sorted_names(folder: Path) -> None:
    labelled = read_labelled(folder)
    assert labelled.labels.dtype == np.int64
    assert labelled.labels.tolist() == [0, 0, 1]


def test_a_picture_outside_the_class_folders_is_named_and_refused(folder: Path) -> None:
    put(folder, "stray.jpg")
    assert refusal(folder) == (
        f"{folder}: 1 of 4 pictures lie in no class folder, the first is stray.jpg; "
        "move them into one, or leave such pictures out with --allow-unlabelled"
    )


def test_pictures_without_a_label_are_left_out_and_counted_where_that_is_allowed(folder: Path) -> None:
    put(folder, "stray.jpg")
    labelled = read_labelled(folder, allow_unlabelled=True)
    assert "stray.jpg" not in [record.key for record in labelled.records]
    assert (len(labelled), labelled.unlabelled) == (3, 1)


@pytest.mark.parametrize("allow_unlabelled", [False, True])
def test_a_folder_without_class_folders_is_refused(tmp_path: Path, allow_unlabelled: bool) -> None:
    put(tmp_path, "1.jpg")
    with pytest.raises(LabelsMissing) as caught:
        read_labelled(tmp_path, allow_unlabelled=allow_unlabelled)
    assert str(caught.value) == (
        f"{tmp_path}: none of its 1 pictures lies in a class folder; "
        "put every class into a folder of its own, or pass a manifest with product_id or label"
    )


def test_an_empty_folder_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="holds no picture that can be used; add pictures, or pass another"):
        read_labelled(tmp_path)


def test_pictures_that_cannot_be_reached_are_reported_not_lost(folder: Path) -> None:
    (folder / "hats" / "gone.jpg").symlink_to("nowhere")
    labelled = read_labelled(folder)
    assert [(one.key, one.reason) for one in labelled.skipped] == [("hats/gone.jpg", "broken symlink")]
    assert len(labelled) == 3


# Manifests


def test_every_format_of_manifest_says_the_same(folder: Path) -> None:
    rows = [{"path": "hats/1.jpg", "label": "hat"}, {"path": "shoes/red/3.jpg", "label": "shoe"}]
    csv = manifest(folder, "path,label\nhats/1.jpg,hat\nshoes/red/3.jpg,shoe\n")
    jsonl, parquet = folder / "list.jsonl", folder / "list.parquet"
    jsonl.write_text("\n".join(map(json.dumps, rows)))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet)
    for source in (csv, jsonl, parquet):
        assert read_as_pairs(read_labelled(source)) == [("hats/1.jpg", "hat"), ("shoes/red/3.jpg", "shoe")]


def test_folders_count_for_nothing_in_a_manifest(folder: Path) -> None:
    assert refusal(manifest(folder, "path\nhats/1.jpg\nhats/2.jpg\n")) == (
        "list.csv: none of its 2 pictures has a product_id or a label; add one of the two columns"
    )


def test_labels_missing_from_half_of_a_manifest_are_counted_and_the_first_is_named(folder: Path) -> None:
    source = manifest(folder, "path,label\nhats/1.jpg,hat\nhats/2.jpg,\nshoes/red/3.jpg,\n")
    assert refusal(source) == (
        "list.csv: 2 of 3 pictures have no label, the first is hats/2.jpg; "
        "fill it in, or leave such pictures out with --allow-unlabelled"
    )


def test_a_label_never_stands_in_for_a_product_id_that_others_have(folder: Path) -> None:
    # Else every shoe without a product_id would be the same product as all other shoes without one.
    source = manifest(folder, "path,product_id,label\nhats/1.jpg,7,hat\nhats/2.jpg,7,hat\nshoes/red/3.jpg,,shoe\n")
    assert "1 of 3 pictures have no product_id, the first is shoes/red/3.jpg" in refusal(source)
    labelled = read_labelled(source, allow_unlabelled=True)
    assert (labelled.names, labelled.unlabelled) == (["7"], 1)


def test_the_label_counts_where_no_row_has_a_product_id(folder: Path) -> None:
    source = manifest(folder, "path,product_id,label\nhats/1.jpg,,hat\nshoes/red/3.jpg,,shoe\n")
    assert read_labelled(source).names == ["hat", "shoe"]


def test_a_missing_file_of_a_manifest_is_set_aside(folder: Path) -> None:
    labelled = read_labelled(manifest(folder, "path,label\nhats/1.jpg,hat\nnone.jpg,hat\n"))
    assert [(one.key, one.reason) for one in labelled.skipped] == [("none.jpg", "no such file")]


def test_a_manifest_of_missing_files_names_the_first(folder: Path) -> None:
    source = manifest(folder, "path,label\nnone.jpg,hat\n")
    with pytest.raises(GalleryError) as caught:
        read_labelled(source)
    assert str(caught.value) == (
        f"{source} holds no picture that can be used; set aside: 1, the first is none.jpg (no such file)"
    )


def test_what_is_wrong_with_a_manifest_is_named_as_when_it_is_indexed(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"list\.csv has no column `path`"):
        read_labelled(manifest(folder, "image,label\nhats/1.jpg,hat\n"))


def test_the_demo_manifest_and_the_demo_folder_agree(demo_gallery: Path) -> None:
    by_manifest, by_folder = read_labelled(demo_gallery.with_suffix(".csv")), read_labelled(demo_gallery)
    assert by_manifest.names == by_folder.names
    assert by_manifest.counts().tolist() == by_folder.counts().tolist() == [2] * 50


# What can be done with them


def test_a_subset_keeps_the_order_asked_for_and_the_numbers_of_the_classes(folder: Path) -> None:
    labelled = read_labelled(folder).subset([2, 0])
    assert read_as_pairs(labelled) == [("shoes/red/3.jpg", "shoes/red"), ("hats/1.jpg", "hats")]
    assert labelled.names == ["hats", "shoes/red"]


def test_classes_without_a_picture_left_count_zero(folder: Path) -> None:
    labelled = read_labelled(folder)
    assert labelled.counts().tolist() == [2, 1]
    assert labelled.subset([2]).counts().tolist() == [0, 1]
    assert labelled.subset([]).counts().tolist() == [0, 0]


def test_joined_sources_share_classes_of_the_same_name(folder: Path, tmp_path: Path) -> None:
    put(folder, "more/gloves/9.jpg")
    put(folder, "more/hats/8.jpg")
    first = read_labelled(manifest(folder, "path,label\nhats/1.jpg,hats\nshoes/red/3.jpg,shoes\n"))
    joined = join(first, read_labelled(folder / "more"))
    assert joined.names == ["gloves", "hats", "shoes"]
    assert read_as_pairs(joined) == [
        ("hats/1.jpg", "hats"),
        ("shoes/red/3.jpg", "shoes"),
        ("gloves/9.jpg", "gloves"),
        ("hats/8.jpg", "hats"),
    ]
