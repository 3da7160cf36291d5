"""How does a training picture look a little different every time it is seen?"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's conversion to grey
# RGB -> Y, I, Q, where a hue is an angle in the I-Q plane: NTSC's matrix.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float32)
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly each change may be drawn; its neutral value switches it off.

    Attributes:
        crop_area: the smallest share of the picture's area that is kept, up to all of it, as far as a narrow picture
            holds a crop of that shape; 1 keeps the centre square as indexing does.
        crop_aspect: the widest crop's width over height, and the inverse for the narrowest; 1 crops squares.
        rotation_degrees: the largest turn, to either side.
        brightness, contrast, saturation: a factor from 1 - s to 1 + s.
        hue_degrees: the largest turn of the colour circle, to either side.
        flip: how often the picture is mirrored, 0 to 1; 0 for goods with writing that matters.
    """

    crop_area: float = 0.15
    crop_aspect: float = 4 / 3
    rotation_degrees: float = 15.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue_degrees: float = 12.0
    flip: float = 0.5

    def __post_init__(self) -> None:
        for name, low, high in (
            ("crop_area", 0.01, 1.0),
            ("crop_aspect", 1.0, 4.0),
            ("rotation_degrees", 0.0, 180.0),
            ("brightness", 0.0, 1.0),
            ("contrast", 0.0, 1.0),
            ("saturation", 0.0, 1.0),
            ("hue_degrees", 0.0, 180.0),
            ("flip", 0.0, 1.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"augmentation {name} is {getattr(self, name)}; it must be {low:g} to {high:g}")


NO_AUGMENTATION = Augmentation(1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def augment(
    image: NDArray[np.uint8], how: Augmentation, side_px: int, random: np.random.Generator, whole_share: float = 1.0
) -> NDArray[np.uint8]:
    """Turn, crop, resize, mirror and recolour one picture.

    Args:
        image: (H, W, 3) uint8 RGB.
        how: the strengths.
        side_px: P.
        random: where every draw comes from, always the same number of them.
        whole_share: side of the centre square that is kept where nothing is cropped, as a share of the shorter side:
            what indexing sees.

    Returns:
        (3, P, P) uint8.

    Source: the crop as in Szegedy et al. 2015 and torchvision's RandomResizedCrop.
    """
    draws = random.uniform(-1.0, 1.0, 10)
    picture = Image.fromarray(image)
    if how.rotation_degrees:
        mean = tuple(int(value) for value in image.mean(axis=(0, 1)))
        picture = picture.rotate(how.rotation_degrees * draws[0], Image.Resampling.BILINEAR, fillcolor=mean)
    box = _crop_box(picture.width, picture.height, how, draws[1:5], whole_share)
    pixels = np.asarray(picture.resize((side_px, side_px), Image.Resampling.BICUBIC, box=box))
    if draws[5] < 2.0 * how.flip - 1.0:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(_recoloured(pixels, how, draws[6:10]).transpose(2, 0, 1))


def _crop_box(
    width: int, height: int, how: Augmentation, draws: NDArray[np.float64], whole_share: float
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the part that is kept, in fractions of a pixel."""
    if how.crop_area >= 1.0:
        across = down = min(width, height) * whole_share
        left, top = (width - across) / 2, (height - down) / 2
        return left, top, left + across, top + down
    area = width * height * (how.crop_area + (1.0 - how.crop_area) * (draws[0] + 1.0) / 2)
    aspect = math.exp(math.log(how.crop_aspect) * draws[1])
    across, down = min(math.sqrt(area * aspect), width), min(math.sqrt(area / aspect), height)
    across, down = min(across, down * how.crop_aspect), min(down, across * how.crop_aspect)  # of a narrow picture
    left, top = (width - across) * (draws[2] + 1.0) / 2, (height - down) * (draws[3] + 1.0) / 2
    return left, top, left + across, top + down


def _recoloured(pixels: NDArray[np.uint8], how: Augmentation, draws: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Brightness, contrast, saturation and hue as one linear map of the colours, computed in one pass."""
    if not (how.brightness or how.contrast or how.saturation or how.hue_degrees):
        return pixels
    brightness, contrast, saturation = (
        1.0 + strength * draw
        for strength, draw in zip((how.brightness, how.contrast, how.saturation), draws, strict=False)
    )
    angle = math.radians(how.hue_degrees * draws[3])
    turn = np.eye(3, dtype=np.float32)
    turn[1:, 1:] = saturation * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = (brightness * contrast) * (_FROM_YIQ @ turn @ _TO_YIQ)
    grey = float(_LUMA @ pixels.reshape(-1, 3).mean(axis=0)) * brightness  # contrast spreads around the mean grey
    mixed = pixels.astype(np.float32) @ matrix.T.astype(np.float32) + np.float32((1.0 - contrast) * grey)
    recoloured: NDArray[np.uint8] = np.clip(mixed + 0.5, 0.0, 255.0).astype(np.uint8)
    return recoloured
