"""How does an RGB picture become the square of pixels that an encoder sees?"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import ModelError

PREPROCESSING_VERSION = 1  # one higher whenever the same picture comes out as other pixels: it is in the fingerprint

# How many times `resize_px` the shorter side must keep in a picture that is decoded at a smaller scale. Cosine to the
# embedding of full decoding on 120 rendered pictures of 2 to 12 megapixels, median / minimum: 1.5 0.9978 / 0.755,
# 1.75 0.9990 / 0.980, 1.9 0.9991 / 0.980, 2.0 0.9991 / 0.987 (benchmarks/bench_decoding.py; wanted 0.995 / 0.97).
# Of those that hold, 1.9 lets the common 1,000 and 2,000 pixels be halved and quartered for a `resize_px` of 256.
DECODE_MARGIN = 1.9

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What an encoder wants to see.

    Attributes:
        input_px: side of the square it takes.
        resize_px: what the shorter side is resized to before the centre is cropped; `input_px` crops nothing of it.
        mean, std: per channel, in 0 to 255; applied inside the network, never here.
        interpolation: of the resize.
    """

    input_px: int
    resize_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        if not 1 <= self.input_px <= self.resize_px:
            raise ValueError(f"input_px is {self.input_px}; it must be 1 to resize_px, which is {self.resize_px}")
        if self.interpolation not in _FILTERS:
            raise ValueError(f'interpolation is "{self.interpolation}"; it must be one of {", ".join(_FILTERS)}')
        if len(self.mean) != 3 or len(self.std) != 3 or not all(std > 0 for std in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std} must be three values each, std above 0")

    def to_dict(self) -> dict[str, Any]:
        """The JSON-plain form; part of the model's fingerprint."""
        plain = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        return {"version": PREPROCESSING_VERSION} | plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Preprocessing":
        """Read what `to_dict` wrote.

        Raises:
            ModelError: it was written for another version of the preprocessing, or is not one.
        """
        fields = dict(plain)
        version = fields.pop("version", None)
        if version != PREPROCESSING_VERSION:
            raise ModelError(
                f"the model wants preprocessing version {version}, this program has {PREPROCESSING_VERSION}; "
                "install the program's version that made the model, or train it again"
            )
        try:
            return cls(**fields | {"mean": tuple(fields["mean"]), "std": tuple(fields["std"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the model's preprocessing cannot be read: {error!r}") from error


def preprocess(image: NDArray[np.uint8], how: Preprocessing, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Resize the shorter side to `resize_px` and crop the centre.

    One resize computes just the crop: its corners are laid into the picture as fractions of a pixel. That equals
    resizing the whole and cropping, but for the longer side's length and the crop's place not being rounded to whole
    pixels: half a pixel at most.

    Args:
        image: (H, W, 3) uint8 RGB, upright, of any shape from 1x1 on.
        how: what the encoder wants.
        out: (3, P, P) uint8 to write into, P = `how.input_px`; a new array where None.

    Returns:
        (3, P, P) uint8, `out` where it was given.
    """
    height, width = image.shape[:2]
    half = min(height, width) * how.input_px / how.resize_px / 2
    corners = (width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half)
    square = Image.fromarray(image).resize((how.input_px, how.input_px), _FILTERS[how.interpolation], box=corners)
    planes = np.asarray(square).transpose(2, 0, 1)
    if out is None:
        return np.ascontiguousarray(planes)
    np.copyto(out, planes)
    return out


def decode_min_side(how: Preprocessing) -> int:
    """The shorter side, in pixels, that a picture decoded at a smaller scale must keep for its embedding's sake."""
    return math.ceil(DECODE_MARGIN * how.resize_px)
