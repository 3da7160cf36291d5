"""What did each query find? Contact sheets: a row for each query, set off at the left, its hits beside it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from retrieval import images
from retrieval.errors import PictureError, RetrievalError
from retrieval.report.writing import written_whole

TILE_PX = 168
INSET_PX = 8  # between a tile's frame and its picture
GAP_PX = 14  # between neighbouring tiles
SET_OFF_PX = 48  # between the query and its first hit
MARGIN_PX = 28
CAPTION_GAP_PX = 8
FONT_PX = 14
LINE_PX = 19
RADIUS_PX = 6

PAPER, PANEL, FRAME, RULE = "#ffffff", "#dfe6f1", "#d3dae4", "#e6e9ee"
INK, PALE_INK = "#1c2530", "#66717f"
BROKEN, BROKEN_FRAME, BROKEN_INK = "#fcf3f0", "#ecd0c8", "#9b3a26"
PLACEHOLDER_LINES = 6  # of TILE_PX / LINE_PX = 8

MAX_PIXELS = 250_000_000  # 0.75 GB in memory; about 1,000 queries with five hits each
FORMATS = {".jpeg": "JPEG", ".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
MAX_SIDE_PX = {"JPEG": 65_500, "PNG": MAX_PIXELS, "WEBP": 16_383}  # JPEG_MAX_DIMENSION, WEBP_MAX_DIMENSION
QUALITY = 90  # of JPEG and WebP: text stays clean

LENIENT = images.DecodeLimits(allow_truncated=True)  # half a picture says more than a placeholder

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class SheetRow:
    r"""One query and what it found.

    Attributes:
        query: the query picture, as a path, an image, or a file's bytes.
        hits: best first: a hit as a path or an image (None if it has no file) and its caption. A caption is one line or
            two, of which the first stands out ("0.873\nshoes/red.jpg"); a line that is too long loses its middle.
        caption: the query's caption; None stands for its file name.
    """

    query: str | Path | bytes | Image.Image
    hits: Sequence[tuple[str | Path | Image.Image | None, str]] = field(default_factory=tuple)
    caption: str | None = None


def contact_sheet(rows: Sequence[SheetRow]) -> Image.Image:
    """Draw queries and their hits on white, every picture letterboxed in a tile of `TILE_PX`.

    A picture that cannot be shown becomes a placeholder that names it and the reason.

    Args:
        rows: one a query, at least one.

    Returns:
        An RGB image.

    Raises:
        RetrievalError: there is no row, or the sheet would have more than `MAX_PIXELS`.
    """
    if not rows:
        raise RetrievalError("a contact sheet needs at least one query, there are none")
    cells = [_cells(row) for row in rows]
    width, height = _size_px(cells)
    if width * height > MAX_PIXELS:
        raise RetrievalError(
            f"a contact sheet of {len(rows)} queries would have {width * height / 1e6:.0f} MP, "
            f"the limit is {MAX_PIXELS / 1e6:.0f} MP: give fewer queries or a smaller k"
        )
    sheet = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_PX)
    top = MARGIN_PX
    for number, row in enumerate(cells):
        if number:
            draw.line((MARGIN_PX, top - MARGIN_PX // 2, width - MARGIN_PX, top - MARGIN_PX // 2), fill=RULE)
        for column, cell in enumerate(row):
            _draw_cell(sheet, draw, font, (_left_px(column), top), cell)
        if len(row) == 1:
            middle = (_left_px(1), top + TILE_PX // 2)
            draw.text(middle, "no hits", fill=PALE_INK, font=font, anchor="lm")
        top += _row_height_px(row)
    return sheet


def save_sheet(rows: Sequence[SheetRow], path: str | os.PathLike[str]) -> None:
    """Write a contact sheet; the file appears whole or not at all.

    Args:
        rows: see `contact_sheet`.
        path: the file; its suffix says the format: .png, .jpg, .jpeg or .webp.

    Raises:
        RetrievalError: the suffix is another one, the sheet is too large for the format, or the file cannot be
            written.
    """
    target, file_format = Path(path), sheet_format(path)
    sheet, limit = contact_sheet(rows), MAX_SIDE_PX[file_format]
    if max(sheet.size) > limit:
        raise RetrievalError(
            f"the contact sheet {target} would be {sheet.width} x {sheet.height} pixels, {file_format} holds at most "
            f"{limit} a side: write a .png or give fewer queries"
        )
    with written_whole(target, "the contact sheet") as aside:
        sheet.save(aside, format=file_format, quality=QUALITY)


def sheet_format(path: str | os.PathLike[str]) -> str:
    """The format that a contact sheet's suffix says, as Pillow calls it.

    Raises:
        RetrievalError: it is none of `FORMATS`.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in FORMATS:
        raise RetrievalError(
            f"cannot write a contact sheet to {os.fspath(path)}: its suffix is {suffix or 'missing'}, "
            f"use one of {', '.join(sorted(FORMATS))}"
        )
    return FORMATS[suffix.lower()]


