"""What is trained on, what is measured: read, rid of what cannot be used, split the same way again, without a leak."""

import csv
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

import pictures
from retrieval.errors import GalleryError, LabelConflict, LabelsMissing, TrainingError
from retrieval.training.config import TrainConfig
from retrieval.training.dataset import SPLIT_FILE, TrainingSet, open_training_set

CLASSES = 8
VIEWS = 3


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Eight classes of three pictures, no two alike."""
    write_classes(tmp_path / "catalogue", range(CLASSES))
    return tmp_path / "catalogue"


def write_classes(folder: Path, classes: range, views: int = VIEWS) -> None:
    for number in classes:
        (folder / f"c{number}").mkdir(parents=True)
        for view in range(views):
            write_picture(folder / f"c{number}" / f"{view}.png", 100 * number + view)


def write_picture(path: Path, seed: int) -> None:
    path.write_bytes(pictures.encoded(pictures.photo(24, 20, seed), "png"))


def settings(source: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(str(source), str(source.parent / "model"), classes_per_batch=2, pictures_per_class=2)
    return dataclasses.replace(config, threads=1, **changes)


def opened(source: Path, **changes: Any) -> TrainingSet:
    return open_training_set(settings(source, **changes))


def held_out(found: TrainingSet) -> set[str]:
    return {found.pictures.records[row].key for row in found.split.validation_rows}


def trained_on(found: TrainingSet) -> set[str]:
    return {found.pictures.records[row].key for row in found.split.train_rows}


def classes(keys: set[str]) -> set[str]:
    return {key.split("/")[0] for key in keys}


def manifest(path: Path, rows: list[tuple[Path, str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "product_id"), *rows])
    return path


# Sides


def test_held_out_classes_are_not_trained_on(catalogue: Path) -> None:
    found = opened(catalogue)
    assert found.is_measured
    assert len(found.pictures) == CLASSES * VIEWS
    assert classes(held_out(found)) | classes(trained_on(found)) == {f"c{number}" for number in range(CLASSES)}
    assert not classes(held_out(found)) & classes(trained_on(found))


def test_held_out_pictures_are_of_classes_that_are_trained_on(catalogue: Path) -> None:
    found = opened(catalogue, validation="pictures")
    assert found.is_measured
    assert classes(held_out(found)) <= classes(trained_on(found))
    assert not held_out(found) & trained_on(found)


def test_nothing_is_measured_where_nothing_is_held_out(catalogue: Path) -> None:
    found = opened(catalogue, validation="none")
    assert not found.is_measured
    assert len(trained_on(found)) == CLASSES * VIEWS


def test_a_file_is_measured_on_and_never_trained_on(catalogue: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "asked.png", 9999)
    found = opened(catalogue, validation=str(manifest(tmp_path / "asked.csv", [(tmp_path / "asked.png", "c3")])))
    assert len(trained_on(found)) == CLASSES * VIEWS
    (asked,) = found.split.validation_rows
    assert found.pictures.records[asked].path == str(tmp_path / "asked.png")
    assert found.pictures.label(asked) == "c3"
    assert found.split.kind == "file"


def test_everything_is_trained_on_after_the_best_epoch_is_known(catalogue: Path) -> None:
    found = opened(catalogue).everything()
    assert not found.is_measured
    assert len(trained_on(found)) == CLASSES * VIEWS


# The same the next time


def test_a_saved_split_counts_more_than_a_new_one(catalogue: Path) -> None:
    config = settings(catalogue)
    first = open_training_set(dataclasses.replace(config, validation="pictures"))
    config.run_dir.mkdir()
    first.split.save(config.run_dir / SPLIT_FILE, first.pictures)
    assert held_out(open_training_set(config)) == held_out(first)


def test_a_saved_split_of_other_pictures_is_refused(catalogue: Path) -> None:
    config = settings(catalogue)
    found = open_training_set(config)
    config.run_dir.mkdir()
    found.split.save(config.run_dir / SPLIT_FILE, found.pictures)
    (catalogue / "c0" / "0.png").unlink()
    with pytest.raises(TrainingError, match=r"1 are gone \(gone: c0/0.png\)"):
        open_training_set(config)


@pytest.mark.parametrize("validation", ["classes", "pictures"])
def test_what_was_held_out_is_held_out_when_the_catalogue_has_grown(tmp_path: Path, validation: str) -> None:
    write_classes(tmp_path / "catalogue", range(40), views=2)
    before = opened(tmp_path / "catalogue", validation=validation)
    write_classes(tmp_path / "catalogue", range(40, 60), views=2)
    after = opened(tmp_path / "catalogue", validation=validation)
    assert held_out(before) < held_out(after)
    assert trained_on(before) < trained_on(after)


# What cannot be used


def test_a_picture_that_does_not_decode_is_set_aside_with_the_reason(catalogue: Path) -> None:
    (catalogue / "c1" / "1.png").write_bytes(pictures.broken()["truncated.png"])
    found = opened(catalogue)
    assert [skip.key for skip in found.skipped] == ["c1/1.png"]
    assert found.skipped[0].reason
    assert "c1/1.png" not in held_out(found) | trained_on(found)
    assert len(found.pictures) == CLASSES * VIEWS - 1


def test_a_picture_of_the_validation_file_that_does_not_decode_is_set_aside_too(
    catalogue: Path, tmp_path: Path
) -> None:
    write_picture(tmp_path / "good.png", 9999)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    rows = [(tmp_path / name, "c3") for name in ("good.png", "bad.png")]
    found = opened(catalogue, validation=str(manifest(tmp_path / "asked.csv", rows)))
    assert len(found.split.validation_rows) == 1
    assert ["bad.png" in skip.key for skip in found.skipped] == [True]


def test_a_class_with_one_picture_is_trained_on(catalogue: Path) -> None:
    shutil.rmtree(catalogue / "c0")
    write_classes(catalogue, range(1), views=1)
    found = opened(catalogue, validation="pictures")
    assert "c0/0.png" in trained_on(found)


def test_classes_of_one_picture_each_have_nothing_to_learn_from(tmp_path: Path) -> None:
    write_classes(tmp_path / "catalogue", range(CLASSES), views=1)
    with pytest.raises(TrainingError, match=r"every class has one picture to train on.* add a second picture"):
        opened(tmp_path / "catalogue", validation="none")


def test_one_class_has_nothing_to_be_told_from(tmp_path: Path) -> None:
    write_classes(tmp_path / "catalogue", range(1))
    with pytest.raises(TrainingError, match='3 pictures of 1 class \\("c0"\\): training needs at least 2 classes'):
        opened(tmp_path / "catalogue", validation="none")


def test_a_batch_of_more_classes_than_there_are_is_refused_with_what_fits(catalogue: Path) -> None:
    with pytest.raises(TrainingError, match="has 8 classes to train on, a batch wants 9; pass --batch 8 2"):
        opened(catalogue, validation="none", classes_per_batch=9)


def test_held_out_classes_do_not_count_for_a_batch(catalogue: Path) -> None:
    left = CLASSES - len(classes(held_out(opened(catalogue))))
    opened(catalogue, classes_per_batch=left)
    with pytest.raises(TrainingError, match=f"has {left} classes to train on, a batch wants {left + 1}"):
        opened(catalogue, classes_per_batch=left + 1)


def test_pictures_without_a_label_are_refused_or_left_out(catalogue: Path, tmp_path: Path) -> None:
    rows = [(path, path.parent.name if int(path.parent.name[1]) % 2 else "") for path in catalogue.glob("*/*.png")]
    half = manifest(tmp_path / "half.csv", rows)
    with pytest.raises(LabelsMissing, match=r"half\.csv: 12 of 24 pictures have no product_id.* --allow-unlabelled"):
        opened(half)
    found = opened(half, allow_unlabelled=True)
    assert (len(found.pictures), found.pictures.unlabelled) == (12, 12)


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="no-such-shop: no such file"):
        opened(tmp_path / "no-such-shop")


# Leaks


def test_the_same_picture_under_two_labels_is_refused_with_both_names(catalogue: Path) -> None:
    shutil.copy(catalogue / "c1" / "0.png", catalogue / "c2" / "copy.png")
    with pytest.raises(LabelConflict, match=r'c1/0\.png \("c1"\) and c2/copy\.png \("c2"\) .* --drop-conflicts'):
        opened(catalogue)


def test_both_sides_of_a_conflict_are_dropped_on_request(catalogue: Path) -> None:
    shutil.copy(catalogue / "c1" / "0.png", catalogue / "c2" / "copy.png")
    found = opened(catalogue, drop_conflicts=True)
    assert found.dropped == 2
    assert not {"c1/0.png", "c2/copy.png"} & (held_out(found) | trained_on(found))
    assert len(found.pictures) == CLASSES * VIEWS - 1


def test_copies_of_a_picture_fall_on_one_side(catalogue: Path) -> None:
    for picture in catalogue.glob("*/*.png"):
        shutil.copy(picture, picture.with_name(f"copy-of-{picture.name}"))
    found = opened(catalogue, validation="pictures")
    without_copies = {key.replace("copy-of-", "") for key in held_out(found)}
    assert without_copies
    assert len(held_out(found)) == 2 * len(without_copies)


def test_a_validation_file_that_is_trained_on_is_refused(catalogue: Path, tmp_path: Path) -> None:
    asked = manifest(tmp_path / "asked.csv", [(catalogue / "c1" / "0.png", "c1")])
    with pytest.raises(LabelConflict, match=r"is the same picture as c1/0\.png, which is trained on"):
        opened(catalogue, validation=str(asked))
