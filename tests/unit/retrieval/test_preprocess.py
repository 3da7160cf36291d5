"""An RGB picture becomes the encoder's square, the same pixels everywhere and in every version."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import pictures
from retrieval.encoder.preprocess import PREPROCESSING_VERSION, Preprocessing, decode_min_side, preprocess
from retrieval.errors import ModelError
from retrieval.images import decode

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
GOLDEN_HOW = Preprocessing(28, 30, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
HOW = Preprocessing(56, 64, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))


def resize_then_crop(image: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.uint8]:
    """The oracle: the whole picture resized, then its centre cut out, as torchvision does."""
    height, width = image.shape[:2]
    scale = how.resize_px / min(height, width)
    size = (round(width * scale), round(height * scale))
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    left, top = (size[0] - how.input_px) // 2, (size[1] - how.input_px) // 2
    return resized[top : top + how.input_px, left : left + how.input_px].transpose(2, 0, 1)


@pytest.mark.parametrize(("width", "height"), [(128, 128), (256, 128), (100, 200), (48, 32), (640, 320)])
def test_one_resize_equals_resizing_then_cropping(width: int, height: int) -> None:
    image = pictures.photo(width, height)
    difference = np.abs(preprocess(image, HOW).astype(int) - resize_then_crop(image, HOW))
    assert difference.max() <= 1


@pytest.mark.parametrize(("width", "height"), [(256, 192), (192, 256), (40, 30), (333, 217)])
def test_where_the_two_crops_differ_it_is_by_half_a_pixel_at_most(width: int, height: int) -> None:
    ramp = np.linspace(0, 255, max(width, height)).astype(np.uint8)
    along = np.broadcast_to(ramp if width > height else ramp[:, None], (height, width))
    image = np.repeat(along[..., None], 3, axis=2)
    level_per_pixel = 255 / (HOW.resize_px * max(width, height) / min(width, height))
    difference = np.abs(preprocess(image, HOW).astype(int) - resize_then_crop(image, HOW))
    assert difference.max() <= 0.5 * level_per_pixel + 1.5  # and both are rounded, ramp and result


def test_the_centre_is_kept_and_the_margins_are_not() -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 36:92] = 200  # 56 columns in the middle
    image[:4] = image[-4:] = 90
    inner = preprocess(image, HOW)[:, 3:-3, 3:-3]
    assert inner.min() == inner.max() == 200


def test_channels_come_first_and_keep_their_order() -> None:
    image = np.zeros((70, 70, 3), np.uint8)
    image[...] = (10, 20, 30)
    assert preprocess(image, HOW)[:, 20, 20].tolist() == [10, 20, 30]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (2, 3), (3000, 2000)])
def test_every_shape_gives_a_square(height: int, width: int) -> None:
    square = preprocess(np.full((height, width, 3), 77, np.uint8), HOW)
    assert (square.shape, square.dtype, square.flags.c_contiguous) == ((3, 56, 56), np.uint8, True)
    assert square.min() == square.max() == 77


def test_a_buffer_is_written_and_returned() -> None:
    batch = np.zeros((2, 3, 56, 56), np.uint8)
    returned = preprocess(pictures.photo(), HOW, out=batch[1])
    assert np.shares_memory(returned, batch)
    assert np.array_equal(batch[1], preprocess(pictures.photo(), HOW))
    assert not batch[0].any()


def test_bilinear_is_another_filter() -> None:
    other = dataclasses.replace(HOW, interpolation="bilinear")
    assert not np.array_equal(preprocess(pictures.photo(), HOW), preprocess(pictures.photo(), other))


@pytest.mark.parametrize("name", ["jpeg_scaled", "jpeg_full", "png"])
def test_pixels_stay_what_they_were(name: str) -> None:
    path = GOLDEN / ("rings.png" if name == "png" else "rings.jpg")
    decoded = decode(path, min_side_px=decode_min_side(GOLDEN_HOW) if name == "jpeg_scaled" else None)
    with np.load(GOLDEN / "preprocess.npz") as golden:
        difference = np.abs(preprocess(decoded, GOLDEN_HOW).astype(int) - golden[name])
    assert difference.max() <= 2  # libjpeg-turbo's vector code differs by a level between processors


def test_scaled_and_full_decoding_are_told_apart_by_the_golden_pixels() -> None:
    with np.load(GOLDEN / "preprocess.npz") as golden:
        assert np.abs(golden["jpeg_scaled"].astype(int) - golden["jpeg_full"]).max() > 2


def test_a_small_scale_keeps_nearly_twice_the_resize() -> None:
    assert decode_min_side(Preprocessing(224, 256, mean=(0, 0, 0), std=(1, 1, 1))) == 487  # 1.9 x 256, rounded up


def test_its_json_form_comes_back_equal() -> None:
    assert Preprocessing.from_dict(json.loads(json.dumps(HOW.to_dict()))) == HOW


def test_its_json_form_names_the_version() -> None:
    assert HOW.to_dict()["version"] == PREPROCESSING_VERSION


def test_another_version_is_refused_with_both() -> None:
    plain = HOW.to_dict() | {"version": PREPROCESSING_VERSION + 1}
    with pytest.raises(ModelError, match=f"version {PREPROCESSING_VERSION + 1}, this program has"):
        Preprocessing.from_dict(plain)


@pytest.mark.parametrize("change", [{"mean": None}, {"surplus": 1}, {"input_px": 65}, {"interpolation": "nearest"}])
def test_a_damaged_json_form_is_a_model_error(change: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        Preprocessing.from_dict(HOW.to_dict() | change)


def test_a_crop_larger_than_the_resize_is_refused() -> None:
    with pytest.raises(ValueError, match="input_px is 65; it must be 1 to resize_px, which is 64"):
        dataclasses.replace(HOW, input_px=65)
