"""How far a long run is: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

if TYPE_CHECKING:
    import rich.progress

LINE_EVERY_S = 5.0


class ProgressLine:
    """Shows how far a run is on standard error; as a context manager it leaves a clean terminal behind.

    Args:
        shows_time_left: the bar says when its end will be reached.
    """

    def __init__(self, *, shows_time_left: bool = False) -> None:
        self._shows_time_left = shows_time_left
        self._shown_s = time.monotonic()
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None

    def show(self, title: str, done: int, total: int, told: str, *, line_title: str = "") -> None:
        """Show the state, as often as is of use to the reader.

        Args:
            title: what the bar is about.
            done, total: pictures.
            told: all else, behind the counts.
            line_title: what a line begins with.
        """
        if sys.stderr.isatty():
            self._show_bar(title, done, total, told)
        elif time.monotonic() - self._shown_s >= LINE_EVERY_S:
            self._shown_s = time.monotonic()
            click.echo(f"{line_title}{done}/{total} pictures, {told}", err=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _show_bar(self, title: str, done: int, total: int, told: str) -> None:
        if self._bar is None or self._task is None:
            self._bar = _new_bar(self._shows_time_left)
            self._task = self._bar.add_task(title, total=total, told="")
            self._bar.start()
        self._bar.update(self._task, description=title, completed=done, total=total, told=told)


def _new_bar(shows_time_left: bool) -> "rich.progress.Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        *([TimeRemainingColumn()] if shows_time_left else []),
        console=Console(stderr=True),
        transient=True,
    )
