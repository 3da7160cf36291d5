"""How are a picture's bytes read, and why not?"""

import errno
import os
import stat

from retrieval.errors import PictureUnreadable

NOT_A_FILE = "a pipe, socket or device, not a file"

_WHY_UNREADABLE = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EISDIR: "is a folder",
    errno.ELOOP: "symlink loop",
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file",
    errno.ENXIO: NOT_A_FILE,  # opening a socket
}


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a picture's file; never blocks on a pipe.

    Raises:
        PictureUnreadable: with a plain reason: "permission denied", "broken symlink", "is a folder", ...
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
        try:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                raise PictureUnreadable("is a folder" if stat.S_ISDIR(mode) else NOT_A_FILE)
            with os.fdopen(handle, "rb", buffering=0, closefd=False) as file:
                return file.readall()
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise PictureUnreadable(why_unreadable(error, path)) from error


def why_unreadable(error: OSError | ValueError, path: str | os.PathLike[str]) -> str:
    """Say in plain words why a file could not be opened or examined."""
    if isinstance(error, FileNotFoundError) and os.path.islink(path):  # noqa: PTH114 - also takes undecodable names
        return "broken symlink"
    reason = _WHY_UNREADABLE.get(error.errno or 0) if isinstance(error, OSError) else None
    return reason or one_line(getattr(error, "strerror", None) or error)


def one_line(error: object) -> str:
    """An error's text without line breaks; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
