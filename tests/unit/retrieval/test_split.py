"""What is trained on and what is measured: the same the next time, whatever was added, and never the same picture."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

import pictures
from retrieval.errors import LabelConflict, TrainingError
from retrieval.gallery.labelled import LabelledPictures, join, number_classes
from retrieval.gallery.sources import read_labelled
from retrieval.records import Box, ImageRecord
from retrieval.training.split import (
    Split,
    check_leaks,
    conflicting_rows,
    content_hashes,
    no_split,
    split_classes,
    split_file,
    split_pictures,
)


def catalogue(counts: dict[str, int]) -> LabelledPictures:
    """Pictures named "<class>/<number>.jpg", as many of each class as asked for; no files."""
    keys = [(name, f"{name}/{at}.jpg") for name, count in counts.items() for at in range(count)]
    return number_classes((ImageRecord(key, f"/{key}", 1, 1), name) for name, key in keys)


def sized(sizes: Sequence[int]) -> LabelledPictures:
    return catalogue({f"c{number}": size for number, size in enumerate(sizes)})


def keys(labelled: LabelledPictures, rows: Sequence[int]) -> set[str]:
    return {labelled.records[row].key for row in rows}


def classes(labelled: LabelledPictures, rows: Sequence[int]) -> set[str]:
    return {labelled.label(row) for row in rows}


def place(name: str) -> float:
    """The rule in full: the first 64 bits of SHA-256 as a fraction."""
    return int(hashlib.sha256(f"retrieve: split 1\0{name}".encode()).hexdigest()[:16], 16) / 16**16


def refusal(error: type[Exception], action: object, *arguments: object, **options: object) -> str:
    assert callable(action)
    with pytest.raises(error) as caught:
        action(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


SIZES = st.lists(st.integers(1, 6), min_size=4, max_size=30)


# Whole classes


def test_the_classes_of_the_demo_gallery_fall_on_these_sides_for_ever(demo_gallery: Path) -> None:
    # Written down once. If this fails, every catalogue out there is split anew: that must be meant.
    labelled = read_labelled(demo_gallery)
    assert sorted(classes(labelled, split_classes(labelled).validation_rows)) == [
        "apple",
        "carrot",
        "doughnut",
        "grapes",
        "rocket",
        "running-shoe",
        "teddy-bear",
    ]


@given(sizes=SIZES, share=st.floats(0.01, 0.99))
def test_no_class_is_on_both_sides_and_every_picture_on_one(sizes: list[int], share: float) -> None:
    labelled = sized([2, 2, *sizes])
    split = split_classes(labelled, share)
    assert not classes(labelled, split.train_rows) & classes(labelled, split.validation_rows)
    assert sorted([*split.train_rows, *split.validation_rows]) == list(range(len(labelled)))


@given(sizes=SIZES, share=st.floats(0.01, 0.99))
def test_two_held_out_classes_can_be_told_apart_and_two_are_trained_on(sizes: list[int], share: float) -> None:
    labelled = sized([2, 2, *sizes])
    split = split_classes(labelled, share)
    measured = labelled.subset(split.validation_rows).counts()
    assert np.count_nonzero(measured >= 2) >= 2
    assert len(classes(labelled, split.train_rows)) >= 2


def test_classes_are_held_out_by_the_hash_of_their_name_alone() -> None:
    labelled = sized([3] * 200)
    held_out = classes(labelled, split_classes(labelled, 0.3).validation_rows)
    assert held_out == {name for name in labelled.names if place(name) < 0.3}


def test_classes_and_pictures_that_are_added_move_no_class() -> None:
    before, after = sized([3] * 60), sized([5] * 90)
    held_out = classes(before, split_classes(before).validation_rows)
    assert held_out == classes(after, split_classes(after).validation_rows) & set(before.names)


def test_where_the_hash_holds_out_too_few_the_next_classes_follow() -> None:
    labelled = catalogue({"a": 2, "b": 1, "c": 2, "d": 2, "e": 2})
    measurable = sorted("acde", key=place)
    split = split_classes(labelled, share=1e-9)
    assert classes(labelled, split.validation_rows) == set(measurable[:2])


def test_where_the_hash_holds_out_too_many_the_last_two_are_trained_on() -> None:
    labelled = sized([2] * 6)
    split = split_classes(labelled, share=1 - 1e-9)
    assert classes(labelled, split.train_rows) == set(sorted(labelled.names, key=place)[-2:])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([2, 2], "2 classes, 2 of them with 2 pictures or more, are too few"),
        ([2, 2, 2], "3 classes, 3 of them with 2 pictures or more, are too few"),
        ([1, 5, 1, 1], "4 classes, 1 of them with 2 pictures or more, are too few"),
    ],
)
def test_too_few_classes_to_hold_any_out_are_refused(sizes: list[int], message: str) -> None:
    said = refusal(TrainingError, split_classes, sized(sizes))
    assert said.startswith(message)
    assert said.endswith("add classes, or use --val pictures or --val none")


# Pictures of every class


def test_pictures_are_held_out_by_the_hash_of_their_key_alone() -> None:
    # With 40 pictures a class some are always left to train on, so the hash decides everything.
    labelled = sized([40] * 10)
    held_out = keys(labelled, split_pictures(labelled, 0.3).validation_rows)
    assert held_out == {record.key for record in labelled.records if place(record.key) < 0.3}


def test_pictures_that_are_added_move_no_picture() -> None:
    before, after = sized([20] * 10), sized([30] * 15)
    held_out = keys(before, split_pictures(before).validation_rows)
    assert held_out == keys(after, split_pictures(after).validation_rows) & {one.key for one in before.records}


@given(sizes=SIZES, share=st.floats(0.01, 0.99))
def test_every_class_is_trained_on_and_something_is_measured(sizes: list[int], share: float) -> None:
    labelled = sized([2, *sizes])
    split = split_pictures(labelled, share)
    assert classes(labelled, split.train_rows) == set(labelled.names)
    assert len(split.validation_rows) >= 1
    assert sorted([*split.train_rows, *split.validation_rows]) == list(range(len(labelled)))


def test_a_class_with_one_picture_is_trained_on_even_if_all_others_are_held_out() -> None:
    labelled = catalogue({"one": 1, "many": 9})
    split = split_pictures(labelled, share=1 - 1e-9)
    assert "one/0.jpg" in keys(labelled, split.train_rows)
    assert len(split.validation_rows) == 8


@given(copies=st.lists(st.integers(0, 5), min_size=12, max_size=12), share=st.floats(0.05, 0.95))
def test_the_same_bytes_fall_on_the_same_side(copies: list[int], share: float) -> None:
    labelled = sized([6, 6])
    groups = [f"{labelled.label(row)}-{copy}" for row, copy in enumerate(copies)]
    groups[0], groups[1] = "x", "y"  # something can be parted
    split = split_pictures(labelled, share, groups)
    sides = [{groups[row] for row in rows} for rows in (split.train_rows, split.validation_rows)]
    assert not sides[0] & sides[1]
    assert classes(labelled, split.train_rows) == set(labelled.names)
    check_leaks(labelled, split, groups)


def test_pictures_of_the_same_bytes_follow_the_lowest_hash_among_them_in_any_order() -> None:
    labelled = sized([40, 40])
    groups = [f"{labelled.label(row)}-{row % 13}" for row in range(80)]
    lowest: dict[str, float] = {}
    for record, group in zip(labelled.records, groups, strict=True):
        lowest[group] = min(place(record.key), lowest.get(group, 1.0))
    expected = {one.key for one, group in zip(labelled.records, groups, strict=True) if lowest[group] < 0.1}
    assert keys(labelled, split_pictures(labelled, 0.1, groups).validation_rows) == expected
    turned = labelled.subset(range(80)[::-1])
    assert keys(turned, split_pictures(turned, 0.1, groups[::-1]).validation_rows) == expected


def test_unreadable_pictures_are_no_group() -> None:
    labelled = sized([40, 40])
    with_groups = split_pictures(labelled, groups=[None] * 80)
    assert with_groups.train_rows.tolist() == split_pictures(labelled).train_rows.tolist()


def test_classes_of_one_picture_each_cannot_be_parted() -> None:
    expected = "no class has two different pictures, so none can be held out; add some, or use --val none"
    assert refusal(TrainingError, split_pictures, sized([1, 1, 1])) == expected
    assert refusal(TrainingError, split_pictures, sized([2, 1]), groups=["same", "same", None]) == expected


# A file, and nothing


def test_a_validation_file_is_measured_whole_and_the_source_is_trained_on_whole() -> None:
    first, second = sized([2, 3]), catalogue({"c0": 1, "new": 2})
    split, joined = split_file(first, second), join(first, second)
    assert joined.subset(split.train_rows).records == first.records
    assert joined.subset(split.validation_rows).records == second.records


def test_without_validation_everything_is_trained_on() -> None:
    split = no_split(sized([1, 2]))
    assert (split.train_rows.tolist(), split.validation_rows.tolist(), split.kind) == ([0, 1, 2], [], "none")


def test_one_class_alone_is_refused_however_it_is_split() -> None:
    one = sized([5])
    expected = '5 pictures of 1 class ("c0"): training needs at least 2 classes; add pictures of others'
    for action in (split_classes, split_pictures, no_split):
        assert refusal(TrainingError, action, one) == expected
    assert refusal(TrainingError, split_file, one, sized([5, 5])) == expected


def test_a_class_that_a_subset_has_lost_is_not_counted() -> None:
    one = sized([5, 1]).subset(range(5))
    assert "5 pictures of 1 class" in refusal(TrainingError, no_split, one)


@pytest.mark.parametrize("share", [0, 1, -0.1, 20, float("nan")])
def test_a_share_is_a_fraction(share: float) -> None:
    for action in (split_classes, split_pictures):
        assert refusal(ValueError, action, sized([3] * 5), share) == f"share is {share}; it must lie between 0 and 1"


# Saved, and the same the next time


@pytest.mark.parametrize("kind", ["classes", "pictures", "none"])
def test_a_saved_split_is_found_again_in_whatever_order_the_pictures_are(tmp_path: Path, kind: str) -> None:
    labelled = sized([3] * 20)
    split = {"classes": split_classes, "pictures": split_pictures, "none": no_split}[kind](labelled)
    split.save(tmp_path / "split.json", labelled)
    turned = labelled.subset(range(len(labelled))[::-1])
    again = Split.load(tmp_path / "split.json", turned)
    assert again.kind == kind
    assert keys(turned, again.train_rows) == keys(labelled, split.train_rows)
    assert keys(turned, again.validation_rows) == keys(labelled, split.validation_rows)
    assert again.train_rows.tolist() == sorted(again.train_rows.tolist())


def test_a_saved_split_by_file_is_found_again_where_both_files_use_the_same_keys(tmp_path: Path) -> None:
    first, second = sized([2, 2]), sized([2, 2])
    split, joined = split_file(first, second), join(first, second)
    split.save(tmp_path / "split.json", joined)
    again = Split.load(tmp_path / "split.json", joined)
    assert again.train_rows.tolist() == [0, 1, 2, 3]
    assert again.validation_rows.tolist() == [4, 5, 6, 7]


def test_a_saved_split_can_be_read_by_people(tmp_path: Path) -> None:
    labelled = catalogue({"h\u00fcte": 1, "schuhe": 1})
    no_split(labelled).save(tmp_path / "split.json", labelled)
    assert "h\u00fcte/0.jpg" in (tmp_path / "split.json").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


def test_a_split_of_other_pictures_is_refused_with_what_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    labelled = catalogue({"a": 2, "b": 2})
    no_split(labelled).save(path, labelled)
    changed = catalogue({"a": 1, "b": 2, "c": 2})
    assert refusal(TrainingError, Split.load, path, changed) == (
        f"{path} is a split of other pictures: 2 are new, 1 are gone (new: c/0.jpg) (gone: a/1.jpg); "
        "train afresh, or bring the former pictures back"
    )


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 1, "kind": "none", "train": 5, "validation": []}'])
def test_a_damaged_split_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.json").write_text(text)
    said = refusal(TrainingError, Split.load, tmp_path / "split.json", sized([1, 1]))
    assert said.startswith(f"{tmp_path / 'split.json'} is no saved split: ")
    assert said.endswith("; train afresh")


def test_a_split_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    labelled = sized([1, 1])
    no_split(labelled).save(path, labelled)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    assert refusal(TrainingError, Split.load, path, labelled) == (
        f"{path} is a split of format 2, kind none; this version reads format 1: "
        "upgrade retrieval-engine, or train afresh"
    )


# Leaks


def test_contents_are_hashed_in_the_order_of_the_records(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(20)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(b"%d" % number)
    records = [ImageRecord(name, str(tmp_path / name), 1, 1) for name in names]
    assert content_hashes(records, threads=2) == [xxhash.xxh3_128_hexdigest(b"%d" % number) for number in range(20)]


def test_a_picture_that_cannot_be_read_has_no_hash(tmp_path: Path) -> None:
    assert content_hashes([ImageRecord("x", str(tmp_path / "none.jpg"), 1, 1)]) == [None]


def test_two_boxes_of_one_file_are_two_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(pictures.jpeg())
    boxes = [None, Box(0, 0, 9, 9), Box(9, 0, 9, 9), Box(0, 0, 9, 9)]
    hashes = content_hashes([ImageRecord("x", str(tmp_path / "a.jpg"), 1, 1, box=box) for box in boxes])
    assert len(set(hashes)) == 3
    assert hashes[1] == hashes[3]


def test_the_same_bytes_under_two_labels_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("hats/1.jpg", "hats/2.jpg", "shoes/3.jpg", "shoes/4.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(pictures.jpeg(pictures.photo(seed=int(name[-5]))))
    (tmp_path / "shoes" / "9.jpg").write_bytes((tmp_path / "hats" / "2.jpg").read_bytes())
    labelled = read_labelled(tmp_path)
    assert refusal(LabelConflict, check_leaks, labelled, no_split(labelled), content_hashes(labelled.records)) == (
        'hats/2.jpg ("hats") and shoes/9.jpg ("shoes") are the same picture under two labels; '
        "remove or relabel them, or leave all such pictures out with --drop-conflicts"
    )


def test_further_conflicts_are_counted() -> None:
    labelled = sized([3, 3])
    message = refusal(LabelConflict, check_leaks, labelled, no_split(labelled), ["x", "x", "y", "x", "y", "z"])
    assert 'c0/0.jpg ("c0") and c1/0.jpg ("c1") are the same picture under two labels, and so are 3 more;' in message


@given(contents=st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=9, max_size=9))
def test_conflicts_are_those_that_comparing_every_two_pictures_finds(contents: list[str | None]) -> None:
    labelled = sized([3, 3, 3])
    labels = labelled.labels
    slow = [
        row
        for row in range(9)
        if any(
            contents[row] is not None and contents[row] == contents[other] and labels[row] != labels[other]
            for other in range(9)
        )
    ]
    assert conflicting_rows(labelled, contents).tolist() == slow


def test_without_its_conflicts_a_catalogue_passes() -> None:
    labelled, hashes = sized([3, 3]), ["x", "p", "q", "x", "r", "r"]
    kept = np.setdiff1d(np.arange(6), conflicting_rows(labelled, hashes))
    rest = labelled.subset(kept)
    check_leaks(rest, no_split(rest), [hashes[row] for row in kept])
    assert keys(rest, range(len(rest))) == {"c0/1.jpg", "c0/2.jpg", "c1/1.jpg", "c1/2.jpg"}


def test_a_validation_file_with_pictures_that_are_trained_on_is_refused() -> None:
    first, second = sized([2, 2]), catalogue({"c0": 2, "c1": 1})
    split, joined = split_file(first, second), join(first, second)
    assert refusal(LabelConflict, check_leaks, joined, split, ["p", "q", "r", "s", "new", "q", "r"]) == (
        "validation picture c0/1.jpg is the same picture as c0/1.jpg, which is trained on, and so is 1 more; "
        "remove them from the validation file"
    )


def test_the_same_picture_twice_on_one_side_is_no_leak() -> None:
    first, second = sized([2, 2]), catalogue({"c0": 2, "c1": 1})
    check_leaks(join(first, second), split_file(first, second), ["p", "p", "r", "s", "t", "t", "u"])


def test_pictures_that_cannot_be_read_are_no_leak() -> None:
    first, second = sized([1, 1]), sized([1, 1])
    check_leaks(join(first, second), split_file(first, second), [None] * 4)


def test_splitting_loads_no_torch() -> None:
    code = "import sys, retrieval.training.split; print(*sys.modules)"
    root = Path(__file__).resolve().parents[3]
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert "torch" not in child.stdout.split()
