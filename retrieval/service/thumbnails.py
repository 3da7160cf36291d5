"""How do pictures become small for a page? Decoded once, and kept as long as there is room."""

import io
import threading
from collections import OrderedDict

from PIL import Image

from retrieval.images import DecodeLimits, decode, read_bytes
from retrieval.records import Box
from retrieval.results import IndexedPicture

SIDES_PX = (64, 1024)
_QUALITY = 82


class Thumbnails:
    """Small JPEGs of indexed pictures; safe in several threads.

    Args:
        limits: which pictures are too large.
        most_bytes: that are kept.
    """

    def __init__(self, limits: DecodeLimits, most_bytes: int) -> None:
        self._limits, self._most_bytes = limits, most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, Box | None, int], bytes] = OrderedDict()
        self._bytes = 0

    def of(self, picture: IndexedPicture, side_px: int) -> bytes:
        """A JPEG of a picture, or of its box, that fits into a square.

        Raises:
            PictureError: its file cannot be used (any more).
        """
        name = picture.content_hash, picture.box, side_px
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        small = self._made(picture, side_px)
        with self._lock:
            if name not in self._kept:
                self._kept[name] = small
                self._bytes += len(small)
            while self._bytes > self._most_bytes:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return small

    def _made(self, picture: IndexedPicture, side_px: int) -> bytes:
        content = read_bytes(picture.path)
        pixels = decode(content, min_side_px=side_px, box=picture.box, limits=self._limits)
        image = Image.fromarray(pixels)
        image.thumbnail((side_px, side_px), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=_QUALITY)
        return buffer.getvalue()
