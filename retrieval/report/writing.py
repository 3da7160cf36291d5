"""How does a file appear whole or not at all?"""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from retrieval.errors import RetrievalError


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str], what: str) -> Iterator[Path]:
    """Hand out a file to write, and put it in place of `path` when all is written.

    Args:
        path: what was there stays until then, and for good if anything fails. A link stays one; what is no regular
            file, such as a pipe, is written into.
        what: with its article, for the message: "the report".

    Yields:
        A path of another file.

    Raises:
        RetrievalError: it cannot be written.
    """
    try:
        if _is_special(path):
            with tempfile.TemporaryDirectory(prefix="retrieve-") as folder:
                aside = Path(folder) / "whole"
                yield aside
                with aside.open("rb") as written, Path(path).open("wb") as sink:
                    shutil.copyfileobj(written, sink)
            return
        target = Path(os.path.realpath(path))
        aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            yield aside
            aside.replace(target)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise RetrievalError(f"cannot write {what} {os.fspath(path)}: {reason}; choose another file") from error


def _is_special(path: str | os.PathLike[str]) -> bool:
    """Whether something is there, and no regular file."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except FileNotFoundError:
        return False
