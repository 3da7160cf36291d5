"""A manifest is read: its pictures under its keys, and what is wrong with it named by line, value and remedy."""

import datetime
import decimal
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

import pictures
from retrieval.errors import GalleryError, ManifestError
from retrieval.gallery import read_gallery, read_manifest
from retrieval.records import Box, ImageRecord, Listing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three pictures: a.jpg, b.jpg, sub/c.jpg."""
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        (tmp_path / name).write_bytes(pictures.jpeg())
    return tmp_path


def write(folder: Path, text: str | bytes, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def write_parquet(folder: Path, columns: dict[str, list[Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "list.parquet")
    return folder / "list.parquet"


def read(folder: Path, text: str | bytes, name: str = "list.csv") -> Listing:
    return read_manifest(write(folder, text, name))


def only(listing: Listing) -> ImageRecord:
    (record,) = listing.records
    return record


def refusal(folder: Path, text: str | bytes, name: str = "list.csv") -> str:
    with pytest.raises(ManifestError) as caught:
        read(folder, text, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What every format says


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_format_says_the_same(folder: Path, kind: str) -> None:
    rows = [
        {"path": "a.jpg", "key": "A", "product_id": "007", "label": "shoe", "box": "1,2,30,40", "price": 9.5, "n": 3},
        {"path": "sub/c.jpg", "key": None, "product_id": None, "label": None, "box": None, "price": None, "n": None},
    ]
    if kind == "csv":
        path = write(
            folder, 'path,key,product_id,label,box,price,n\na.jpg,A,007,shoe,"1,2,30,40",9.5,3\nsub/c.jpg,,,,,,\n'
        )
    elif kind == "jsonl":
        path = write(folder, "\n".join(map(json.dumps, rows)), "list.jsonl")
    else:
        path = write_parquet(folder, {name: [row[name] for row in rows] for name in rows[0]})
    listing = read_gallery(path)
    size, mtime = (folder / "a.jpg").stat().st_size, (folder / "a.jpg").stat().st_mtime_ns
    full = ImageRecord(
        "A", str(folder / "a.jpg"), size, mtime, "007", "shoe", Box(1, 2, 30, 40), {"price": 9.5, "n": 3}
    )
    assert listing.records[0] == full
    bare = listing.records[1]
    assert (bare.key, bare.product_id, bare.label, bare.box, bare.metadata) == ("sub/c.jpg", None, None, None, {})
    assert (listing.source, listing.kind, listing.skipped, listing.unlisted) == (str(path), "manifest", [], [])
    assert listing.scanned_ns > 0


def test_paths_are_relative_to_the_manifest_or_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    listing = read(folder, f"path\n../{folder.name}/a.jpg\n{folder}/b.jpg\n")
    assert [record.path for record in listing.records] == [str(folder / "a.jpg"), str(folder / "b.jpg")]
    assert [record.key for record in listing.records] == [f"../{folder.name}/a.jpg", f"{folder}/b.jpg"]


def test_the_order_is_the_manifests(folder: Path) -> None:
    assert [record.key for record in read(folder, "path\nsub/c.jpg\nb.jpg\na.jpg\n").records] == [
        "sub/c.jpg",
        "b.jpg",
        "a.jpg",
    ]


def test_a_prefix_stands_before_every_key(folder: Path) -> None:
    path = write(folder, "path,key\na.jpg,\nb.jpg,B\nnone.jpg,\n")
    listing = read_gallery(path, key_prefix="shop/")
    assert [one.key for one in [*listing.records, *listing.skipped]] == ["shop/a.jpg", "shop/B", "shop/none.jpg"]


def test_several_rows_may_show_parts_of_one_file(folder: Path) -> None:
    listing = read(folder, 'path,key,box\na.jpg,left,"0,0,20,40"\na.jpg,right,"20,0,20,40"\n')
    assert [(record.key, record.path, record.box and record.box.x) for record in listing.records] == [
        ("left", str(folder / "a.jpg"), 0),
        ("right", str(folder / "a.jpg"), 20),
    ]


def test_rows_whose_file_is_missing_or_none_are_set_aside_and_the_others_go_on(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.jpg").symlink_to("nowhere")
    listing = read(folder, "path\nnone.jpg\nsub\npipe.jpg\nlink.jpg\na.jpg\n")
    assert [(one.key, one.reason, one.cause) for one in listing.skipped] == [
        ("none.jpg", "no such file", "access"),
        ("sub", "is a folder", "access"),
        ("pipe.jpg", "a pipe, socket or device, not a file", "access"),
        ("link.jpg", "broken symlink", "access"),
    ]
    assert only(listing).key == "a.jpg"


# CSV


def test_a_byte_order_mark_and_windows_lines_are_read(folder: Path) -> None:
    assert only(read(folder, b"\xef\xbb\xbfpath,label\r\na.jpg,caf\xc3\xa9\r\n\r\n")).label == "caf\u00e9"


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-20"], [1, -20]),
        (["1", "2.5"], [1.0, 2.5]),
        (["1e3", "-0.5"], [1000.0, -0.5]),
        (["1", "two"], ["1", "two"]),
        (["007", "8"], ["007", "8"]),
        (["1234567890123456789012", "1"], ["1234567890123456789012", "1"]),
        (["nan", "1"], ["nan", "1"]),
        (["True", "False"], ["True", "False"]),
        (["4", ""], [4, None]),
    ],
)
def test_a_column_of_numbers_becomes_numbers(folder: Path, cells: list[str], values: list[Any]) -> None:
    listing = read(folder, f"path,x\na.jpg,{cells[0]}\nb.jpg,{cells[1]}\n")
    found = [record.metadata.get("x") for record in listing.records]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


def test_product_ids_and_labels_that_look_like_numbers_stay_texts(folder: Path) -> None:
    record = only(read(folder, "path,key,product_id,label\na.jpg,1,2,3\n"))
    assert (record.key, record.product_id, record.label) == ("1", "2", "3")


def test_a_column_without_a_name_is_left_out(folder: Path) -> None:
    assert only(read(folder, ",path\n0,a.jpg\n")).metadata == {}


def test_newlines_and_commas_in_quotes_belong_to_the_value(folder: Path) -> None:
    assert only(read(folder, 'path,note\na.jpg,"one, two\nthree"\n')).metadata == {"note": "one, two\nthree"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.csv is empty; its first line must name the columns, one of them `path`"),
        (b"path\n\xff.jpg\n", "list.csv is not UTF-8 at byte 5; save it as UTF-8"),
        ('path,label\na.jpg,"x\n', "list.csv line 2 is no CSV: unexpected end of data; check its quotes"),
        (
            "path,label\na.jpg,x\nb.jpg,x,y\n",
            "list.csv line 3 has 3 cells, the first line names 2 columns; put quotes around commas",
        ),
        ("path,label,label\na.jpg,1,2\n", 'list.csv has two columns "label"; remove or rename one'),
        (
            "image,label\na.jpg,x\n",
            "list.csv has no column `path` (it has image, label); name the one that holds the files so",
        ),
        ("path,Product ID\na.jpg,7\n", 'list.csv has a column "Product ID"; rename it to `product_id`'),
        ("Path\na.jpg\n", 'list.csv has a column "Path"; rename it to `path`'),
        ("path,key\na.jpg,x\n,y\n", "list.csv line 3: path is empty; name the picture's file, or remove the row"),
        (
            "path\na.jpg\nb.jpg\na.jpg\n",
            'list.csv line 4: key "a.jpg" is also that of line 2; give every row its own key',
        ),
        (
            "path,key\na.jpg,K\nnone.jpg,K\n",
            'list.csv line 3: key "K" is also that of line 2; give every row its own key',
        ),
        (
            "path\ngs://bucket/a.jpg\n",
            "list.csv line 2: path gs://bucket/a.jpg is not on this machine; "
            "copy the pictures here and write local paths",
        ),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(folder: Path, text: str | bytes, message: str) -> None:
    assert refusal(folder, text) == message


@pytest.mark.parametrize("box", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,0,4", "1,2,3,-4", "nan,1,2,3", "inf,1,2,3", "5"])
def test_a_bad_box_is_refused_with_its_value(folder: Path, box: str) -> None:
    assert refusal(folder, f'path,box\na.jpg,"{box}"\n') == (
        f"list.csv line 2: box is '{box}'; it must be x,y,width,height in pixels, the last two above 0"
    )


# JSONL


def test_jsonl_values_keep_their_types_and_null_is_missing(folder: Path) -> None:
    row = {"path": "a.jpg", "n": 3, "price": 2.0, "sale": True, "name": "007", "gone": None, "empty": ""}
    metadata = only(read(folder, json.dumps(row), "list.jsonl")).metadata
    assert metadata == {"n": 3, "price": 2.0, "sale": True, "name": "007"}
    assert type(metadata["price"]) is float


def test_jsonl_takes_a_list_as_box_and_numbers_as_ids(folder: Path) -> None:
    record = only(read(folder, '{"path": "a.jpg", "key": 5, "product_id": 12.0, "box": [1, 2.5, 3, 4]}', "list.ndjson"))
    assert (record.key, record.product_id, record.box) == ("5", "12", Box(1, 2.5, 3, 4))


def test_jsonl_takes_a_box_in_fractions(folder: Path) -> None:
    record = only(read(folder, '{"path": "a.jpg", "box": [0, 0.25, 0.5, 0.5, true]}', "list.jsonl"))
    assert record.box == Box(0, 0.25, 0.5, 0.5, is_relative=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"path": "a.jpg"', "line 2 is no JSON object: Expecting ',' delimiter"),
        ('["a.jpg"]', "line 2 is no JSON object: it is not an object; write one a line"),
        ('{"path": "a.jpg", "x": NaN}', "line 2 is no JSON object: NaN is not JSON"),
        ('{"path": "a.jpg", "x": 1e999}', "line 2: column x is inf; numbers must be finite"),
        (f'{{"path": "a.jpg", "x": -1{"0" * 400}}}', "line 2: column x is -1000000"),
        ('{"path": "a.jpg", "x": "\\ud800"}', "line 2: column x is '\\ud800', which is not UTF-8"),
        ('{"path": "a.jpg", "\\ud800": 1}', "has a column '\\ud800', which is not UTF-8"),
        ("[" * 100_000, "line 2 is no JSON object: "),
        ('{"path": "a.jpg", "tags": ["x"]}', "line 2: column tags is \"['x']\"; metadata must be texts, numbers"),
        ('{"path": ["a.jpg"]}', "line 2: path is ['a.jpg']; it must be a text or a number"),
        ('{"path": "a.jpg", "product_id": true}', "line 2: product_id is True; it must be a text or a number"),
        ('{"path": "a.jpg", "box": {"x": 1}}', "line 2: box is {'x': 1}; it must be x,y,width,height"),
        ('{"path": "a.jpg", "box": [1, 2, 3, 4, 5]}', "line 2: box is [1, 2, 3, 4, 5]; it must be x,y,width,height"),
        ('{"path": "a.jpg", "box": 7}', "line 2: box is 7; it must be x,y,width,height"),
        ('{"path": "\\ud800.jpg"}', "line 2: path is '\\ud800.jpg', which is not UTF-8; rename it"),
        ('{"label": "x"}', "line 2: path is empty"),
    ],
)
def test_what_is_wrong_with_a_line_of_json_is_named(folder: Path, line: str, message: str) -> None:
    assert refusal(folder, f'{{"path": "b.jpg"}}\n{line}\n', "list.jsonl").startswith(f"list.jsonl {message}")


def test_a_null_character_in_a_path_sets_the_row_aside(folder: Path) -> None:
    listing = read(folder, '{"path": "a\\u0000.jpg"}', "list.jsonl")
    assert [one.reason for one in listing.skipped] == ["embedded null byte"]


# Parquet


def test_parquet_dates_decimals_and_lists_become_plain(folder: Path) -> None:
    columns = {
        "path": ["a.jpg"],
        "box": [[1.0, 2.0, 3.0, 4.0]],
        "product_id": [12],
        "day": [datetime.date(2026, 11, 23)],
        "price": [decimal.Decimal("9.50")],
        "nothing": [float("nan")],
    }
    record = only(read_manifest(write_parquet(folder, columns)))
    assert (record.box, record.product_id) == (Box(1, 2, 3, 4), "12")
    assert record.metadata == {"day": "2026-11-23", "price": 9.5}


def test_a_damaged_parquet_is_named(folder: Path) -> None:
    assert refusal(folder, b"PAR1 and then nothing", "list.parquet").startswith("list.parquet is no Parquet file: ")


def test_a_row_of_parquet_is_counted_from_one(folder: Path) -> None:
    path = write_parquet(folder, {"path": ["a.jpg", "b.jpg"], "raw": [None, b"x"]})
    with pytest.raises(ManifestError, match="row 2: column raw is"):
        read_manifest(path)


def test_pyarrow_is_loaded_for_parquet_only(folder: Path) -> None:
    path = write(folder, "path\na.jpg\n")
    code = f"import sys; from retrieval.gallery import read_gallery; read_gallery({str(path)!r}); print(*sys.modules)"
    root = Path(__file__).resolve().parents[3]
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert not {"pyarrow", "numpy", "PIL"} & set(child.stdout.split())


# open-metric-learning


def test_open_metric_learning_leaves_out_what_is_only_a_query(folder: Path) -> None:
    listing = read(
        folder,
        "path,label,split,is_query,is_gallery,category\n"
        "a.jpg,0,train,,,shoes\n"
        "b.jpg,1,validation,True,False,shoes\n"
        "sub/c.jpg,1,validation,True,True,hats\n",
    )
    assert [(record.key, record.label, record.metadata["split"]) for record in listing.records] == [
        ("a.jpg", "0", "train"),
        ("sub/c.jpg", "1", "validation"),
    ]
    assert listing.records[0].metadata == {"split": "train", "category": "shoes"}


def test_open_metric_learning_corners_become_a_box(folder: Path) -> None:
    header = "path,label,split,is_query,is_gallery,x_1,x_2,y_1,y_2\n"
    listing = read(folder, header + "a.jpg,0,train,,,10,40,5,25\nb.jpg,0,train,,,,,,\n")
    assert [record.box for record in listing.records] == [Box(10, 5, 30, 20), None]
    assert listing.records[0].metadata == {"split": "train"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,0,validation,maybe,False,,,,", 'is_query is "maybe"; it must be True, False or empty'),
        ("a.jpg,0,train,,,1,,2,3", "x_1=1, x_2=None, y_1=2, y_2=3: give all four in pixels, or none"),
        ("a.jpg,0,train,,,9,3,2,5", "box is [9.0, 2.0, -6.0, 3.0]; it must be"),
    ],
)
def test_what_is_wrong_with_open_metric_learning_is_named(folder: Path, row: str, message: str) -> None:
    text = f"path,label,split,is_query,is_gallery,x_1,x_2,y_1,y_2\n{row}\n"
    assert refusal(folder, text).startswith(f"list.csv line 2: {message}")


def test_open_metric_learning_is_read_from_parquet_with_its_flags(folder: Path) -> None:
    columns = {
        "path": ["a.jpg", "b.jpg"],
        "label": [3, 3],
        "split": ["validation", "validation"],
        "is_query": [True, False],
        "is_gallery": [False, True],
    }
    assert only(read_manifest(write_parquet(folder, columns))).key == "b.jpg"


# Google Vision Product Search


def test_googles_bulk_csv_is_read_without_a_header(folder: Path) -> None:
    listing = read(
        folder,
        f'file://{folder}/a.jpg,img1,set1,shoe7,apparel-v2,Red shoe,"color=red,style=flat",'
        '"0.1,0.2,0.5,0.2,0.5,0.8,0.1,0.8"\n'
        "b.jpg,,set1,shoe8,apparel-v2,,,\n",
    )
    first, second = listing.records
    assert (first.key, first.path, first.product_id) == ("img1", str(folder / "a.jpg"), "shoe7")
    assert first.box is not None
    assert first.box.is_relative
    assert first.box[:4] == pytest.approx((0.1, 0.2, 0.4, 0.6))
    assert first.metadata == {
        "color": "red",
        "style": "flat",
        "product_set_id": "set1",
        "product_category": "apparel-v2",
        "product_display_name": "Red shoe",
    }
    assert (second.key, second.box) == ("b.jpg", None)


def test_googles_header_is_passed_over_where_there_is_one(folder: Path) -> None:
    header = "image-uri,image-id,product-set-id,product-id,product-category,product-display-name,labels,bounding-poly\n"
    assert only(read(folder, header + "a.jpg,,s,p,general-v1,,,\n")).product_id == "p"


def test_googles_absolute_polygon_is_in_pixels(folder: Path) -> None:
    assert only(read(folder, 'a.jpg,,s,p,general-v1,,,"10,20,40,60"\n')).box == Box(10, 20, 30, 40)


def test_googles_regions_of_one_file_get_keys_of_their_own(folder: Path) -> None:
    rows = 'a.jpg,,s,p,general-v1,,,"0,0,0.5,0.5"\na.jpg,,s,p,general-v1,,,"0.5,0.5,1,1"\n'
    assert [record.key for record in read(folder, rows).records] == ["a.jpg", "a.jpg#2"]


def test_spaces_in_a_file_address_are_unquoted(folder: Path) -> None:
    (folder / "a b.jpg").write_bytes(pictures.jpeg())
    assert only(read(folder, f"file://{folder}/a%20b.jpg,i,s,p,general-v1\n")).path == str(folder / "a b.jpg")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "gs://bucket/a.jpg,,s,p,general-v1,,,",
            "path gs://bucket/a.jpg is not on this machine; copy the pictures here",
        ),
        ("https://x.y/a.jpg,,s,p,general-v1,,,", "path https://x.y/a.jpg is not on this machine"),
        ("file://server/a.jpg,,s,p,general-v1,,,", "path file://server/a.jpg is not on this machine"),
        ("a.jpg,,s,p,general-v1,,red,", 'label "red" is not key=value; correct it'),
        ('a.jpg,,s,p,general-v1,,,"1,2,3"', 'bounding-poly "1,2,3" is not x,y of two corners or more'),
        ('a.jpg,,s,p,general-v1,,,"0.1,0.1,0.1,0.9"', 'bounding-poly "0.1,0.1,0.1,0.9" is not x,y of'),
        ('a.jpg,,s,p,general-v1,,,"nan,0,1,1"', 'bounding-poly "nan,0,1,1" is not x,y of'),
    ],
)
def test_what_is_wrong_with_googles_csv_is_named(folder: Path, row: str, message: str) -> None:
    assert refusal(folder, f"b.jpg,,s,p,general-v1,,,\n{row}\n").startswith(f"list.csv line 2: {message}")


# Files


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(GalleryError) as caught:
        read_gallery(tmp_path / "list.csv")
    assert str(caught.value) == f"manifest {tmp_path}/list.csv: no such file; check its name and permissions"


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "list.parquet"])
def test_a_missing_manifest_of_any_format_is_a_gallery_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(GalleryError, match="no such file"):
        read_manifest(tmp_path / name)


def test_an_unknown_suffix_names_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(
        GalleryError, match=r"is neither a folder nor a manifest \(\.csv, \.jsonl, \.ndjson, \.parquet\)"
    ):
        read_manifest(write(tmp_path, "path\n", "list.xlsx"))


def test_a_manifest_with_columns_and_no_rows_is_an_empty_gallery(tmp_path: Path) -> None:
    assert read(tmp_path, "path,label\n").records == []
