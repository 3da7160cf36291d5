"""How do pixels of any colour mode become upright RGB?"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import PictureUndecodable
from retrieval.records import Box

_WHITE = (255, 255, 255)


def rgb_of_image(image: Image.Image) -> NDArray[np.uint8]:
    """Turn a Pillow image of any mode into RGB: alpha on white, wide greys scaled, not clipped.

    Args:
        image: its first frame is taken where it has several and none was chosen.

    Returns:
        (H, W, 3) uint8, as stored (orientation not applied), possibly read-only.

    Raises:
        PictureUndecodable: the mode cannot be shown as RGB (LAB).
    """
    image.load()
    if image.mode.startswith("I;16"):
        return _grey(_scaled_16_bit(np.asarray(image)))
    if image.mode in ("I", "F"):
        return _grey(_scaled_open_range(np.asarray(image)))
    if image.has_transparency_data:  # RGBA, LA, PA, and palettes or colours declared transparent
        return np.asarray(_on_white(image if image.mode == "RGBA" else image.convert("RGBA")))
    if image.mode == "LAB":
        raise PictureUndecodable("colour mode LAB is not supported; save it as RGB")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def rgb_of_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn an array into RGB.

    Args:
        array: (H, W, 3) RGB, (H, W, 4) RGBA (composited on white) or (H, W) grey, uint8.

    Returns:
        (H, W, 3) uint8; may share memory with `array`.

    Raises:
        PictureUndecodable: another shape or type, or no pixels at all.
    """
    is_grey = array.ndim == 2
    if array.dtype != np.uint8 or not (is_grey or (array.ndim == 3 and array.shape[2] in (3, 4))) or not array.size:
        shape = "x".join(map(str, array.shape)) or "scalar"
        raise PictureUndecodable(
            f"array is {shape} {array.dtype}; pass height x width (x 3 or x 4) uint8, not channels first or floats"
        )
    if is_grey:
        return _grey(array)
    if array.shape[2] == 4:
        return np.asarray(_on_white(Image.fromarray(array)))
    return array


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply an EXIF orientation.

    Args:
        pixels: (H, W, 3) as stored.
        orientation: 1 to 8.

    Returns:
        A view, (H, W, 3), or (W, H, 3) for 5 to 8.
    """
    if orientation >= 5:  # 5 to 8 are 1, 4, 2, 3 of the transposed picture
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return pixels[rows, columns]


def box_in_pixels(box: Box, width: int, height: int) -> Box:
    """Clip a box to an upright picture of `width` x `height` pixels.

    Returns:
        The box in pixels, with an area, inside the picture.

    Raises:
        PictureUndecodable: nothing of the picture lies in the box.
    """
    across, down = (width, height) if box.is_relative else (1, 1)
    left, top = max(box.x * across, 0.0), max(box.y * down, 0.0)
    right, bottom = min((box.x + box.width) * across, width), min((box.y + box.height) * down, height)
    if not (left < right and top < bottom):  # so written that NaN fails, too
        values = ",".join(f"{value:g}" for value in box[:4])
        unit = " (fractions)" if box.is_relative else ""
        raise PictureUndecodable(f"box {values}{unit} shows nothing of the {width}x{height} picture; correct the box")
    return Box(left, top, right - left, bottom - top)


def crop(pixels: NDArray[np.uint8], box: Box, scale: float) -> NDArray[np.uint8]:
    """Cut a box out, rounded outwards to whole pixels.

    Args:
        pixels: (H, W, 3) upright, decoded at `scale` of the full size.
        box: as `box_in_pixels` returned it.
        scale: 1 for a picture of full size.

    Returns:
        A view of at least one pixel.
    """
    height, width = pixels.shape[:2]
    left = min(math.floor(box.x * scale), width - 1)
    top = min(math.floor(box.y * scale), height - 1)
    right = max(math.ceil((box.x + box.width) * scale), left + 1)
    bottom = max(math.ceil((box.y + box.height) * scale), top + 1)
    return pixels[top:bottom, left:right]


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, _WHITE)
    white.paste(image, mask=image)
    return white


def _grey(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(values[:, :, np.newaxis], 3, axis=2)


def _scaled_16_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 257 = 255


def _scaled_open_range(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring 32-bit integers and floats, whose range no header states, to 0 to 255.

    Integers that fit are read as 16 bits (scanners, cameras), floats from 0 to 1 as shares of white; anything else is
    stretched from its smallest to its largest finite value.
    """
    top = 65535.0 if values.dtype.kind in "iu" else 1.0
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if low >= 0.0 and high <= top:
        low, high = 0.0, top
    clipped = np.clip(np.nan_to_num(values.astype(np.float32), nan=low), low, high)
    scaled: NDArray[np.uint8] = np.rint((clipped - low) * (255.0 / ((high - low) or 1.0))).astype(np.uint8)
    return scaled
