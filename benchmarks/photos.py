"""Pictures like a phone's, rendered: as large, as finely textured and as heavy as photos, with nobody's rights on them.

Speed depends on how many pixels there are and on how well they compress, so enlarged small photos would flatter a
decoder. These have detail down to the pixel: noise of 1/f (as in natural scenes), gratings, shapes and lettering.
"""

import json
import math
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SCENES = 4  # are rendered; every picture is one of them, moved, mirrored and coloured
QUALITY = 88
ASPECT = 4 / 3
NOISE = 24.0  # standard deviation of the 1/f noise, in grey levels
GRAIN = 3.0  # of a sensor's noise
SHAPES, GRATINGS, WORDS = 40, 6, 30
MARKER = "rendered.json"
VERSION = 1  # of these pictures: a change of the drawing is another version

RGB = NDArray[np.uint8]


def render_photos(folder: Path, count: int, megapixels: float, seed: int = 0) -> list[Path]:
    """Write different JPEGs; a folder that holds the same ones already is left as it is.

    Args:
        folder: made if missing.
        count: how many pictures.
        megapixels: of each; a file has about 0.8 MB at 2 megapixels and 4.4 MB at 12.
        seed: the same seed draws the same pictures.

    Returns:
        The files, sorted: photo-00000.jpg and on.
    """
    paths = [folder / f"photo-{number:05d}.jpg" for number in range(count)]
    wanted = {"version": VERSION, "count": count, "megapixels": megapixels, "seed": seed}
    marker = folder / MARKER
    if marker.exists() and json.loads(marker.read_text()) == wanted and all(path.exists() for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    for old in folder.glob("photo-*.jpg"):
        old.unlink()
    height = round(math.sqrt(megapixels * 1e6 / ASPECT))
    scenes = [_scene(height, round(height * ASPECT), np.random.default_rng([seed, scene])) for scene in range(SCENES)]
    for number, path in enumerate(paths):
        picture = _variant(scenes[number % SCENES], np.random.default_rng([seed, SCENES, number]), f"{number:05d}")
        path.write_bytes(simplejpeg.encode_jpeg(picture, quality=QUALITY, colorsubsampling="420"))
    marker.write_text(json.dumps(wanted))
    return paths


def _scene(height: int, width: int, rng: np.random.Generator) -> RGB:
    """One scene, (H, W, 3): shapes on a background, gratings, lettering, and noise over all."""
    canvas = Image.new("RGB", (width, height), _colour(rng))
    draw = ImageDraw.Draw(canvas)
    for _ in range(SHAPES):
        _draw_shape(draw, height, width, rng)
    for _ in range(WORDS):
        font = ImageFont.load_default(int(rng.integers(height // 60, height // 12)))
        word = "".join(rng.choice(list("ABCDEFGHKLMNOPRSTabcdeghnorst0123456789"), int(rng.integers(3, 12))))
        draw.text(_point(height, width, rng), word, fill=_colour(rng), font=font)
    light = _noise(height, width, rng) + rng.normal(0.0, GRAIN, (height, width)).astype(np.float32)
    for _ in range(GRATINGS):
        _add_grating(light, rng)
    pixels = np.asarray(canvas, np.float32) + light[..., None]
    return np.asarray(pixels.clip(0, 255), np.uint8)


def _draw_shape(draw: ImageDraw.ImageDraw, height: int, width: int, rng: np.random.Generator) -> None:
    x, y = _point(height, width, rng)
    across, down = (int(side) for side in rng.integers(height // 20, height // 3, 2))
    corners = [(x, y), (x + across, y + down)]
    match rng.integers(3):
        case 0:
            draw.ellipse(corners, fill=_colour(rng))
        case 1:
            draw.rectangle(corners, fill=_colour(rng))
        case _:
            draw.polygon([*corners, _point(height, width, rng)], fill=_colour(rng))


def _noise(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise whose amplitude falls as 1/f, (H, W), of standard deviation `NOISE`."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width), np.float32))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]).astype(np.float32)
    frequency[0, 0] = np.inf  # no shift of the mean
    noise = np.fft.irfft2(spectrum / frequency, s=(height, width)).astype(np.float32)
    return np.asarray(noise * np.float32(NOISE / noise.std()), np.float32)


def _add_grating(light: NDArray[np.float32], rng: np.random.Generator) -> None:
    """A patch of stripes, 3 to 24 pixels a period, as of cloth, grilles and print."""
    height, width = light.shape
    side = int(rng.integers(height // 8, height // 3))
    top, left = int(rng.integers(height - side)), int(rng.integers(width - side))
    angle, period = rng.uniform(0, math.pi), rng.uniform(3, 24)
    across, down = np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32)[:, None]
    phase = (across * math.cos(angle) + down * math.sin(angle)) * (2 * math.pi / period)
    light[top : top + side, left : left + side] += 40 * np.sin(phase)


def _variant(scene: RGB, rng: np.random.Generator, name: str) -> RGB:
    """The scene moved around its edges, perhaps mirrored, lit and coloured otherwise, its name written into it."""
    height, width = scene.shape[:2]
    moved = np.roll(scene, (int(rng.integers(height)), int(rng.integers(width))), axis=(0, 1))
    if rng.integers(2):
        moved = moved[:, ::-1]
    levels = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.7, 1.4, 3)  # (256, 3): a gamma for each channel
    table = np.rint(levels * 255).astype(np.uint8)[:, rng.permutation(3)]
    lit = np.stack([table[moved[..., channel], channel] for channel in range(3)], axis=-1)
    canvas = Image.fromarray(lit)
    ImageDraw.Draw(canvas).text((8, 8), name, fill="white", font=ImageFont.load_default(height // 20))
    return np.array(canvas)


def _point(height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(width)), int(rng.integers(height))


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(level) for level in rng.integers(30, 226, 3))
    return red, green, blue
