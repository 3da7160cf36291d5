import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from retrieval.errors import RetrievalError
from retrieval.report import sheet
from retrieval.report.sheet import SheetRow, contact_sheet, save_sheet

RED, GREEN, BLUE = (200, 30, 30), (30, 140, 30), (30, 30, 200)


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def saved(folder: Path, name: str, picture: Image.Image) -> Path:
    path = folder / name
    picture.save(path)
    return path


def extent(drawn: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right (exclusive) and bottom of everything that has exactly this colour."""
    box = Image.fromarray((np.asarray(drawn) == colour).all(axis=-1)).getbbox()
    assert box is not None, f"nothing is {colour}"
    return box


def is_drawn(drawn: Image.Image, colour: str) -> bool:
    wanted = tuple(bytes.fromhex(colour.removeprefix("#")))
    return bool((np.asarray(drawn) == wanted).all(axis=-1).any())


def test_hits_stand_right_of_their_query_and_are_set_off(tmp_path: Path) -> None:
    hit = saved(tmp_path, "hit.png", plain(BLUE))
    drawn = contact_sheet([SheetRow(plain(RED), [(hit, "0.9")])])
    gap = extent(drawn, BLUE)[0] - extent(drawn, RED)[2]
    assert gap == sheet.SET_OFF_PX + 2 * sheet.INSET_PX


def test_rows_stand_below_each_other_in_the_order_given() -> None:
    drawn = contact_sheet([SheetRow(plain(RED)), SheetRow(plain(BLUE))])
    assert extent(drawn, RED)[3] < extent(drawn, BLUE)[1]


def test_hits_keep_their_order(tmp_path: Path) -> None:
    first, second = saved(tmp_path, "1.png", plain(BLUE)), saved(tmp_path, "2.png", plain(GREEN))
    drawn = contact_sheet([SheetRow(plain(RED), [(first, "0.9"), (second, "0.8")])])
    assert extent(drawn, BLUE)[2] < extent(drawn, GREEN)[0]


def test_rows_may_have_different_numbers_of_hits(tmp_path: Path) -> None:
    hit = saved(tmp_path, "hit.png", plain(BLUE))
    one, three = ((SheetRow(plain(RED), [(hit, "0.9")] * count)) for count in (1, 3))
    assert contact_sheet([one, three]).width == contact_sheet([three]).width


def test_a_wide_picture_keeps_its_proportions() -> None:
    left, top, right, bottom = extent(contact_sheet([SheetRow(plain(RED, (400, 100)))]), RED)
    assert (right - left, bottom - top) == (sheet.TILE_PX - 2 * sheet.INSET_PX, 38)  # 152 / 4


def test_a_small_picture_is_enlarged_to_the_tile() -> None:
    left, top, right, bottom = extent(contact_sheet([SheetRow(plain(RED, (2, 2)))]), RED)
    assert (right - left, bottom - top) == (152, 152)


def test_a_picture_one_pixel_high_is_drawn() -> None:
    left, _, right, _ = extent(contact_sheet([SheetRow(plain(RED, (5000, 1)))]), RED)
    assert right - left == 152


@pytest.mark.parametrize("content", [None, b"", b"no picture"], ids=["missing", "empty", "text"])
def test_an_unreadable_hit_becomes_a_placeholder(tmp_path: Path, content: bytes | None) -> None:
    broken = tmp_path / "broken.jpg"
    if content is not None:
        broken.write_bytes(content)
    drawn = contact_sheet([SheetRow(plain(RED), [(broken, "0.9")])])
    assert is_drawn(drawn, sheet.BROKEN)


def test_a_hit_without_a_file_becomes_a_placeholder() -> None:
    assert is_drawn(contact_sheet([SheetRow(plain(RED), [(None, "0.9\nsku-1")])]), sheet.BROKEN)


def test_an_unreadable_query_does_not_hide_its_hits(tmp_path: Path) -> None:
    hit = saved(tmp_path, "hit.png", plain(BLUE))
    drawn = contact_sheet([SheetRow(tmp_path / "gone.png", [(hit, "0.9")])])
    assert is_drawn(drawn, sheet.BROKEN)
    assert extent(drawn, BLUE)


def test_the_placeholder_says_which_picture_and_why(tmp_path: Path) -> None:
    rows = [[SheetRow(plain(RED), [(tmp_path / name, "")])] for name in ("gone.png", "lost.png")]
    assert contact_sheet(rows[0]).tobytes() != contact_sheet(rows[1]).tobytes()


def test_a_truncated_picture_shows_what_there_is(tmp_path: Path) -> None:
    whole = saved(tmp_path, "half.jpg", Image.effect_noise((200, 200), 80).convert("RGB"))
    whole.write_bytes(whole.read_bytes()[:-2000])
    assert not is_drawn(contact_sheet([SheetRow(whole)]), sheet.BROKEN)


def test_a_query_without_hits_says_so() -> None:
    drawn = np.asarray(contact_sheet([SheetRow(plain(RED))]))
    beside = drawn[sheet.MARGIN_PX : sheet.MARGIN_PX + sheet.TILE_PX, sheet.MARGIN_PX + sheet.TILE_PX + 1 :]
    assert (beside != 255).any()


def test_no_rows_is_an_error() -> None:
    with pytest.raises(RetrievalError, match="at least one query"):
        contact_sheet([])


def test_a_sheet_beyond_the_limit_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(RetrievalError, match=r"a contact sheet of 9000 queries .* the limit is 250 MP: give fewer"):
        contact_sheet([SheetRow(plain(RED))] * 9000)


def test_a_long_caption_stays_in_its_column(tmp_path: Path) -> None:
    hit = saved(tmp_path, "hit.png", plain(BLUE))
    drawn = np.asarray(contact_sheet([SheetRow(plain(RED), [(hit, "W" * 5000)], caption="W" * 5000)]))
    gap = slice(sheet.MARGIN_PX + sheet.TILE_PX + 1, sheet.MARGIN_PX + sheet.TILE_PX + sheet.SET_OFF_PX - 1)
    assert (drawn[:, gap] == 255).all()
    assert (drawn[:, -sheet.MARGIN_PX + 1 :] == 255).all()


def test_a_long_key_keeps_both_its_ends() -> None:
    font = ImageFont.load_default(sheet.FONT_PX)
    short = sheet._shortened("shoes/" + "x" * 200 + "/red-007.jpg", font)
    assert re.fullmatch(r"shoes/x+…x*/red-007\.jpg", short)
    assert font.getlength(short) <= sheet.TILE_PX < font.getlength(short.replace("…", "xx…"))


def test_a_newline_in_a_name_or_key_does_not_break_the_layout(tmp_path: Path) -> None:
    odd = saved(tmp_path, "a\nb.png", plain(RED))
    strange, ordinary = (contact_sheet([SheetRow(odd, [(odd, f"0.9\n{key}")])]) for key in ("a\nb.png", "ab.png"))
    assert strange.size == ordinary.size


@pytest.mark.parametrize(
    ("name", "file_format"), [("s.png", "PNG"), ("s.JPG", "JPEG"), ("s.jpeg", "JPEG"), ("s.webp", "WEBP")]
)
def test_the_suffix_says_the_format(tmp_path: Path, name: str, file_format: str) -> None:
    save_sheet([SheetRow(plain(RED))], tmp_path / name)
    with Image.open(tmp_path / name) as written:
        assert written.format == file_format


@pytest.mark.parametrize("name", ["sheet", "sheet.txt", "sheet.png.bak"])
def test_another_suffix_is_refused_with_those_that_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(RetrievalError, match=r"use one of \.jpeg, \.jpg, \.png, \.webp$"):
        save_sheet([SheetRow(plain(RED))], tmp_path / name)


def test_a_saved_sheet_leaves_nothing_else_behind(tmp_path: Path) -> None:
    save_sheet([SheetRow(plain(RED))], tmp_path / "sheet.png")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_a_failed_save_keeps_the_sheet_that_was_there(tmp_path: Path) -> None:
    target = tmp_path / "sheet.webp"
    save_sheet([SheetRow(plain(RED))], target)
    before = target.read_bytes()
    with pytest.raises(RetrievalError, match=r"WEBP holds at most 16383 a side: write a \.png"):
        save_sheet([SheetRow(plain(RED))] * 80, target)
    assert target.read_bytes() == before


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match=r"cannot write the contact sheet .*gone/sheet\.png: No such file"):
        save_sheet([SheetRow(plain(RED))], tmp_path / "gone" / "sheet.png")
