"""How are the published data sets of metric learning laid out on disk, and what is their official split?

They are read as they were published, from the folder that their own lists lie in. Nothing is downloaded.
"""

import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from retrieval.errors import GalleryError, ManifestError
from retrieval.files import one_line, why_unreadable
from retrieval.gallery.labelled import LabelledPictures, find_picture, number_classes
from retrieval.records import ImageRecord, Skipped

Layout = Literal["stanford_online_products", "cub_200_2011", "cars_196", "deepfashion_in_shop"]
Part = Literal["train", "test", "query", "gallery"]

_CUB_TRAINING_CLASSES = 100  # of 200, and
_CARS_TRAINING_CLASSES = 98  # of 196: the first half, as in Song et al. 2016, "Lifted Structured Feature Embedding"

_IN_SHOP_LIST = "list_eval_partition.txt"
_IN_SHOP_COLUMNS = ["image_name", "item_id", "evaluation_status"]
# The archive's own folders, then ways in which people unpack img.zip, which holds one folder img/.
_IN_SHOP_LISTS = (_IN_SHOP_LIST, f"Eval/{_IN_SHOP_LIST}", f"Anno/{_IN_SHOP_LIST}")
_IN_SHOP_PICTURES = (".", "Img", "img", "Img/img")


class _Listed(NamedTuple):
    """A picture as a list names it: path relative to the data set's folder, class, and part."""

    path: str
    name: str
    part: str


def detect_layout(folder: str | os.PathLike[str]) -> Layout | None:
    """Tell by its files which published data set a folder holds, if any."""
    if _holds(folder, "Ebay_train.txt") or _holds(folder, "Ebay_test.txt"):
        return "stanford_online_products"
    if all(_holds(folder, name) for name in ("images.txt", "image_class_labels.txt", "classes.txt")):
        return "cub_200_2011"
    if _holds(folder, "cars_annos.mat"):
        return "cars_196"
    if any(_holds(folder, name) for name in _IN_SHOP_LISTS):
        return "deepfashion_in_shop"
    return None


def read_layout(folder: str | os.PathLike[str], split: str) -> LabelledPictures:
    """Read one part of a published data set, in the order of its own list.

    Stanford Online Products and DeepFashion In-Shop give every picture a product_id, CUB-200-2011 and Cars-196 a
    label. "train" and "test" share no class. Whole pictures are used, without the boxes that some of the sets have.

    Args:
        folder: the one that holds the lists (Ebay_train.txt, images.txt, cars_annos.mat or list_eval_partition.txt).
        split: "train" or "test"; of In-Shop also "query" and "gallery", which make up "test".

    Raises:
        GalleryError: it is none of these sets, has no such part, lacks a file, or holds none of the pictures; or scipy
            is needed (Cars-196) and not installed.
        ManifestError: a list is damaged; names the file, the line and the remedy.
    """
    root = Path(os.path.abspath(folder))
    layout = detect_layout(root)
    if layout is None:
        raise GalleryError(f"{root} is no published data set that is known ({', '.join(get_args(Layout))})")
    parts = get_args(Part) if layout == "deepfashion_in_shop" else ("train", "test")
    if split not in parts:
        raise GalleryError(f'{root} is {layout}, which has no part "{split}"; choose from {", ".join(parts)}')
    wanted = ("query", "gallery") if (layout, split) == ("deepfashion_in_shop", "test") else (split,)
    listed = [one for one in _READERS[layout](root, split) if one.part in wanted]
    is_product = layout in ("stanford_online_products", "deepfashion_in_shop")
    labelled: list[tuple[ImageRecord, str]] = []
    skipped: list[Skipped] = []
    for path, name, _ in listed:
        kind = {"product_id": name} if is_product else {"label": name}
        found = find_picture(path, os.path.normpath(root / path), **kind)
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            labelled.append((found, name))
    if not labelled:
        first = f", the first is {skipped[0].key} ({skipped[0].reason})" if skipped else ""
        raise GalleryError(f"{root} holds none of the {len(listed)} {split} pictures{first}; unpack them there")
    return number_classes(labelled, skipped=skipped)


def _read_stanford_online_products(root: Path, split: str) -> list[_Listed]:
    """`Ebay_train.txt` and `Ebay_test.txt`: a header, then image_id, class_id, super_class_id and path."""
    file = root / f"Ebay_{split}.txt"
    rows = _rows(file, 4, header=["image_id", "class_id", "super_class_id", "path"])
    return [_Listed(path, class_id, split) for _, class_id, _, path in rows]


