"""Labels for a refresh are keys and products, and what is wrong with a file of them is one line."""

from pathlib import Path

import pytest

from retrieval.errors import GalleryError, ManifestError
from retrieval.refresh.labels import read_labels


def written(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, "utf-8")
    return folder / name


def test_a_table_and_lines_of_json_are_read(tmp_path: Path) -> None:
    expected = {"a/1.jpg": "007", "b/2.jpg": "shoe"}
    assert read_labels(written(tmp_path, "product_id,key,price\n007,a/1.jpg,3\nshoe,b/2.jpg,4\n")) == expected
    lines = '{"key": "a/1.jpg", "product_id": "007"}\n{"key": "b/2.jpg", "product_id": "shoe"}\n'
    assert read_labels(written(tmp_path, lines, "labels.jsonl")) == expected


def test_the_same_row_twice_is_one(tmp_path: Path) -> None:
    assert read_labels(written(tmp_path, "key,product_id\na,A\na,A\n")) == {"a": "A"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "key,label\na,A\n",
            "labels.csv line 2 lacks product_id; every row names a picture of the index and its product",
        ),
        ("key,product_id\na,A\n,B\n", "labels.csv line 3 lacks key; every row"),
        (
            "key,product_id\na,A\na,B\n",
            'labels.csv line 3: key "a" is of product "A" further up, and of "B" here; keep',
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError) as refused:
        read_labels(written(tmp_path, text))
    assert str(refused.value).startswith(message)


def test_a_file_that_is_not_there_and_one_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match=r"^labels .*gone.csv: no such file; check its name"):
        read_labels(tmp_path / "gone.csv")
    with pytest.raises(GalleryError, match=r"labels.txt: the file must be one of .csv, "):
        read_labels(written(tmp_path, "", "labels.txt"))
