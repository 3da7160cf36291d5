"""A training picture changes as strongly as it is told to, where nothing is switched on not at all."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import pictures
from retrieval.encoder.preprocess import Preprocessing, preprocess
from retrieval.training.augment import NO_AUGMENTATION, Augmentation, augment

HOW = Preprocessing(56, 64, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
EVERYTHING = Augmentation(0.3, 4 / 3, 20.0, 0.4, 0.4, 0.4, 30.0, 0.5)
COLOURS_ALONE = dataclasses.replace(EVERYTHING, crop_area=1.0, crop_aspect=1.0, rotation_degrees=0.0, flip=0.0)
# NTSC's luma and chroma, as in its standard.
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
SEEDS = st.integers(0, 2**31)
DRAW = st.floats(-1.0, 1.0, exclude_max=True)


class Drawn(np.random.Generator):
    """Draws what it is told to, each from -1 to 1."""

    def __init__(self, draws: Sequence[float]) -> None:
        super().__init__(np.random.PCG64(0))
        self.draws = draws

    def uniform(self, low: float, high: float, count: int) -> NDArray[np.float64]:  # type: ignore[override]
        assert (low, high, count) == (-1.0, 1.0, len(self.draws))
        return np.array(self.draws)


def drawn(
    *,
    turn: float = 0,
    area: float = 0,
    aspect: float = 0,
    left: float = 0,
    top: float = 0,
    flip: float = 0,
    brightness: float = 0,
    contrast: float = 0,
    saturation: float = 0,
    hue: float = 0,
) -> Drawn:
    return Drawn([turn, area, aspect, left, top, flip, brightness, contrast, saturation, hue])


def switched_on(**strengths: float) -> Augmentation:
    return dataclasses.replace(NO_AUGMENTATION, **strengths)


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def squares(*colours: Sequence[float], side: int = 4) -> NDArray[np.uint8]:
    """Columns of equal width, one for each colour, in a square as high as it is wide."""
    row = np.repeat(np.array(colours, np.uint8), side, axis=0)
    return np.broadcast_to(row, (len(row), len(row), 3)).copy()


def recoloured(image: NDArray[np.uint8], how: Augmentation, random: np.random.Generator) -> NDArray[np.uint8]:
    """(H, W, 3) after a change that moves no pixel."""
    return augment(image, how, image.shape[0], random).transpose(1, 2, 0)


def places(width: int, height: int) -> NDArray[np.uint8]:
    """A picture whose red is the column and whose green is the row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(width)
    image[..., 1] = np.arange(height)[:, None]
    return image