def _read_cub_200_2011(root: Path, split: str) -> list[_Listed]:
    """`images.txt`: id and path under images/; `image_class_labels.txt`: id and class; `classes.txt`: class and name.

    Class names begin with their number ("001.Black_footed_Albatross").
    """
    names = dict(_rows(root / "classes.txt", 2))
    classes = dict(_rows(root / "image_class_labels.txt", 2))
    listed = []
    for number, path in _rows(root / "images.txt", 2):
        class_id = classes.get(number)
        if class_id is None or class_id not in names or not class_id.isdecimal():
            where = "image_class_labels.txt" if class_id is None else f"classes.txt (class {class_id})"
            raise ManifestError(f"image {number} of {root / 'images.txt'} is not in {where}; unpack the set again")
        is_training = int(class_id) <= _CUB_TRAINING_CLASSES
        listed.append(_Listed(f"images/{path}", names[class_id], "train" if is_training else "test"))
    return listed


def _read_cars_196(root: Path, split: str) -> list[_Listed]:
    """`cars_annos.mat`: a row a picture, with relative_im_path ("car_ims/000001.jpg") and class (from 1)."""
    file = root / "cars_annos.mat"
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise GalleryError(f"{file} can be read with scipy only, which is not installed: pip install scipy") from error
    try:
        content = io.BytesIO(file.read_bytes())  # loadmat's own OSError is one of a damaged file
    except OSError as error:
        raise GalleryError(f"{file}: {why_unreadable(error, file)}; check its permissions") from error
    try:
        tables = loadmat(content, variable_names=["annotations", "class_names"], squeeze_me=True)
        names = {number: str(name) for number, name in enumerate(np.atleast_1d(tables["class_names"]), start=1)}
        rows = np.atleast_1d(tables["annotations"])
        return [
            _Listed(str(path), names[int(number)], "train" if number <= _CARS_TRAINING_CLASSES else "test")
            for path, number in zip(rows["relative_im_path"], rows["class"], strict=True)
        ]
    except (MatReadError, ValueError, TypeError, LookupError, NotImplementedError, OSError, zlib.error) as error:
        raise ManifestError(f"{file} is not the list of Cars-196: {one_line(error)}; download it again") from error


def _read_deepfashion_in_shop(root: Path, split: str) -> list[_Listed]:
    """`list_eval_partition.txt`: the number of pictures, a header, then image_name, item_id and evaluation_status.

    Other benchmarks of DeepFashion have a list of the same name with other columns; those are refused.
    """
    file = next(root / name for name in _IN_SHOP_LISTS if _holds(root, name))
    rows = _rows(file, 3, header=_IN_SHOP_COLUMNS, has_count=True)
    unknown = next((status for _, _, status in rows if status not in ("train", "query", "gallery")), None)
    if unknown is not None:
        raise ManifestError(f'{file}: evaluation_status "{unknown}" is not train, query or gallery; download it again')
    tops = {"/".join(path.split("/")[:2]) for path, _, _ in rows}  # img/MEN, img/WOMEN
    base = next((base for base in _IN_SHOP_PICTURES if any((root / base / top).exists() for top in tops)), ".")
    return [_Listed(os.path.normpath(f"{base}/{path}").replace(os.sep, "/"), item, part) for path, item, part in rows]


_READERS: dict[Layout, Callable[[Path, str], list[_Listed]]] = {
    "stanford_online_products": _read_stanford_online_products,
    "cub_200_2011": _read_cub_200_2011,
    "cars_196": _read_cars_196,
    "deepfashion_in_shop": _read_deepfashion_in_shop,
}


def _holds(folder: str | os.PathLike[str], name: str) -> bool:
    return os.path.isfile(Path(folder, name))  # noqa: PTH113 - False, no error, where the folder may not be entered


def _rows(file: Path, width: int, header: list[str] | None = None, has_count: bool = False) -> list[list[str]]:
    """Read a list whose columns are set apart by spaces.

    Args:
        file: the list.
        width: its number of columns.
        header: what the line above the rows must be; None for a list without one.
        has_count: the first line of all is the number of rows.

    Raises:
        GalleryError: it cannot be read.
        ManifestError: the header or a line is another, or rows are missing.
    """
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file} is not UTF-8 at byte {error.start}; download it again") from error
    except OSError as error:
        raise GalleryError(f"{file}: {why_unreadable(error, file)}; unpack the data set again") from error
    above = int(has_count) + int(header is not None)
    if header is not None and (len(lines) < above or lines[above - 1] != header):
        shown = " ".join(lines[above - 1])[:80] if len(lines) >= above else ""
        raise ManifestError(f'{file} line {above} is "{shown}", not "{" ".join(header)}"; download it again')
    rows = [(number, cells) for number, cells in enumerate(lines[above:], start=above + 1) if cells]
    wrong = next(((number, cells) for number, cells in rows if len(cells) != width), None)
    if wrong is not None:
        message = f"line {wrong[0]} has {len(wrong[1])} columns, {width} are expected; download it again"
        raise ManifestError(f"{file} {message}")
    if has_count and lines[0] != [str(len(rows))]:
        raise ManifestError(f"{file} has {len(rows)} rows, its first line says {' '.join(lines[0])}; download it again")
    return [cells for _, cells in rows]
