"""How does a file appear whole or not at all?"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from retrieval.errors import RetrievalError


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str], what: str) -> Iterator[Path]:
    """Hand out a file to write, and put it in place of `path` when all is written.

    Args:
        path: what was there stays until then, and for good if anything fails.
        what: with its article, for the message: "the report".

    Yields:
        A path in the same folder.

    Raises:
        RetrievalError: it cannot be written.
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield aside
        aside.replace(target)
    except OSError as error:
        reason = error.strerror or error
        raise RetrievalError(f"cannot write {what} {target}: {reason}; choose another file") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