def seen_size(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Width and height of the crop that was made of `places`, to within 2 pixels, by what its inner columns span."""
    side = pixels.shape[1]
    low, high = side // 8, side - 1 - side // 8
    scale = side / (high - low)
    across = float(pixels[0, side // 2, high]) - float(pixels[0, side // 2, low])
    down = float(pixels[1, high, side // 2]) - float(pixels[1, low, side // 2])
    return across * scale, down * scale


# Nothing switched on


@pytest.mark.parametrize(
    ("width", "height"), [(128, 128), (256, 128), (100, 201), (48, 32), (333, 217), (1, 1), (1, 90)]
)
def test_without_augmentation_training_sees_what_indexing_sees(width: int, height: int) -> None:
    image = pictures.photo(width, height) if min(width, height) > 1 else np.full((height, width, 3), 77, np.uint8)
    pixels = augment(image, NO_AUGMENTATION, HOW.input_px, seeded(), HOW.input_px / HOW.resize_px)
    assert np.abs(pixels.astype(int) - preprocess(image, HOW)).max() <= 1  # corners are rounded once more or less


@given(SEEDS)
def test_without_augmentation_a_picture_of_the_right_size_is_untouched(seed: int) -> None:
    image = pictures.photo(40, 40)
    np.testing.assert_array_equal(recoloured(image, NO_AUGMENTATION, seeded(seed)), image)


@pytest.mark.parametrize(
    "strength",
    [
        {"crop_area": 0.3},
        {"crop_area": 0.9, "crop_aspect": 2.0},
        {"rotation_degrees": 20.0},
        {"brightness": 0.4},
        {"contrast": 0.4},
        {"saturation": 0.4},
        {"hue_degrees": 20.0},
        {"flip": 1.0},
    ],
    ids=lambda strength: "+".join(strength),
)
def test_each_change_works_without_the_others(strength: dict[str, float]) -> None:
    image = pictures.photo(40, 40)
    assert (recoloured(image, switched_on(**strength), seeded(3)) != image).any()


def test_a_strength_of_none_keeps_colours_whatever_is_drawn() -> None:
    image = pictures.photo(40, 40)
    extreme = drawn(brightness=1, contrast=-1, saturation=1, hue=-1)
    np.testing.assert_array_equal(recoloured(image, NO_AUGMENTATION, extreme), image)


# Draws


def test_the_same_seed_gives_the_same_pixels() -> None:
    image = pictures.photo(90, 70)
    first, second = (augment(image, EVERYTHING, 32, seeded(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_another_seed_gives_other_pixels() -> None:
    image = pictures.photo(90, 70)
    assert (augment(image, EVERYTHING, 32, seeded(5)) != augment(image, EVERYTHING, 32, seeded(6))).any()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Augmentation)])
def test_what_is_switched_off_is_drawn_all_the_same(field: str) -> None:
    random, other = seeded(), seeded()
    without = dataclasses.replace(EVERYTHING, **{field: getattr(NO_AUGMENTATION, field)})
    augment(pictures.photo(), EVERYTHING, 16, random)
    augment(pictures.photo(), without, 16, other)
    assert random.random() == other.random()


def test_switching_off_what_moves_pixels_leaves_the_colours_that_were_drawn() -> None:
    one_colour = np.full((40, 40, 3), (90, 120, 140), np.uint8)
    both = augment(one_colour, EVERYTHING, 20, seeded(9))
    colours = augment(one_colour, COLOURS_ALONE, 20, seeded(9))
    np.testing.assert_array_equal(both, colours)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (2, 3), (70, 31)])
def test_every_shape_gives_a_square_with_channels_first(height: int, width: int) -> None:
    pixels = augment(np.full((height, width, 3), 77, np.uint8), EVERYTHING, 24, seeded(1))
    assert pixels.shape == (3, 24, 24)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_the_picture_itself_stays_as_it_was() -> None:
    image = pictures.photo(40, 40)
    augment(image, EVERYTHING, 40, seeded(2))
    np.testing.assert_array_equal(image, pictures.photo(40, 40))


# Crop


def test_a_crop_of_a_quarter_of_the_area_worked_by_hand() -> None:
    # The least area is drawn: a quarter of 100 x 100, a square of 50, in the upper left corner.
    image = pictures.photo(100, 100)
    pixels = augment(image, switched_on(crop_area=0.25), 30, drawn(area=-1, left=-1, top=-1))
    expected = Image.fromarray(image).resize((30, 30), Image.Resampling.BICUBIC, box=(0, 0, 50, 50))
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), np.asarray(expected))


def test_a_wide_crop_worked_by_hand() -> None:
    # 2,500 of 10,000 pixels, four times as wide as high: 100 x 25; a quarter of the way down the 75 that it may move.
    image = pictures.photo(100, 100)
    how = switched_on(crop_area=0.25, crop_aspect=4.0)
    pixels = augment(image, how, 30, drawn(area=-1, aspect=1, top=-0.5))
    expected = Image.fromarray(image).resize((30, 30), Image.Resampling.BICUBIC, box=(0, 18.75, 100, 43.75))
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), np.asarray(expected))


@given(
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    draws=st.tuples(*[DRAW] * 4),
    crop_area=st.floats(0.01, 0.99),
    crop_aspect=st.floats(1.0, 4.0),
)
def test_no_crop_reaches_beyond_the_picture(
    width: int, height: int, draws: tuple[float, ...], crop_area: float, crop_aspect: float
) -> None:
    random = drawn(area=draws[0], aspect=draws[1], left=draws[2], top=draws[3])
    how = switched_on(crop_area=crop_area, crop_aspect=crop_aspect)
    # Pillow refuses a box beyond the border.
    assert augment(np.full((height, width, 3), 9, np.uint8), how, 4, random).tolist() == np.full((3, 4, 4), 9).tolist()


def test_crops_have_the_area_and_the_aspect_asked_for() -> None:
    image = places(240, 240)
    areas, aspects = [], []
    for seed in range(200):
        across, down = seen_size(augment(image, switched_on(crop_area=0.2, crop_aspect=1.5), 64, seeded(seed)))
        areas.append(across * down / 240**2)
        aspects.append(across / down)
    # To within 2 of at least 80 pixels; from areas of 2/3 on, the widest crops do not fit any more.
    assert min(areas) == pytest.approx(0.2, abs=0.02)
    assert max(areas) > 0.9
    assert np.median(areas) == pytest.approx(0.6, abs=0.06)
    assert min(aspects) == pytest.approx(1 / 1.5, rel=0.05)
    assert max(aspects) == pytest.approx(1.5, rel=0.05)
    assert np.mean(np.log(aspects)) == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(("width", "height"), [(240, 60), (60, 240), (250, 100)])
def test_a_narrow_picture_is_not_cropped_to_another_shape_than_asked_for(width: int, height: int) -> None:
    for seed in range(50):
        across, down = seen_size(augment(places(width, height), switched_on(crop_area=0.5), 64, seeded(seed)))
        assert across == pytest.approx(down, abs=4)


def test_without_a_crop_the_centre_is_kept_at_the_share_that_indexing_keeps() -> None:
    # Half of the shorter side's 100: 50 x 50, from 75 to 125 across and from 25 to 75 down.
    image = places(200, 100)
    pixels = augment(image, NO_AUGMENTATION, 50, seeded(), 0.5)
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), image[25:75, 75:125])


# Turn and mirror


def test_a_quarter_turn_to_the_left_worked_by_hand() -> None:
    image = pictures.photo(40, 40)
    turned = recoloured(image, switched_on(rotation_degrees=90.0), Drawn([1.0] + [0.0] * 9))
    np.testing.assert_array_equal(turned, np.rot90(image))


def test_turns_go_to_both_sides_as_far_as_asked_for() -> None:
    # A white half plane whose edge is upright: turned by x degrees, rows 40 apart differ by 40 tan(x) in its width,
    # seen in the middle columns, which no filled corner reaches.
    image = np.zeros((121, 121, 3), np.uint8)
    image[:, :61] = 255
    degrees = []
    for seed in range(200):
        turned = recoloured(image, switched_on(rotation_degrees=20.0), seeded(seed))[:, 30:91, 0].astype(float)
        degrees.append(math.degrees(math.atan((turned[40].sum() - turned[80].sum()) / 255 / 40)))
    assert min(degrees) == pytest.approx(-20, abs=1.5)
    assert max(degrees) == pytest.approx(20, abs=1.5)
    assert np.mean(degrees) == pytest.approx(0, abs=2)


def test_the_corners_of_a_turned_picture_are_filled_with_its_mean_colour() -> None:
    # Half of the columns are (200, 100, 0), half (100, 50, 40): the mean is (150, 75, 20).
    turned = recoloured(
        squares((200, 100, 0), (100, 50, 40), side=20), switched_on(rotation_degrees=45.0), Drawn([1.0] + [0.0] * 9)
    )
    corners = turned[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.tolist() == [[150, 75, 20]] * 4


@pytest.mark.parametrize(("flip", "is_mirrored"), [(0.0, False), (1.0, True)])
def test_a_picture_is_always_mirrored_or_never(flip: float, is_mirrored: bool) -> None:
    image = pictures.photo(20, 20)
    expected = image[:, ::-1] if is_mirrored else image
    for seed in range(50):
        np.testing.assert_array_equal(recoloured(image, switched_on(flip=flip), seeded(seed)), expected)


def test_pictures_are_mirrored_as_often_as_asked_for() -> None:
    image = pictures.photo(8, 8)
    mirrored = [(recoloured(image, switched_on(flip=0.2), seeded(seed)) != image).any() for seed in range(500)]
    assert np.mean(mirrored) == pytest.approx(0.2, abs=0.05)  # the standard error is 0.018


# Colours


def test_brightness_doubles_and_stops_at_white() -> None:
    bright = recoloured(squares((10, 20, 30), (100, 127, 200)), switched_on(brightness=1.0), drawn(brightness=1))
    np.testing.assert_array_equal(bright, squares((20, 40, 60), (200, 254, 255)))


def test_contrast_doubles_around_the_mean_grey() -> None:
    # The mean of 60 and 140 is 100; 40 away becomes 80 away.
    contrasted = recoloured(squares((60,) * 3, (140,) * 3), switched_on(contrast=1.0), drawn(contrast=1))
    np.testing.assert_array_equal(contrasted, squares((20,) * 3, (180,) * 3))


def test_no_contrast_leaves_the_mean_grey() -> None:
    # Luma of the mean colour (100, 50, 50): 0.299 * 100 + (0.587 + 0.114) * 50 = 64.95.
    flat = recoloured(squares((200, 0, 0), (0, 100, 100)), switched_on(contrast=1.0), drawn(contrast=-1))
    np.testing.assert_array_equal(flat, squares((65,) * 3, (65,) * 3))


def test_no_saturation_leaves_the_luma() -> None:
    # 0.299 * 255 = 76.2 and 0.587 * 200 + 0.114 * 100 = 128.8
    grey = recoloured(squares((255, 0, 0), (0, 200, 100)), switched_on(saturation=1.0), drawn(saturation=-1))
    np.testing.assert_array_equal(grey, squares((76,) * 3, (129,) * 3))


def test_half_a_turn_of_the_hue_mirrors_a_colour_at_its_luma() -> None:
    # Luma of (100, 120, 140): 29.9 + 70.44 + 15.96 = 116.3; each channel becomes 232.6 less itself.
    turned = recoloured(squares((100, 120, 140)), switched_on(hue_degrees=180.0), drawn(hue=1))
    np.testing.assert_array_equal(turned, squares((133, 113, 93)))


@given(grey=st.integers(0, 255), seed=SEEDS)
def test_grey_stays_grey_under_saturation_and_hue(grey: int, seed: int) -> None:
    image = squares((grey,) * 3)
    how = switched_on(saturation=1.0, hue_degrees=180.0)
    np.testing.assert_array_equal(recoloured(image, how, seeded(seed)), image)


@given(draws=st.tuples(*[DRAW] * 4), seed=st.integers(0, 50))
def test_recolouring_equals_four_plain_steps(draws: tuple[float, ...], seed: int) -> None:
    image = seeded(seed).integers(60, 180, (6, 6, 3), dtype=np.uint8)
    how = switched_on(brightness=0.3, contrast=0.3, saturation=0.5, hue_degrees=40.0)
    brightness, contrast, saturation, hue = draws

    found = recoloured(image, how, drawn(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue))

    expected = plainly_recoloured(
        image.tolist(), 1 + 0.3 * brightness, 1 + 0.3 * contrast, 1 + 0.5 * saturation, math.radians(40 * hue)
    )
    assert np.abs(found - np.clip(expected, 0, 255)).max() <= 0.51  # the found ones are whole levels


def dot(u: Sequence[float], v: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(u, v, strict=True))


def plainly_recoloured(
    rows: list[list[list[float]]], brightness: float, contrast: float, saturation: float, angle: float
) -> NDArray[np.float64]:
    """One step after the other, pixel by pixel."""
    bright = [[brightness * value for value in pixel] for row in rows for pixel in row]
    lumas = [dot(YIQ[0], pixel) for pixel in bright]
    mean_grey = sum(lumas) / len(lumas)
    changed = []
    for pixel in bright:
        spread = [mean_grey + contrast * (value - mean_grey) for value in pixel]
        y, i, q = (dot(row, spread) for row in YIQ)
        i, q = saturation * i, saturation * q
        i, q = math.cos(angle) * i - math.sin(angle) * q, math.sin(angle) * i + math.cos(angle) * q
        changed.append(np.linalg.solve(np.array(YIQ), [y, i, q]))
    return np.array(changed).reshape(len(rows), -1, 3)


@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation"])
def test_factors_reach_as_far_as_asked_for_to_both_sides(change: str) -> None:
    # The second colour: 100 -> 60 to 140; 50 above the mean grey of 100 -> 30 to 70 above; a spread of 50 -> 30 to 70.
    image = {
        "brightness": squares((100,) * 3),
        "contrast": squares((50,) * 3, (150,) * 3),
        "saturation": squares((100, 100, 100), (150, 100, 100)),
    }[change]
    found = [
        float(np.ptp(pixels[0, -1])) if change == "saturation" else float(pixels[0, -1, 0])
        for pixels in (recoloured(image, switched_on(**{change: 0.4}), seeded(seed)) for seed in range(200))
    ]
    low, high = {"brightness": (60, 140), "contrast": (130, 170), "saturation": (30, 70)}[change]
    assert low - 1 <= min(found) <= low + 3
    assert high - 3 <= max(found) <= high + 1


# Bad strengths


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_area", 0.0),
        ("crop_area", 1.5),
        ("crop_aspect", 0.5),
        ("rotation_degrees", -1.0),
        ("rotation_degrees", 181.0),
        ("brightness", 1.1),
        ("contrast", -0.1),
        ("saturation", math.nan),
        ("hue_degrees", 200.0),
        ("flip", 2.0),
    ],
)
def test_a_strength_that_means_nothing_is_refused_with_its_limits(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"augmentation {field} is {value}; it must be [\d.]+ to [\d.]+"):
        switched_on(**{field: value})
