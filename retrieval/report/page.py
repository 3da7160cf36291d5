"""What are the HTML reports made of? Pages, cards, tables and pictures that need nothing from elsewhere."""

import base64
import io
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval import images
from retrieval.errors import PictureError
from retrieval.records import Box
from retrieval.report.style import STYLE
from retrieval.report.writing import written_whole
from retrieval.results import Failure, Sighting

THUMBNAIL_PX = 192  # shown at half of that a side: sharp on dense screens
LENIENT = images.DecodeLimits(allow_truncated=True)  # half a picture says more than a placeholder


class Span(NamedTuple):
    """A part of a card's bar: from `low` to `high`, both in [0, 1]; `kind` is a class of the style sheet."""

    low: float
    high: float
    kind: str = "range"


def whole_page(title: str, sections: Iterable[str]) -> str:
    """A page; sections that are empty are left out."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, sections))
        + "\n</main>\n</body>\n</html>\n"
    )


def save_page(page: str, path: str | os.PathLike[str]) -> None:
    """Write a page; the file appears whole or not at all.

    Raises:
        RetrievalError: it cannot be written.
    """
    with written_whole(path, "the report") as aside:
        aside.write_bytes(page.encode("utf-8", "backslashreplace"))  # file names need not be UTF-8


def card(title: str, value: str, spans: Iterable[Span], caption: str) -> str:
    """A figure in large type over a bar of 0 to 1."""
    bar = "".join(
        f'<i class="{span.kind}" style="left:{100 * span.low:.2f}%;width:{_width(span):.2f}%"></i>' for span in spans
    )
    return (
        f'<div class="card"><h2>{escape(title)}</h2><strong>{escape(value)}</strong>'
        f'<div class="bar">{bar}</div><span>{escape(caption)}</span></div>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, is_text: bool = False) -> str:
    """A table that scrolls by itself where the page is narrow; text stands at the left, numbers at the right."""
    kind = ' class="text"' if is_text else ""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table{kind}><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def failures_section(failures: Iterable[Failure]) -> str:
    """Queries, their wrong first hits and the best of what should have come first, as pictures."""
    return (
        '<section><h2>Hardest failures</h2><p class="note">Queries whose first hit is wrong, the most confident first: '
        'query, first hit, best picture of the right product.</p><div class="failures">'
        + "".join(map(_failure, failures))
        + "</div></section>"
    )


def captioned(
    kind: str,
    source: str | bytes | NDArray[np.uint8],
    label: str,
    place: str,
    *,
    name: str | None = None,
    box: Box | None = None,
) -> str:
    """A picture over two lines of text; one that cannot be shown becomes a placeholder with the reason.

    Args:
        kind: a class of the style sheet: "query", "wrong", "right" or "".
        source: a path, a file's bytes, or (H, W, 3) uint8.
        label: the line that stands out; "" leaves out both.
        place: the line below.
        name: what the picture is called; None stands for the last part of the path, or `label`.
        box: the part to show.
    """
    if name is None:
        name = Path(source).name if isinstance(source, str) else label
    try:
        shown = f'<img src="{_thumbnail(source, box)}" alt="{escape(name)}">'
    except PictureError as error:
        shown = f'<div class="gone">{escape(f"{name}: {error}")}</div>'
    caption = f"<figcaption><b>{_breakable(label)}</b>{_breakable(place)}</figcaption>" if label else ""
    return f'<figure class="{kind}" title="{escape(name)}">{shown}{caption}</figure>'


def chart(png: bytes, says: str) -> str:
    """A chart that was drawn on white; the style sheet turns it dark where the page is."""
    return f'<img class="chart" src="{_data_url("png", png)}" alt="{escape(says)}">'


def _breakable(name: str) -> str:
    return escape(name).replace("/", "/<wbr>")  # paths break behind a folder first


def _width(span: Span) -> float:
    return max(100 * (span.high - span.low), 0.8)  # what is there is seen


def _failure(failure: Failure) -> str:
    query = captioned("query", failure.path, failure.label, "query", name=failure.key, box=failure.box)
    return f'<div class="failure">{query}{_sighting("wrong", failure.hit)}{_sighting("right", failure.positive)}</div>'


def _sighting(kind: str, seen: Sighting) -> str:
    place = f"rank {seen.rank:,}, score {seen.score:.3f}"
    return captioned(kind, seen.path, seen.label, place, name=seen.key, box=seen.box)


def _thumbnail(source: str | bytes | NDArray[np.uint8], box: Box | None) -> str:
    picture = Image.fromarray(images.decode(source, min_side_px=THUMBNAIL_PX, box=box, limits=LENIENT))
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return _data_url("jpeg", buffer.getvalue())


def _data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
