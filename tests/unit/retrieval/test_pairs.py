"""A manifest of pairs is read: two pictures and a claim a row, and what is wrong with it named by line and remedy."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

import pictures
from retrieval.errors import GalleryError, ManifestError
from retrieval.gallery.pairs import LabelledPairs, is_pairs_manifest, read_pairs

ROWS = [
    {"anchor": "a.jpg", "other": "b.jpg", "similar": True},
    {"anchor": "a.jpg", "other": "sub/c.jpg", "similar": False},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three pictures: a.jpg, b.jpg, sub/c.jpg."""
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        (tmp_path / name).write_bytes(pictures.jpeg())
    return tmp_path


def write(folder: Path, text: str, name: str = "pairs.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def write_rows(folder: Path, rows: list[dict[str, Any]], kind: str) -> Path:
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "pairs.parquet")
        return folder / "pairs.parquet"
    if kind == "jsonl":
        return write(folder, "\n".join(map(json.dumps, rows)), "pairs.jsonl")
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    return write(folder, "\n".join(lines) + "\n")


def claims(pairs: LabelledPairs) -> list[tuple[str, str, bool]]:
    keys = [record.key for record in pairs.records]
    columns = (pairs.first.tolist(), pairs.second.tolist(), pairs.is_similar.tolist())
    return [(keys[first], keys[second], is_similar) for first, second, is_similar in zip(*columns, strict=True)]


