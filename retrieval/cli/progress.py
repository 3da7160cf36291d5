"""How far an indexing run is: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from retrieval.sync import Progress

if TYPE_CHECKING:
    import rich.progress

LINE_EVERY_S = 5.0


class ProgressLine:
    """Shows `Progress` on standard error; as a context manager it leaves a clean terminal behind."""

    def __init__(self) -> None:
        self._shown_s = time.monotonic()
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None

    def show(self, progress: Progress) -> None:
        """Show the state, as often as is of use to the reader."""
        if sys.stderr.isatty():
            self._show_bar(progress)
        elif time.monotonic() - self._shown_s >= LINE_EVERY_S:
            self._shown_s = time.monotonic()
            click.echo(f"{progress.done}/{progress.total} pictures, {_speed(progress)}", err=True)

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

    def _show_bar(self, progress: Progress) -> None:
        if self._bar is None or self._task is None:
            self._bar = _new_bar()
            self._task = self._bar.add_task("indexing", total=progress.total, speed="")
            self._bar.start()
        self._bar.update(self._task, completed=progress.done, speed=_speed(progress))


def _new_bar() -> "rich.progress.Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _speed(progress: Progress) -> str:
    speed = progress.done / progress.seconds if progress.seconds else 0.0
    left_s = (progress.total - progress.done) / speed if speed else 0.0
    return f"{speed:.0f} images/s, {left_s:.0f} s left, {progress.skipped} skipped"
