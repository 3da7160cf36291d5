"""Published data sets are read as they lie on disk when unpacked, split as their papers split them."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

import pictures
from retrieval.errors import GalleryError, ManifestError
from retrieval.gallery.datasets import detect_layout, read_layout
from retrieval.gallery.sources import read_labelled

BIRDS = {1: "001.Black_footed_Albatross", 100: "100.Brown_Pelican", 101: "101.White_Pelican", 200: "200.Yellowthroat"}
CARS = {1: "AM General Hummer SUV 2000", 98: "Ferrari 458 2012", 99: "Fisker Karma 2012", 196: "smart fortwo 2012"}


def put(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pictures.jpeg())


def stanford_online_products(folder: Path) -> Path:
    """Two products to train on, one to test on, two pictures each."""
    header = "image_id class_id super_class_id path\n"
    train = [(1, 1, 1, "bicycle_final/111_0.JPG"), (2, 1, 1, "bicycle_final/111_1.JPG")]
    train += [(3, 2, 8, "mug_final/222_0.JPG"), (4, 2, 8, "mug_final/222_1.JPG")]
    test = [(5, 11319, 1, "bicycle_final/333_0.JPG"), (6, 11319, 1, "bicycle_final/333_1.JPG")]
    for name, rows in (("Ebay_train.txt", train), ("Ebay_test.txt", test)):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(header + "".join(" ".join(map(str, row)) + "\n" for row in rows))
        for row in rows:
            put(folder, row[3])
    return folder


def cub_200_2011(folder: Path) -> Path:
    """Two pictures each of the classes 1, 100, 101 and 200."""
    paths = [(species, f"{name}/{name[4:]}_{copy:04}.jpg") for species, name in BIRDS.items() for copy in (1, 2)]
    for _, path in paths:
        put(folder, f"images/{path}")
    names = {number: BIRDS.get(number, f"{number:03}.Other_{number}") for number in range(1, 201)}
    (folder / "classes.txt").write_text("".join(f"{number} {name}\n" for number, name in names.items()))
    (folder / "images.txt").write_text("".join(f"{at} {path}\n" for at, (_, path) in enumerate(paths, start=1)))
    (folder / "image_class_labels.txt").write_text(
        "".join(f"{at} {species}\n" for at, (species, _) in enumerate(paths, start=1))
    )
    (folder / "train_test_split.txt").write_text("".join(f"{at} {at % 2}\n" for at in range(1, len(paths) + 1)))
    return folder


def cars_196(folder: Path) -> Path:
    """Two pictures each of the classes 1, 98, 99 and 196; the columns as MATLAB keeps them, with boxes and all."""
    columns = ("relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")
    rows = [(f"car_ims/{at:06}.jpg", model) for at, model in enumerate([1, 1, 98, 98, 99, 99, 196, 196], start=1)]
    annotations = np.empty((1, len(rows)), [(column, object) for column in columns])
    for at, (path, model) in enumerate(rows):
        put(folder, path)
        annotations[0, at] = (path, 1, 2, 30, 40, np.uint8(model), np.uint8(at % 2))
    names = np.empty((1, 196), object)
    names[0] = [CARS.get(number, f"Other {number} 2012") for number in range(1, 197)]
    tables = {"annotations": annotations, "class_names": names}
    scipy.io.savemat(folder / "cars_annos.mat", tables, do_compression=True)
    return folder


def in_shop(folder: Path, at: str = "Eval", base: str = "Img") -> Path:
    """A product to train on and one to test on, with a query and two pictures in the gallery."""
    rows = [
        ("img/WOMEN/Dresses/id_00000002/02_1_front.jpg", "id_00000002", "train"),
        ("img/WOMEN/Dresses/id_00000002/02_2_side.jpg", "id_00000002", "train"),
        ("img/MEN/Denim/id_00000080/01_1_front.jpg", "id_00000080", "query"),
        ("img/MEN/Denim/id_00000080/01_2_side.jpg", "id_00000080", "gallery"),
        ("img/MEN/Denim/id_00000080/01_7_additional.jpg", "id_00000080", "gallery"),
    ]
    lines = [str(len(rows)), "image_name item_id evaluation_status"]
    lines += [f"{path:<70} {item} {status:>20}" for path, item, status in rows]
    (folder / at).mkdir(parents=True, exist_ok=True)
    (folder / at / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    for path, _, _ in rows:
        put(folder / base, path)
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "stanford_online_products": stanford_online_products,
    "cub_200_2011": cub_200_2011,
    "cars_196": cars_196,
    "deepfashion_in_shop": in_shop,
}


@pytest.mark.parametrize("layout", MAKERS)
def test_a_data_set_is_known_by_its_files(tmp_path: Path, layout: str) -> None:
    assert detect_layout(MAKERS[layout](tmp_path)) == layout


def test_a_folder_of_class_folders_is_no_data_set(tmp_path: Path) -> None:
    put(tmp_path, "images/1.jpg")
    (tmp_path / "images.txt").write_text("my notes\n")
    assert detect_layout(tmp_path) is None
    assert detect_layout(tmp_path / "images" / "1.jpg") is None
    assert detect_layout(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("layout", "train", "test"),
    [
        ("stanford_online_products", {"1": 2, "2": 2}, {"11319": 2}),
        ("cub_200_2011", {BIRDS[1]: 2, BIRDS[100]: 2}, {BIRDS[101]: 2, BIRDS[200]: 2}),
        ("cars_196", {CARS[1]: 2, CARS[98]: 2}, {CARS[99]: 2, CARS[196]: 2}),
        ("deepfashion_in_shop", {"id_00000002": 2}, {"id_00000080": 3}),
    ],
)
def test_a_data_set_is_split_by_class_as_published(
    tmp_path: Path, layout: str, train: dict[str, int], test: dict[str, int]
) -> None:
    folder = MAKERS[layout](tmp_path)
    for split, expected in (("train", train), ("test", test)):
        labelled = read_layout(folder, split)
        assert dict(zip(labelled.names, labelled.counts().tolist(), strict=True)) == expected


@pytest.mark.parametrize("layout", MAKERS)
def test_the_pictures_of_a_data_set_are_where_their_records_say(tmp_path: Path, layout: str) -> None:
    folder = MAKERS[layout](tmp_path)
    labelled = read_layout(folder, "train")
    assert labelled.skipped == []
    for record in labelled.records:
        assert record.path == str(folder / record.key)
        assert Path(record.path).stat().st_size == record.size_bytes


@pytest.mark.parametrize("layout", MAKERS)
def test_a_data_set_can_be_trained_on_by_its_folder_alone(tmp_path: Path, layout: str) -> None:
    folder = MAKERS[layout](tmp_path)
    assert read_labelled(folder).records == read_layout(folder, "train").records
    assert read_labelled(folder, layout_split="test").records == read_layout(folder, "test").records


def test_products_have_ids_and_kinds_have_labels(tmp_path: Path) -> None:
    product = read_layout(stanford_online_products(tmp_path / "products"), "train").records[0]
    bird = read_layout(cub_200_2011(tmp_path / "birds"), "train").records[0]
    assert (product.product_id, product.label) == ("1", None)
    assert (bird.product_id, bird.label) == (None, BIRDS[1])


def test_queries_and_gallery_of_in_shop_make_up_its_test(tmp_path: Path) -> None:
    folder = in_shop(tmp_path)
    query, gallery, test = (read_layout(folder, part) for part in ("query", "gallery", "test"))
    assert [record.key for record in query.records] == ["Img/img/MEN/Denim/id_00000080/01_1_front.jpg"]
    assert test.records == [*query.records, *gallery.records]


@pytest.mark.parametrize("at", [".", "Eval", "Anno"])
@pytest.mark.parametrize("base", [".", "Img", "img", "Img/img"])
def test_in_shop_is_found_however_it_was_unpacked(tmp_path: Path, at: str, base: str) -> None:
    labelled = read_layout(in_shop(tmp_path, at, base), "train")
    assert (len(labelled), labelled.skipped) == (2, [])


def test_a_missing_picture_is_set_aside(tmp_path: Path) -> None:
    folder = stanford_online_products(tmp_path)
    (folder / "mug_final" / "222_1.JPG").unlink()
    labelled = read_layout(folder, "train")
    assert [(one.key, one.reason) for one in labelled.skipped] == [("mug_final/222_1.JPG", "no such file")]
    assert labelled.counts().tolist() == [2, 1]


# What can be wrong, one line each


def refusal(folder: Path, split: str, error: type[GalleryError] = GalleryError) -> str:
    with pytest.raises(error) as caught:
        read_layout(folder, split)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{folder}", "SET")


def test_a_folder_of_no_known_data_set_is_refused_with_those_that_are(tmp_path: Path) -> None:
    known = "stanford_online_products, cub_200_2011, cars_196, deepfashion_in_shop"
    assert refusal(tmp_path, "train") == f"SET is no published data set that is known ({known})"


@pytest.mark.parametrize(
    ("layout", "split", "parts"),
    [("cub_200_2011", "query", "train, test"), ("deepfashion_in_shop", "val", "train, test, query, gallery")],
)
def test_a_part_that_the_data_set_has_not_is_refused(tmp_path: Path, layout: str, split: str, parts: str) -> None:
    message = f'SET is {layout}, which has no part "{split}"; choose from {parts}'
    assert refusal(MAKERS[layout](tmp_path), split) == message


def test_lists_without_their_pictures_are_refused(tmp_path: Path) -> None:
    folder = stanford_online_products(tmp_path)
    for path in folder.glob("*/*.JPG"):
        path.unlink()
    assert refusal(folder, "train") == (
        "SET holds none of the 4 train pictures, the first is bicycle_final/111_0.JPG (no such file); unpack them there"
    )


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    folder = stanford_online_products(tmp_path)
    (folder / "Ebay_test.txt").unlink()
    assert refusal(folder, "test") == "SET/Ebay_test.txt: no such file; unpack the data set again"


@pytest.mark.parametrize(
    ("layout", "name", "old", "new", "message"),
    [
        (
            "stanford_online_products",
            "Ebay_train.txt",
            "image_id class_id",
            "class_id image_id",
            'SET/Ebay_train.txt line 1 is "class_id image_id super_class_id path", '
            'not "image_id class_id super_class_id path"; download it again',
        ),
        (
            "stanford_online_products",
            "Ebay_train.txt",
            "2 1 1 bicycle",
            "2 1 bicycle",
            "SET/Ebay_train.txt line 3 has 3 columns, 4 are expected; download it again",
        ),
        (
            "cub_200_2011",
            "image_class_labels.txt",
            "3 100\n",
            "",
            "image 3 of SET/images.txt is not in image_class_labels.txt; unpack the set again",
        ),
        (
            "cub_200_2011",
            "classes.txt",
            "100 100.Brown_Pelican\n",
            "",
            "image 3 of SET/images.txt is not in classes.txt (class 100); unpack the set again",
        ),
        (
            "deepfashion_in_shop",
            "Eval/list_eval_partition.txt",
            "5\nimage",
            "52712\nimage",
            "SET/Eval/list_eval_partition.txt has 5 rows, its first line says 52712; download it again",
        ),
        (
            "deepfashion_in_shop",
            "Eval/list_eval_partition.txt",
            "query",
            "val",
            'SET/Eval/list_eval_partition.txt: evaluation_status "val" is not train, query or gallery; '
            "download it again",
        ),
    ],
)
def test_a_damaged_list_is_named_with_its_line(
    tmp_path: Path, layout: str, name: str, old: str, new: str, message: str
) -> None:
    folder = MAKERS[layout](tmp_path)
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    assert refusal(folder, "train", ManifestError) == message


def test_the_list_of_another_deepfashion_benchmark_is_not_taken_for_in_shop(tmp_path: Path) -> None:
    folder = in_shop(tmp_path)
    (folder / "Eval" / "list_eval_partition.txt").write_text("1\nimage_name evaluation_status\nimg/a.jpg train\n")
    assert refusal(folder, "train", ManifestError) == (
        'SET/Eval/list_eval_partition.txt line 2 is "image_name evaluation_status", '
        'not "image_name item_id evaluation_status"; download it again'
    )


@pytest.mark.parametrize("text", ["", "5\n"])
def test_an_empty_list_is_refused(tmp_path: Path, text: str) -> None:
    folder = in_shop(tmp_path)
    (folder / "Eval" / "list_eval_partition.txt").write_text(text)
    assert 'line 2 is "", not "image_name item_id evaluation_status"' in refusal(folder, "train", ManifestError)


def test_a_cars_list_is_refused_wherever_it_breaks_off(tmp_path: Path) -> None:
    file = cars_196(tmp_path) / "cars_annos.mat"
    whole = file.read_bytes()
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        refused = refusal(tmp_path, "train", ManifestError)
        assert refused.startswith("SET/cars_annos.mat is not the list of Cars-196: "), length
        assert refused.endswith("; download it again")


def test_a_cars_list_with_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    file = cars_196(tmp_path) / "cars_annos.mat"
    whole = file.read_bytes()
    for at in range(140, len(whole), 61):  # before lies a header that nothing depends on
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        assert refusal(tmp_path, "train", ManifestError).startswith("SET/cars_annos.mat is not the list of"), at


def test_a_matlab_file_of_something_else_is_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "cars_annos.mat", {"annotations": np.zeros(3)})
    assert "is not the list of Cars-196" in refusal(tmp_path, "train", ManifestError)


def test_cars_without_scipy_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cars_196(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert refusal(folder, "train") == (
        "SET/cars_annos.mat can be read with scipy only, which is not installed: pip install scipy"
    )
