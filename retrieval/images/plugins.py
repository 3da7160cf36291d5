"""Which of Pillow's readers opens a format, and under which limit?"""

import functools
import importlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from PIL import Image

from retrieval.errors import PictureUndecodable

_PLUGINS = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
}


@functools.cache
def plugin(kind: str) -> Callable[[io.BytesIO], Image.Image]:
    """Find Pillow's reader of one format, imported when the first such picture comes.

    `Image.open` would check Pillow's own limit, and warn above it, before ours is looked at.

    Args:
        kind: a name that `headers.format_of` returns.

    Raises:
        PictureUndecodable: HEIC, and pillow-heif is not installed.
    """
    if kind != "HEIF":
        module, name = _PLUGINS[kind]
        return cast(Callable[[io.BytesIO], Image.Image], getattr(importlib.import_module(module), name))
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        remedy = "pip install 'retrieval-engine[heif]'"
        raise PictureUndecodable(f"HEIC needs pillow-heif, which is not installed ({remedy})") from error
    return cast(Callable[[io.BytesIO], Image.Image], HeifImageFile)


class _PillowLimit:
    """Raises Pillow's limit, a global of the process, while pictures below ours are decoded, and puts it back.

    Some plugins check it for frames, tiles and canvases after the header was read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: list[int] = []  # by the decodes under way
        self._before: int | None = None
        self._set: int | None = None

    @contextmanager
    def raised_to(self, pixels: int) -> Iterator[None]:
        """Let pictures of up to `pixels` pass until the block ends."""
        with self._lock:
            if not self._wanted:
                self._before = self._set = Image.MAX_IMAGE_PIXELS
            self._wanted.append(pixels)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._wanted.remove(pixels)
                self._apply()

    def _apply(self) -> None:
        if self._before is not None and self._set == Image.MAX_IMAGE_PIXELS:  # else somebody changed it: leave it
            self._set = Image.MAX_IMAGE_PIXELS = max(self._before, *self._wanted, 0)


pillow_limit = _PillowLimit()
