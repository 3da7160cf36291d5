"""A path, bytes, an array or a Pillow image becomes upright RGB, or is refused in one line."""

import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

import pictures
from retrieval.errors import PictureError, PictureTooLarge, PictureUndecodable, PictureUnreadable
from retrieval.images import DecodeLimits, decode, read_bytes
from retrieval.images.headers import format_of, jpeg_header
from retrieval.images.plugins import pillow_limit
from retrieval.records import Box
from unprivileged import run_unprivileged

RED, WHITE = [255, 0, 0], [255, 255, 255]


def distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Mean absolute difference in levels; infinite where the shapes differ."""
    if first.shape != second.shape:
        return float("inf")
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


# Sources


def test_a_path_its_bytes_and_a_pillow_image_decode_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(pictures.encoded(pictures.photo(), "png"))
    for source in (path, str(path), path.read_bytes(), Image.open(path)):
        assert np.array_equal(decode(source), pictures.photo())


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp", "avif", "gif", "jpeg"])
def test_every_format_shows_the_same_picture(kind: str) -> None:
    decoded = decode(pictures.encoded(pictures.photo(), kind))
    assert distance(decoded, pictures.photo()) < 6


def test_heic_decodes_or_names_what_to_install() -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(pictures.photo())).save(buffer)
    assert distance(decode(buffer.getvalue()), pictures.photo()) < 6


@pytest.mark.parametrize("kind", ["png", "jpeg", "array", "grey array", "image"])
def test_result_is_contiguous_and_can_be_written_to(kind: str) -> None:
    pixels = pictures.photo()
    sources = {"array": pixels[::-1, ::-1], "grey array": pixels[..., 0], "image": Image.fromarray(pixels)}
    decoded = decode(sources[kind] if kind in sources else pictures.encoded(pixels, kind))
    assert (decoded.dtype, decoded.ndim, decoded.flags.c_contiguous) == (np.uint8, 3, True)
    assert decoded.flags.writeable


def test_arrays_of_grey_and_of_four_channels_become_rgb() -> None:
    grey = np.full((2, 3), 7, np.uint8)
    clear = np.zeros((2, 3, 4), np.uint8)
    assert decode(grey).tolist() == [[[7, 7, 7]] * 3] * 2
    assert decode(clear).tolist() == [[WHITE] * 3] * 2


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (np.zeros((3, 4, 5), np.uint8), "3x4x5 uint8"),
        (np.zeros((4, 5, 3), np.float32), "4x5x3 float32"),
        (np.zeros((0, 5, 3), np.uint8), "0x5x3 uint8"),
        (np.zeros((4,), np.uint8), "4 uint8"),
    ],
)
def test_any_other_array_is_refused_by_shape_and_type(array: NDArray[np.uint8], shown: str) -> None:
    with pytest.raises(PictureUndecodable, match=f"array is {shown}; pass"):
        decode(array)


def test_a_source_of_another_kind_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        decode(7)  # type: ignore[arg-type]


# Colour modes


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_composited_on_white(mode: str) -> None:
    row = decode(pictures.half_transparent(mode))[5]
    assert row[0].tolist() == [0, 0, 0]
    assert row[-1].tolist() == WHITE
    assert abs(int(row[10, 0]) - 127) <= 1


def test_a_transparent_palette_is_composited_on_white() -> None:
    decoded = decode(pictures.palette_png(is_transparent=True))
    assert decoded[0, 0].tolist() == RED
    assert decoded[0, -1].tolist() == WHITE


def test_a_colour_declared_transparent_is_white() -> None:
    data = pictures.encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "png", transparency=(1, 2, 3))
    assert decode(data)[0, 0].tolist() == WHITE


def test_a_palette_becomes_its_colours() -> None:
    decoded = decode(pictures.palette_png())
    assert (decoded[0, 0].tolist(), decoded[0, -1].tolist()) == (RED, [0, 255, 0])


def test_sixteen_bit_greys_are_scaled_not_clipped() -> None:
    data, values = pictures.grey_16_bit_png()
    assert np.array_equal(decode(data)[..., 1], np.rint(values / 257).astype(np.uint8))


def test_one_bit_becomes_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert decode(pictures.encoded(image, "png")).tolist() == [[[0, 0, 0], WHITE]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),  # shares of white
        ([-5.0, 0.0, 5.0], [0, 128, 255]),  # any other range is stretched
        ([np.nan, 0.0, 1.0], [0, 0, 255]),
        ([np.nan, np.inf, np.nan], [0, 255, 0]),
    ],
)
def test_floats_are_brought_to_eight_bits(values: list[float], expected: list[int]) -> None:
    array = np.array([values], np.float32)
    assert decode(pictures.encoded(Image.fromarray(array), "tiff"))[0, :, 0].tolist() == expected


def test_wide_integers_that_fit_sixteen_bits_are_read_as_such() -> None:
    image = Image.fromarray(np.array([[0, 32896, 65535]], np.int32))
    assert decode(image)[0, :, 0].tolist() == [0, 128, 255]


def test_cmyk_jpeg_keeps_its_colours() -> None:
    assert distance(decode(pictures.cmyk_jpeg()), pictures.photo()) < 6


def test_grey_jpeg_has_three_equal_channels() -> None:
    decoded = decode(pictures.jpeg(Image.fromarray(pictures.photo()).convert("L")))
    assert np.array_equal(decoded[..., 0], decoded[..., 2])


def test_lab_is_refused_by_name() -> None:
    with pytest.raises(PictureUndecodable, match="LAB is not supported"):
        decode(Image.new("LAB", (3, 3)))


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_an_animation_shows_its_first_frame(kind: str) -> None:
    assert decode(pictures.animation(kind)).reshape(-1, 3).tolist() == [RED] * (16 * 24)


# Orientation


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    assert distance(decode(pictures.stored_turned(orientation, kind)), pictures.photo()) < 6


def test_a_jpeg_decoded_small_is_upright_too() -> None:
    upright = pictures.photo(320, 160)
    small = decode(pictures.stored_turned(6, upright=upright), min_side_px=80)
    assert distance(small, decode(pictures.jpeg(upright), min_side_px=80)) < 3


def test_exif_written_by_a_big_endian_camera_is_read() -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"
    data = pictures.jpeg(exif=exif)
    assert distance(decode(data), pictures.photo()[::-1, ::-1]) < 6


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0nonsense",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",  # 65,535 entries in no bytes
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",  # orientation 9
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x06\0\0\0",  # a text
    ],
)
def test_a_broken_orientation_is_ignored(exif: bytes) -> None:
    assert distance(decode(pictures.jpeg(exif=exif)), pictures.photo()) < 6


# Scale


@pytest.mark.parametrize(
    ("width", "height", "min_side_px", "expected"),
    [
        (640, 480, None, (480, 640)),
        (640, 480, 481, (480, 640)),
        (640, 480, 241, (480, 640)),
        (640, 480, 240, (240, 320)),
        (480, 640, 240, (320, 240)),
        (640, 480, 120, (120, 160)),
        (640, 480, 1, (60, 80)),
        (1000, 40, 20, (20, 500)),
        (641, 481, 200, (241, 321)),
    ],
)
def test_a_jpeg_is_decoded_as_small_as_allowed(
    width: int, height: int, min_side_px: int | None, expected: tuple[int, int]
) -> None:
    data = pictures.jpeg(pictures.photo(width, height))
    assert decode(data, min_side_px=min_side_px).shape[:2] == expected


def test_cmyk_jpegs_are_decoded_small_too() -> None:
    data = pictures.jpeg(Image.fromarray(pictures.photo(640, 480)).convert("CMYK"))
    assert decode(data, min_side_px=120).shape == (120, 160, 3)


def test_a_png_ignores_the_smaller_side() -> None:
    assert decode(pictures.encoded(pictures.photo(), "png"), min_side_px=4).shape == (48, 64, 3)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_extreme_shapes_decode(width: int, height: int, kind: str) -> None:
    data = pictures.encoded(np.full((height, width, 3), 90, np.uint8), kind)
    assert decode(data, min_side_px=256).shape == (height, width, 3)


# Boxes


@pytest.mark.parametrize(
    ("box", "part"),
    [
        (Box(10, 5, 20, 30), np.s_[5:35, 10:30]),
        (Box(-10, -10, 20, 20), np.s_[:10, :10]),
        (Box(50, 40, 500, 500), np.s_[40:, 50:]),
        (Box(10.2, 5.9, 1.1, 0.3), np.s_[5:7, 10:12]),
        (Box(0.25, 0.5, 0.5, 0.25, is_relative=True), np.s_[24:36, 16:48]),
        (Box(63.5, 47.5, 0.1, 0.1), np.s_[47:, 63:]),
    ],
)
def test_a_box_is_cut_out_and_clipped(box: Box, part: tuple[slice, slice]) -> None:
    assert np.array_equal(decode(pictures.photo(), box=box), pictures.photo()[part])


@pytest.mark.parametrize(
    "box", [Box(64, 0, 5, 5), Box(0, -9, 9, 9), Box(5, 5, 0, 9), Box(5, 5, 9, -1), Box(float("nan"), 0, 5, 5)]
)
@pytest.mark.parametrize("source", [pictures.photo(), pictures.jpeg()], ids=["array", "jpeg"])
def test_a_box_that_shows_nothing_is_refused_with_both_sizes(box: Box, source: NDArray[np.uint8] | bytes) -> None:
    with pytest.raises(PictureUndecodable, match=rf"box {box.x:g},.* shows nothing of the 64x48 picture"):
        decode(source, box=box)


def test_a_box_is_in_pixels_of_the_upright_picture() -> None:
    decoded = decode(pictures.stored_turned(6), box=Box(0, 24, 8, 24))
    assert distance(decoded, pictures.photo()[24:, :8]) < 6


def test_a_box_shows_the_same_part_when_decoded_small() -> None:
    data = pictures.jpeg(pictures.photo(640, 480))
    full, small = (decode(data, min_side_px=side, box=Box(160, 80, 320, 240)) for side in (None, 60))
    assert small.shape == (60, 80, 3)
    assert distance(small, full.reshape(60, 4, 80, 4, 3).mean((1, 3)).astype(np.uint8)) < 3


# Broken pictures


@pytest.mark.parametrize("name", sorted(pictures.broken()))
def test_what_is_no_picture_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(PictureUndecodable) as refusal:
        decode(pictures.broken()[name])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.jpg", "empty file"),
        ("text.jpg", "not a picture (unknown format)"),
        ("truncated.jpg", "truncated JPEG (pass --allow-truncated to index what decodes)"),
        ("truncated.png", "truncated PNG"),
    ],
)
def test_the_reason_is_named(name: str, reason: str) -> None:
    with pytest.raises(PictureUndecodable) as refusal:
        decode(pictures.broken()[name])
    assert str(refusal.value) == reason


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_truncated_jpeg_decodes_as_far_as_it_goes_when_allowed(mode: str) -> None:
    whole = pictures.jpeg(Image.fromarray(pictures.photo(160, 120)).convert(mode))
    notes: list[str] = []
    decoded = decode(whole[: len(whole) // 2], limits=DecodeLimits(allow_truncated=True), notes=notes)
    assert distance(decoded[:32], decode(whole)[:32]) < 1
    assert notes == ["truncated JPEG: only what decodes is used"]


def test_a_whole_jpeg_leaves_no_note() -> None:
    notes: list[str] = []
    decode(pictures.cmyk_jpeg(), limits=DecodeLimits(allow_truncated=True), notes=notes)
    assert notes == []


def test_allowing_truncated_pictures_leaves_pillows_switch_alone() -> None:
    decode(pictures.truncated_jpeg(), limits=DecodeLimits(allow_truncated=True))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_junk_between_segments_is_passed_over() -> None:
    data = pictures.jpeg()
    assert np.array_equal(decode(data[:20] + b"junk" + data[20:]), decode(data))


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "webp", "bmp", "tiff", "avif"])
def test_damaged_bytes_raise_nothing_but_picture_errors(kind: str) -> None:
    whole = np.frombuffer(pictures.encoded(pictures.photo(), kind), np.uint8)
    generator = np.random.default_rng(5)
    for _ in range(60):
        damaged = whole.copy()
        damaged[generator.integers(0, min(len(whole), 400), 6)] = generator.integers(0, 256, 6)
        cut = int(generator.integers(1, len(whole) + 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about odd TIFF tags
            try:
                decoded = decode(damaged[:cut].tobytes(), limits=DecodeLimits(max_megapixels=1))
            except PictureError as error:
                assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
            else:
                assert decoded.shape[2] == 3


# Limits


def test_a_picture_over_the_limit_is_refused_by_its_header() -> None:
    data = pictures.huge_jpeg_header(40_000, 10_300)
    with pytest.raises(PictureTooLarge) as refusal:
        decode(data)
    assert str(refusal.value) == "412.0 MP, the limit is 100 MP (raise it with --max-megapixels)"


@pytest.mark.parametrize("side", [11_000, 20_000])  # above our limit; and above Pillow's, at which it raises itself
def test_a_decompression_bomb_is_refused(side: int) -> None:
    with pytest.raises(PictureTooLarge, match="the limit is 100 MP"):
        decode(pictures.bomb_png(side, side))


def test_a_frame_larger_than_the_header_said_is_refused() -> None:
    data = bytearray(pictures.encoded(Image.new("P", (8, 8)), "gif"))
    at = data.index(b",\0\0\0\0\x08\0\x08\0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(PictureTooLarge):
        decode(bytes(data))


def test_a_picture_below_our_limit_passes_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for kind in ("png", "gif", "webp", "tiff", "bmp", "jpeg"):
        assert decode(pictures.encoded(pictures.photo(), kind)).shape == (48, 64, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_pillows_limit_is_put_back_after_the_last_of_many_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pillow_limit.raised_to(5000):
        with pillow_limit.raised_to(900):
            assert Image.MAX_IMAGE_PIXELS == 5000
        assert Image.MAX_IMAGE_PIXELS == 5000
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_limit_that_somebody_else_sets_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pillow_limit.raised_to(5000):
        Image.MAX_IMAGE_PIXELS = 50
    assert Image.MAX_IMAGE_PIXELS == 50


def test_many_threads_decode_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    sources = [
        pictures.encoded(pictures.photo(seed=seed), kind) for seed in range(8) for kind in ("png", "jpeg", "webp")
    ]
    alone = [decode(source) for source in sources]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decode, sources * 4))
    assert all(np.array_equal(alone[at % len(alone)], pixels) for at, pixels in enumerate(together))


# Headers


def test_jpeg_header_agrees_with_pillow() -> None:
    for options in ({}, {"progressive": True}, {"comment": "x" * 500, "exif": b"Exif\0\0II*\0"}):
        header = jpeg_header(pictures.jpeg(pictures.photo(33, 17), **options))
        assert header is not None
        assert header[:3] == (33, 17, 3)


def test_a_header_cut_anywhere_ends_without_a_crash() -> None:
    data = pictures.jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0")
    start = data.index(b"\xff\xda")
    assert all(jpeg_header(data[:cut]) in (None, jpeg_header(data)) for cut in range(start))


@pytest.mark.parametrize(
    "head", [b"", b"BM", b"BM is how this text begins, and then it goes on", b"RIFFxxxxWAVE", b"%!PS-Adobe"]
)
def test_formats_outside_the_list_have_no_name(head: bytes) -> None:
    assert format_of(head) is None


# Files


def test_a_missing_file_a_folder_and_a_broken_link_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "folder.jpg").mkdir()
    reasons = {"none.jpg": "no such file", "link.jpg": "broken symlink", "loop.jpg": "symlink loop"}
    for name, reason in (reasons | {"folder.jpg": "is a folder", "nul\0.jpg": "embedded null byte"}).items():
        with pytest.raises(PictureUnreadable) as refusal:
            decode(tmp_path / name)
        assert str(refusal.value) == reason


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(PictureUnreadable, match="a pipe, socket or device"):
        read_bytes(tmp_path / "pipe.jpg")


def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(pictures.jpeg())
    (tmp_path / "a.jpg").chmod(0)
    code = """
from retrieval.images import decode
from retrieval.errors import PictureUnreadable
try:
    decode(sys.argv[1])
except PictureUnreadable as error:
    print(error)
"""
    assert run_unprivileged(code, tmp_path / "a.jpg").stdout == "permission denied\n"


def test_names_with_newlines_and_bytes_that_are_not_utf8_can_be_read(tmp_path: Path) -> None:
    for name in ("new\nline.jpg", os.fsdecode(b"caf\xe9.jpg")):
        (tmp_path / name).write_bytes(b"x")
        assert read_bytes(tmp_path / name) == b"x"


def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for name in (tmp_path, tmp_path / "none.jpg"):
        with pytest.raises(PictureUnreadable):
            read_bytes(name)
    assert len(os.listdir("/proc/self/fd")) == before