def hits_within(width_px: int) -> int:
    """How many hits there is room for beside a query, at least one."""
    return max(1, (width_px - MARGIN_PX - _left_px(1) + GAP_PX) // (TILE_PX + GAP_PX))


class _Cell(NamedTuple):
    picture: str | Path | bytes | Image.Image | None
    lines: list[str]
    is_query: bool


def _cells(row: SheetRow) -> list[_Cell]:
    if row.caption is not None:
        lines = _lines(row.caption)
    else:
        lines = [Path(row.query).name if isinstance(row.query, str | Path) else "query"]
    return [_Cell(row.query, lines, True), *(_Cell(picture, _lines(text), False) for picture, text in row.hits)]


def _lines(caption: str) -> list[str]:
    return caption.split("\n", 1)  # keys may hold newlines of their own


def _left_px(column: int) -> int:
    return MARGIN_PX + column * (TILE_PX + GAP_PX) + (SET_OFF_PX - GAP_PX if column else 0)


def _row_height_px(row: list[_Cell]) -> int:
    return TILE_PX + CAPTION_GAP_PX + LINE_PX * max(len(cell.lines) for cell in row) + MARGIN_PX


def _size_px(cells: list[list[_Cell]]) -> tuple[int, int]:
    columns = max(2, *(len(row) for row in cells), 2)  # a query without hits leaves room for saying so
    return _left_px(columns - 1) + TILE_PX + MARGIN_PX, MARGIN_PX + sum(map(_row_height_px, cells))


def _draw_cell(sheet: Image.Image, draw: ImageDraw.ImageDraw, font: Font, corner: tuple[int, int], cell: _Cell) -> None:
    left, top = corner
    tile = (left, top, left + TILE_PX - 1, top + TILE_PX - 1)
    try:
        picture = _fitted(cell.picture)
    except PictureError as error:
        draw.rounded_rectangle(tile, RADIUS_PX, fill=BROKEN, outline=BROKEN_FRAME)
        _draw_reason(draw, font, corner, _name(cell), str(error))
    else:
        draw.rounded_rectangle(tile, RADIUS_PX, fill=PANEL if cell.is_query else PAPER, outline=FRAME)
        sheet.paste(picture, (left + (TILE_PX - picture.width) // 2, top + (TILE_PX - picture.height) // 2))
    for number, line in enumerate(cell.lines):
        baseline = top + TILE_PX + CAPTION_GAP_PX + number * LINE_PX
        draw.text((left, baseline), _shortened(line, font), fill=PALE_INK if number else INK, font=font)


def _fitted(picture: str | Path | bytes | Image.Image | None) -> Image.Image:
    """The picture in RGB, scaled to touch the tile's inset; small ones are enlarged, so that all are seen alike."""
    if picture is None:
        raise PictureError("has no file")
    room = TILE_PX - 2 * INSET_PX
    pixels = Image.fromarray(images.decode(picture, min_side_px=room, limits=LENIENT))
    scale = room / max(pixels.size)
    size = (max(1, round(pixels.width * scale)), max(1, round(pixels.height * scale)))
    return pixels.resize(size, Image.Resampling.LANCZOS)


def _name(cell: _Cell) -> str:
    if isinstance(cell.picture, str | Path):
        return Path(cell.picture).name
    return cell.lines[-1] if cell.lines else "picture"


def _draw_reason(draw: ImageDraw.ImageDraw, font: Font, corner: tuple[int, int], name: str, reason: str) -> None:
    room = TILE_PX - 2 * INSET_PX
    lines = [_shortened(name, font, room), *_wrapped(reason, font, room)][:PLACEHOLDER_LINES]
    middle, top = corner[0] + TILE_PX // 2, corner[1] + (TILE_PX - LINE_PX * len(lines)) // 2
    for number, line in enumerate(lines):
        ink = BROKEN_INK if number else INK
        draw.text((middle, top + number * LINE_PX), line, fill=ink, font=font, anchor="ma")


def _wrapped(text: str, font: Font, room_px: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= room_px:
            lines[-1] = longer
        else:
            lines.append(_shortened(word, font, room_px))
    return lines


def _shortened(text: str, font: Font, room_px: int = TILE_PX) -> str:
    """The text, or as much of its two ends as fits: names differ at the end, folders at the beginning."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    if font.getlength(text) <= room_px:
        return text
    kept = min(len(text) - 1, room_px // 2)  # no letter is narrower than 2 px: long keys stay quick
    while kept > 1 and font.getlength(_ends(text, kept)) > room_px:
        kept -= 1
    return _ends(text, kept)


def _ends(text: str, kept: int) -> str:
    return f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
