"""How does a path, bytes, an array or a Pillow image become an upright RGB picture?"""

import io
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import PictureError, PictureTooLarge, PictureUndecodable
from retrieval.files import one_line, read_bytes
from retrieval.images.headers import JpegHeader, exif_orientation, format_of, jpeg_header
from retrieval.images.pixels import box_in_pixels, crop, rgb_of_array, rgb_of_image, upright
from retrieval.images.plugins import pillow_limit, plugin
from retrieval.records import Box

TRUNCATED = "truncated JPEG (pass --allow-truncated to index what decodes)"
_RAISE_IT = "(raise it with --max-megapixels)"

# Eighths of the full size that libjpeg-turbo is asked for: those it has vector code for. The others save little or
# nothing with the resize that follows (a square of 2 megapixels, 4:2:0, both, ms: 3/8 11.6, 4/8 12.2; 5/8 17.2,
# 6/8 20.7, 7/8 26.3, 8/8 22.3), and the next larger is closer to the whole picture.
_JPEG_EIGHTHS = (1, 2, 4, 8)

_END_OF_JPEG = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a picture may be before it is set aside.

    Attributes:
        max_megapixels: checked against the header, before anything is decoded.
        allow_truncated: decode what is there of a JPEG that breaks off; the rest is grey.
    """

    max_megapixels: float = 100.0
    allow_truncated: bool = False


DEFAULT_LIMITS = DecodeLimits()


def decode(
    source: str | os.PathLike[str] | bytes | NDArray[Any] | Image.Image,
    *,
    min_side_px: int | None = None,
    box: Box | None = None,
    limits: DecodeLimits = DEFAULT_LIMITS,
    notes: list[str] | None = None,
) -> NDArray[np.uint8]:
    """Decode a picture: orientation applied, alpha on white, the first frame of an animation.

    Safe to call from many threads; the decoders release the GIL.

    Args:
        source: a path, a file's bytes, an array ((H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey, uint8; taken to be
            upright) or a Pillow image.
        min_side_px: a JPEG may be decoded at a smaller scale as long as its shorter side (the box's, where one is
            given) keeps this many pixels; None decodes at full size.
        box: the part to keep, in the full-size upright picture; clipped to it.
        limits: what is too large, and whether a truncated JPEG will do.
        notes: gets a line appended when only a part of the picture could be decoded.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous and writeable; may share memory with an array given as `source`.

    Raises:
        PictureUnreadable: the file's bytes could not be read.
        PictureTooLarge: it has more pixels than `limits` allows.
        PictureUndecodable: it is no picture, is damaged, or the box shows nothing of it.
        TypeError: `source` is none of the kinds above.
    """
    if not isinstance(source, bytes | bytearray | memoryview | np.ndarray | Image.Image):
        source = read_bytes(source)
    try:
        if isinstance(source, np.ndarray):
            pixels = _cut(rgb_of_array(source), box)
        elif isinstance(source, Image.Image):
            with pillow_limit.raised_to(_max_pixels(limits)):
                pixels = _decode_image(source, box, limits)
        else:
            pixels = _decode_bytes(bytes(source), min_side_px, box, limits, notes)
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureTooLarge(f"a frame is larger than its header says, {_limit_in_words(limits)}") from error
    except MemoryError as error:
        raise PictureUndecodable("needs more memory than there is (lower --max-megapixels or --threads)") from error
    except Exception as error:  # hostile bytes make decoders raise nearly anything; the reason is kept and reported
        raise PictureUndecodable(f"damaged: {one_line(error)}") from error
    return np.require(pixels, np.uint8, ["C_CONTIGUOUS", "WRITEABLE"])


def may_pass_now(reason: str, limits: DecodeLimits) -> bool:
    """Whether a picture that was refused for `reason`, under limits of then, may pass these."""
    if reason == TRUNCATED:
        return limits.allow_truncated
    return reason.endswith(_RAISE_IT) and not reason.endswith(_limit_in_words(limits))


def _decode_bytes(
    data: bytes, min_side_px: int | None, box: Box | None, limits: DecodeLimits, notes: list[str] | None
) -> NDArray[np.uint8]:
    if not data:
        raise PictureUndecodable("empty file")
    kind = format_of(data[:256])
    if kind is None:
        raise PictureUndecodable("not a picture (unknown format)")
    if kind == "JPEG":
        return _decode_jpeg(data, min_side_px, box, limits, notes)
    try:
        with pillow_limit.raised_to(_max_pixels(limits)):
            return _decode_image(plugin(kind)(io.BytesIO(data)), box, limits)
    except (SyntaxError, OSError) as error:
        if "truncated" in str(error).lower():
            raise PictureUndecodable(f"truncated {kind}") from error
        raise PictureUndecodable(f"damaged {kind}: {one_line(error)}") from error


def _decode_image(image: Image.Image, box: Box | None, limits: DecodeLimits) -> NDArray[np.uint8]:
    _check_size(*image.size, limits)  # the header's: nothing is decoded yet
    pixels = rgb_of_image(image)
    exif = image.info.get("exif")  # asked after decoding: a PNG's may stand behind the pixels
    return _cut(upright(pixels, exif_orientation(exif) if isinstance(exif, bytes) else 1), box)


def _decode_jpeg(
    data: bytes, min_side_px: int | None, box: Box | None, limits: DecodeLimits, notes: list[str] | None
) -> NDArray[np.uint8]:
    header = jpeg_header(data)
    if header is None:
        raise PictureUndecodable("truncated or damaged JPEG: its header is not whole")
    width, height = header.width, header.height
    _check_size(width, height, limits)
    if header.orientation >= 5:
        width, height = height, width
    area = box_in_pixels(box, width, height) if box else None
    shorter = min(area.width, area.height) if area else min(width, height)
    pixels, scale = _jpeg_pixels(data, header, _eighths(shorter, min_side_px), limits, notes)
    pixels = upright(pixels, header.orientation)
    return crop(pixels, area, scale) if area else pixels


def _jpeg_pixels(
    data: bytes, header: JpegHeader, eighths: int, limits: DecodeLimits, notes: list[str] | None
) -> tuple[NDArray[np.uint8], float]:
    """Decode with libjpeg-turbo, or with Pillow what that refuses: CMYK, junk between segments.

    Returns:
        (H, W, 3) as stored, and its scale.
    """
    is_truncated = False
    try:
        if header.components != 4:  # Pillow knows Adobe's inverted CMYK
            wanted = {"min_height": _scaled(header.height, eighths), "min_width": _scaled(header.width, eighths)}
            return simplejpeg.decode_jpeg(data, "RGB", **wanted), eighths / 8
    except ValueError as error:
        is_truncated = "premature end" in str(error).lower()
    try:
        if not is_truncated:
            return _jpeg_pixels_by_pillow(data, eighths)
    except OSError as error:
        if "truncated" not in str(error).lower():
            raise
    if not limits.allow_truncated:
        raise PictureUndecodable(TRUNCATED)
    if notes is not None:
        notes.append("truncated JPEG: only what decodes is used")
    return _jpeg_pixels_by_pillow(data + _END_OF_JPEG, eighths)  # what Pillow's LOAD_TRUNCATED_IMAGES does, but local


def _jpeg_pixels_by_pillow(data: bytes, eighths: int) -> tuple[NDArray[np.uint8], float]:
    image: Image.Image = plugin("JPEG")(io.BytesIO(data))
    longer = max(image.size)
    image.draft(None, (_scaled(image.size[0], eighths), _scaled(image.size[1], eighths)))  # to 1/1, 1/2, 1/4 or 1/8
    return rgb_of_image(image), 1 / round(longer / max(image.size))


def _cut(pixels: NDArray[np.uint8], box: Box | None) -> NDArray[np.uint8]:
    if box is None:
        return pixels
    return crop(pixels, box_in_pixels(box, pixels.shape[1], pixels.shape[0]), 1.0)


def _eighths(shorter_px: float, min_side_px: int | None) -> int:
    """The smallest scale, in eighths, that leaves the shorter side at least `min_side_px`."""
    if min_side_px is None:
        return 8
    return next((eighths for eighths in _JPEG_EIGHTHS if shorter_px * eighths >= 8 * min_side_px), 8)


def _scaled(side_px: int, eighths: int) -> int:
    return math.ceil(side_px * eighths / 8)  # as libjpeg rounds


def _max_pixels(limits: DecodeLimits) -> int:
    return int(limits.max_megapixels * 1e6)


def _limit_in_words(limits: DecodeLimits) -> str:
    return f"the limit is {limits.max_megapixels:g} MP {_RAISE_IT}"


def _check_size(width: int, height: int, limits: DecodeLimits) -> None:
    if width * height > _max_pixels(limits):
        megapixels = width * height / 1e6
        raise PictureTooLarge(f"{megapixels:.1f} MP, {_limit_in_words(limits)}")
    if not (width and height):
        raise PictureUndecodable(f"damaged: the header says {width}x{height} pixels")
