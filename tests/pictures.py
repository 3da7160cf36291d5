"""Makers of real picture files: ordinary, odd and broken. Small, seeded, the same every time."""

import functools
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ORIENTATION_TAG = 0x0112


def photo(width: int = 64, height: int = 48, seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) smooth colours with shapes and no symmetry: every flip and turn is another picture."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    phases, waves = generator.uniform(0, 6, 3), generator.uniform(2, 5, (3, 2))
    planes = [
        127 + 100 * np.sin(wave[0] * rows / height + wave[1] * columns / width + phase)
        for wave, phase in zip(waves, phases, strict=True)
    ]
    pixels = np.stack(planes, axis=-1).astype(np.uint8)
    pixels[: height // 3, : width // 4] = (220, 30, 30)  # one corner red
    pixels[height // 2 :, : width // 8] = (20, 40, 200)
    return pixels


def encoded(pixels: NDArray[np.uint8] | Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a picture in a format that Pillow writes: "jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"."""
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(pixels: NDArray[np.uint8] | Image.Image | None = None, **options: object) -> bytes:
    """A JPEG of good quality without colour subsampling, of `photo()` unless told otherwise."""
    return encoded(photo() if pixels is None else pixels, "jpeg", **{"quality": 95, "subsampling": 0} | options)


def truncated_jpeg(share: float = 0.5) -> bytes:
    """A JPEG that breaks off in the middle of its pixels."""
    whole = jpeg(photo(160, 120))
    return whole[: int(len(whole) * share)]


def cmyk_jpeg() -> bytes:
    """A JPEG in four printing colours, inverted as Adobe writes it."""
    return jpeg(Image.fromarray(photo()).convert("CMYK"))


def grey_16_bit_png() -> tuple[bytes, NDArray[np.uint16]]:
    """A PNG of 65,536 greys, and its values."""
    values = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    return encoded(Image.fromarray(values), "png"), values


def palette_png(*, is_transparent: bool = False) -> bytes:
    """A PNG with a palette: left half pure red, right half green, or transparent."""
    image = Image.new("P", (20, 10), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (10, 0, 20, 10))
    return encoded(image, "png", **({"transparency": 1} if is_transparent else {}))


def half_transparent(mode: str = "RGBA") -> Image.Image:
    """20 x 10 of black: the left half opaque, the right half fully transparent, one column between them half."""
    alpha = np.zeros((10, 20), np.uint8)
    alpha[:, :10], alpha[:, 10] = 255, 128
    return Image.merge("RGBA", [*[Image.new("L", (20, 10))] * 3, Image.fromarray(alpha)]).convert(mode)


def animation(kind: str) -> bytes:
    """Three frames, "gif" or "webp": all red, all green, all blue."""
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "webp" else {}
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)


def stored_turned(
    orientation: int, kind: str = "jpeg", upright: NDArray[np.uint8] | None = None, quality: int = 95
) -> bytes:
    """A picture stored so that its EXIF orientation, 1 to 8, brings it back to `upright` (`photo()` by default)."""
    image = Image.fromarray(photo() if upright is None else upright)
    turn = {  # the inverse of what a viewer does for this orientation
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    options: dict[str, object] = {"quality": quality, "subsampling": 0} if kind == "jpeg" else {}
    return encoded(image.transpose(turn) if turn is not None else image, kind, exif=exif.tobytes(), **options)


def bomb_png(width: int, height: int) -> bytes:
    """A whole PNG of one colour whose few bytes claim, and hold, `width` x `height` pixels of one bit."""
    row = b"\0" + b"\0" * ((width + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def huge_jpeg_header(width: int, height: int) -> bytes:
    """A JPEG that claims a size in its header and ends in the midst of a tiny picture."""
    small = jpeg()
    at = small.index(b"\xff\xc0") + 5
    return small[:at] + struct.pack(">HH", height, width) + small[at + 4 :]


def on_white(path: Path) -> Image.Image:
    """What a picture with transparent parts looks like on white, the plain way."""
    with Image.open(path) as stored:
        picture = stored.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


@functools.cache
def broken() -> dict[str, bytes]:
    """Name -> bytes that are no picture: decoding any of them raises PictureUndecodable."""
    return {
        "empty.jpg": b"",
        "text.jpg": b"This is a letter, not a picture.\n" * 20,
        "truncated.jpg": truncated_jpeg(),
        "header_only.jpg": jpeg()[:200],
        "two_bytes.jpg": b"\xff\xd8",
        "truncated.png": encoded(photo(), "png")[:900],
        "zeros.png": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "video.avif": b"\0\0\0\x20ftypisom" + bytes(200),
    }


def write_broken(folder: Path) -> list[str]:
    """Write every broken picture into a folder; returns their names."""
    for name, data in broken().items():
        (folder / name).write_bytes(data)
    return sorted(broken())
