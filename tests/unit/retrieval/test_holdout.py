"""What a candidate is judged by is chosen by names, stays so as the catalogue grows, and leaves enough to learn."""

import numpy as np
import pytest

from retrieval.gallery.labelled import LabelledPictures, number_classes
from retrieval.records import ImageRecord
from retrieval.refresh.holdout import hold_out


def catalogue(sizes: dict[str, int]) -> LabelledPictures:
    records = [
        (ImageRecord(f"{name}/{number}.jpg", f"/shop/{name}/{number}.jpg", size_bytes=1, mtime_ns=1), name)
        for name, size in sizes.items()
        for number in range(size)
    ]
    return number_classes(records)


def held_keys(pictures: LabelledPictures, groups: list[str | None] | None = None) -> set[str]:
    rows = hold_out(pictures, groups or [None] * len(pictures))
    assert (np.diff(rows) > 0).all()
    return {pictures.records[row].key for row in rows}


MANY = {f"product-{number}": 10 for number in range(400)}


def test_a_tenth_of_the_products_and_a_fifth_of_the_pictures_of_the_others() -> None:
    held = held_keys(catalogue(MANY))
    of_each = {name: sum(key.startswith(f"{name}/") for key in held) for name in MANY}
    whole = [name for name, count in of_each.items() if count == 10]
    others = [count for count in of_each.values() if count < 10]
    assert len(whole) / len(MANY) == pytest.approx(0.1, abs=0.04)
    assert sum(others) / (10 * len(others)) == pytest.approx(0.2, abs=0.02)
    assert max(others) <= 8


@pytest.mark.parametrize("size", [1, 2])
def test_products_of_fewer_than_three_are_held_out_whole_or_not_at_all(size: int) -> None:
    sizes = dict.fromkeys(MANY, size)
    held = held_keys(catalogue(sizes))
    assert {sum(key.startswith(f"{name}/") for key in held) for name in sizes} == {0, size}


def test_two_pictures_of_a_product_always_stay_unless_it_is_held_out_whole() -> None:
    held = held_keys(catalogue(dict.fromkeys(MANY, 3)))
    assert {sum(key.startswith(f"{name}/") for key in held) for name in MANY} == {0, 1, 3}


def test_what_is_held_out_stays_so_as_pictures_and_products_come() -> None:
    before = held_keys(catalogue(MANY))
    grown = held_keys(catalogue({name: size + 5 for name, size in MANY.items()} | {"new": 20}))
    assert before <= grown
    assert {key for key in grown - before if not key.startswith("new/")} <= {
        f"{name}/{number}.jpg" for name in MANY for number in range(10, 15)
    }


def test_the_same_picture_under_two_keys_falls_on_one_side() -> None:
    pictures = catalogue(MANY)
    groups: list[str | None] = [f"{row // 2}" for row in range(len(pictures))]
    held = set(hold_out(pictures, groups).tolist())
    assert all((row in held) == (row + 1 in held) for row in range(0, len(pictures), 2))
