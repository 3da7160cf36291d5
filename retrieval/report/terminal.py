"""What did each query find, for people at a terminal? Pictures between the lines, by kitty's protocol or Sixel."""

import logging
import sys

from retrieval.errors import RetrievalError
from retrieval.report.sheet import SheetRow, contact_sheet, hits_within

_COLUMN_PX = 10  # of a sheet, that a column of the terminal shows; where its letters are larger, pictures are too


def check_terminal() -> None:
    """Raise where no terminal is there to show pictures.

    Raises:
        RetrievalError: standard input or output is none.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise RetrievalError(
            "--show asks the terminal what it can draw, and standard input or output is no terminal; "
            "write a file with --sheet or --html"
        )


def show(row: SheetRow) -> None:
    """Draw a query and as many of its hits as are seen side by side; in half blocks where a terminal has no better."""
    from rich.console import Console

    logging.getLogger("textual_image").setLevel(logging.ERROR)  # terminals that do not say how large their letters are
    from textual_image.renderable import Image  # asks the terminal, and waits for its answer a tenth of a second

    console = Console()
    sheet = contact_sheet([SheetRow(row.query, row.hits[: hits_within(console.width * _COLUMN_PX)], row.caption)])
    console.print(Image(sheet, width=min(console.width, sheet.width // _COLUMN_PX), height="auto"))