def refusal(folder: Path, text: str, name: str = "pairs.csv") -> str:
    with pytest.raises(ManifestError) as caught:
        read_pairs(write(folder, text, name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_format_says_the_same(folder: Path, kind: str) -> None:
    pairs = read_pairs(write_rows(folder, ROWS, kind))
    assert claims(pairs) == [("a.jpg", "b.jpg", True), ("a.jpg", "sub/c.jpg", False)]
    assert (len(pairs), pairs.left_out, pairs.skipped) == (2, 0, [])


@pytest.mark.parametrize(
    ("yes", "no"), [("true", "false"), ("True", "FALSE"), ("1", "0"), ("1.0", "0.0"), (" true", "0")]
)
def test_a_claim_is_written_as_a_word_or_a_number(folder: Path, yes: str, no: str) -> None:
    pairs = read_pairs(write(folder, f"anchor,other,similar\na.jpg,b.jpg,{yes}\na.jpg,sub/c.jpg,{no}\n"))
    assert pairs.is_similar.tolist() == [True, False]


def test_numbers_as_claims_are_read_from_parquet(folder: Path) -> None:
    rows = [row | {"similar": float(row["similar"])} for row in ROWS]
    assert read_pairs(write_rows(folder, rows, "parquet")).is_similar.tolist() == [True, False]


def test_a_picture_in_many_pairs_is_one_record_however_it_is_written(folder: Path) -> None:
    pairs = read_pairs(
        write(folder, f"anchor,other,similar\na.jpg,b.jpg,1\n./a.jpg,sub/c.jpg,0\n{folder}/b.jpg,sub/../sub/c.jpg,0\n")
    )
    assert [record.key for record in pairs.records] == ["a.jpg", "b.jpg", "sub/c.jpg"]
    assert claims(pairs)[2] == ("b.jpg", "sub/c.jpg", False)


def test_paths_are_relative_to_the_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(folder, ROWS, "csv")
    monkeypatch.chdir("/")
    assert [record.path for record in read_pairs(os.path.relpath(path)).records] == [
        str(folder / name) for name in ("a.jpg", "b.jpg", "sub/c.jpg")
    ]


def test_a_pair_written_twice_in_either_order_counts_once(folder: Path) -> None:
    pairs = read_pairs(write(folder, "anchor,other,similar\na.jpg,b.jpg,1\nb.jpg,a.jpg,1\na.jpg,b.jpg,1\n"))
    assert claims(pairs) == [("a.jpg", "b.jpg", True)]


def test_pairs_with_a_missing_picture_are_left_out_and_counted(folder: Path) -> None:
    pairs = read_pairs(write(folder, "anchor,other,similar\na.jpg,none.jpg,1\nnone.jpg,b.jpg,0\na.jpg,b.jpg,1\n"))
    assert claims(pairs) == [("a.jpg", "b.jpg", True)]
    assert pairs.left_out == 2
    assert [(one.key, one.reason) for one in pairs.skipped] == [("none.jpg", "no such file")]


def test_further_columns_are_passed_over(folder: Path) -> None:
    assert len(read_pairs(write(folder, "id,anchor,other,similar,who\n7,a.jpg,b.jpg,1,Eve\n"))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pairs.csv is empty; its first line must name the columns anchor, other, similar"),
        (
            "anchor,other\na.jpg,b.jpg\n",
            "pairs.csv has no column `similar` (it has anchor, other); pairs need anchor, other, similar",
        ),
        ("Anchor,other,similar\na.jpg,b.jpg,1\n", 'pairs.csv has a column "Anchor"; rename it to `anchor`'),
        (
            "anchor,other,similar\na.jpg,b.jpg,1\na.jpg,sub/c.jpg,maybe\n",
            'pairs.csv line 3: similar is "maybe"; it must be true, false, 1 or 0',
        ),
        (
            "anchor,other,similar\na.jpg,b.jpg,0.7\n",
            'pairs.csv line 2: similar is "0.7"; it must be true, false, 1 or 0',
        ),
        (
            "anchor,other,similar\na.jpg,b.jpg,\n",
            "pairs.csv line 2: similar is empty; write true or false, or remove the row",
        ),
        (
            "anchor,other,similar\na.jpg,,1\n",
            "pairs.csv line 2: other is empty; name the picture's file, or remove the row",
        ),
        (
            "anchor,other,similar\na.jpg,./a.jpg,1\n",
            "pairs.csv line 2: anchor and other are both a.jpg; name two pictures, or remove the row",
        ),
        (
            "anchor,other,similar\nhttps://shop/a.jpg,b.jpg,1\n",
            "pairs.csv line 2: path https://shop/a.jpg is not on this machine; "
            "copy the pictures here and write local paths",
        ),
        (
            "anchor,other,similar\na.jpg,b.jpg,1\na.jpg,sub/c.jpg,0\nb.jpg,a.jpg,0\n",
            "pairs.csv line 4: b.jpg and a.jpg are different here and similar in line 2; remove one of the two rows",
        ),
        (
            "anchor,other,similar\nnone.jpg,b.jpg,0\nb.jpg,none.jpg,1\n",
            "pairs.csv line 3: b.jpg and none.jpg are similar here and different in line 2; remove one of the two rows",
        ),
    ],
)
def test_what_is_wrong_is_named_with_line_value_and_remedy(folder: Path, text: str, message: str) -> None:
    assert refusal(folder, text) == message


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"anchor": ["a.jpg"], "other": "b.jpg", "similar": 1}', "anchor is ['a.jpg']; it must be the path of a pi"),
        ('{"anchor": "a.jpg", "other": true, "similar": 1}', "other is True; it must be the path of a picture"),
        ('{"anchor": "\\ud800.jpg", "other": "b.jpg", "similar": 1}', "anchor is '\\ud800.jpg', which is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_line_of_json_is_named(folder: Path, row: str, message: str) -> None:
    assert refusal(folder, json.dumps(ROWS[0]) + "\n" + row, "pairs.jsonl").startswith(f"pairs.jsonl line 2: {message}")


def test_rows_of_missing_pictures_alone_are_refused(folder: Path) -> None:
    with pytest.raises(GalleryError) as caught:
        read_pairs(write(folder, "anchor,other,similar\nx.jpg,a.jpg,1\n"))
    assert str(caught.value) == (
        "pairs.csv has 1 rows and no pair of pictures that can be used; "
        "pictures set aside: 1, the first is x.jpg (no such file); add rows, or correct their paths"
    )


def test_a_manifest_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(GalleryError, match=r"pairs\.csv: no such file; check its name and permissions"):
        read_pairs(folder / "pairs.csv")


# Telling pairs from pictures


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_manifest_of_pairs_is_known_by_its_columns(folder: Path, kind: str) -> None:
    assert is_pairs_manifest(write_rows(folder, ROWS, kind))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_manifest_of_pictures_is_not_one_of_pairs(folder: Path, kind: str) -> None:
    assert not is_pairs_manifest(write_rows(folder, [{"path": "a.jpg", "label": "x"}], kind))


def test_a_manifest_of_pairs_without_the_claims_is_still_one(folder: Path) -> None:
    assert is_pairs_manifest(write(folder, "\ufeffanchor,other\na.jpg,b.jpg\n"))


def test_the_demo_manifest_and_a_folder_are_no_pairs(demo_gallery: Path) -> None:
    assert not is_pairs_manifest(demo_gallery)
    assert not is_pairs_manifest(demo_gallery.with_suffix(".csv"))


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\0", b"[1]", b'{"anchor"', b'"'])
def test_a_file_that_cannot_be_read_is_left_to_whoever_reads_it(folder: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    assert not is_pairs_manifest(folder / name)
