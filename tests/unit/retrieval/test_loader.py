"""Batches come in order and the same every time, whatever the threads do, and a lost picture is named."""

import dataclasses
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pictures
from retrieval.encoder.preprocess import Preprocessing, preprocess
from retrieval.errors import TrainingError
from retrieval.images import DecodeLimits, decode
from retrieval.records import Box, ImageRecord
from retrieval.training import loader as loading
from retrieval.training.augment import NO_AUGMENTATION, Augmentation
from retrieval.training.loader import BatchLoader

HOW = Preprocessing(32, 36, mean=(127.0,) * 3, std=(128.0,) * 3)
SEED = (7, 2)


def record(path: Path, **fields: Any) -> ImageRecord:
    return ImageRecord(path.name, str(path), path.stat().st_size, path.stat().st_mtime_ns, **fields)


def written(folder: Path, count: int = 6) -> list[ImageRecord]:
    """Small pictures, every other one a PNG, none like another."""
    records = []
    for seed in range(count):
        kind = "png" if seed % 2 else "jpeg"
        path = folder / f"{seed}.{kind}"
        path.write_bytes(pictures.encoded(pictures.photo(60 + seed, 50, seed), kind))
        records.append(record(path))
    return records


def open_loader(records: Sequence[ImageRecord], **changes: Any) -> BatchLoader:
    loader = BatchLoader(records, HOW, Augmentation(), train_px=24, limits=DecodeLimits(max_megapixels=2.0), threads=1)
    return dataclasses.replace(loader, **changes)


def rows(*batches: list[int]) -> list[NDArray[np.int64]]:
    return [np.array(batch, np.int64) for batch in batches]


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.fixture
def decoded_sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Height and width of every picture that was decoded, as it came out."""
    sizes = []

    def spy(*args: Any, **options: Any) -> NDArray[np.uint8]:
        pixels = decode(*args, **options)
        sizes.append(pixels.shape[:2])
        return pixels

    monkeypatch.setattr(loading, "decode", spy)
    return sizes


# Order and repetition


@pytest.mark.parametrize("threads", [1, 4])
def test_embedding_batches_are_what_indexing_sees_in_the_order_asked_for(tmp_path: Path, threads: int) -> None:
    records = written(tmp_path)
    order = rows([5, 0], [3], [1, 1, 4], [2, 0])

    batches = list(open_loader(records, threads=threads).embedding_batches(order))

    expected = [np.stack([preprocess(decode(records[row].path), HOW) for row in batch]) for batch in order]
    assert [batch.dtype for batch in batches] == [np.uint8] * 4
    for found, wanted in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_an_epoch_has_the_same_pixels_whatever_the_threads(tmp_path: Path) -> None:
    records = written(tmp_path)
    order = rows([5, 0, 3], [1, 1, 4], [2, 0, 3], [5, 5, 5])

    one, many = (
        np.stack(list(open_loader(records, threads=threads).training_batches(order, SEED))) for threads in (1, 5)
    )

    assert one.shape == (4, 3, 3, 24, 24)
    np.testing.assert_array_equal(one, many)


def test_another_epoch_sees_other_pixels(tmp_path: Path) -> None:
    loader = open_loader(written(tmp_path, 1))
    (first,), (second,) = (list(loader.training_batches(rows([0]), (7, epoch))) for epoch in (1, 2))
    assert (first != second).any()


def test_a_picture_that_stands_twice_in_an_epoch_looks_different_there(tmp_path: Path) -> None:
    (first, again), (later, _) = open_loader(written(tmp_path, 1)).training_batches(rows([0, 0], [0, 0]), SEED)
    assert (first != again).any()
    assert (first != later).any()


def test_how_an_epoch_is_cut_into_batches_does_not_change_its_pixels(tmp_path: Path) -> None:
    loader = open_loader(written(tmp_path, 4))
    whole = np.concatenate(list(loader.training_batches(rows([3, 1, 2, 0]), SEED)))
    halves = np.concatenate(list(loader.training_batches(rows([3, 1], [2, 0]), SEED)))
    np.testing.assert_array_equal(whole, halves)


def test_without_augmentation_training_sees_what_embedding_sees(tmp_path: Path) -> None:
    loader = open_loader(written(tmp_path), augmentation=NO_AUGMENTATION, train_px=HOW.input_px)
    order = rows([0, 1, 2, 3, 4, 5])
    (trained_on,), (embedded,) = loader.training_batches(order, SEED), loader.embedding_batches(order)
    assert np.abs(trained_on.astype(int) - embedded).max() <= 1


def test_a_box_is_the_part_that_is_seen(tmp_path: Path) -> None:
    (whole,) = written(tmp_path, 1)
    boxed = dataclasses.replace(whole, box=Box(10, 5, 40, 40))
    (embedded,) = open_loader([boxed]).embedding_batches(rows([0]))
    np.testing.assert_array_equal(embedded[0], preprocess(decode(whole.path)[5:45, 10:50], HOW))


# Scale


@pytest.mark.parametrize(
    ("how", "augmentation", "share"),
    [
        # The shorter side of the smallest crop, as a share of the picture's: sqrt(area / aspect).
        (HOW, Augmentation(crop_area=0.3, crop_aspect=4 / 3), math.sqrt(0.3 * 3 / 4)),
        (HOW, Augmentation(crop_area=0.05, crop_aspect=2.0), math.sqrt(0.05 / 2)),
        # Nothing is cropped: the centre that indexing keeps, half of the shorter side.
        (dataclasses.replace(HOW, resize_px=2 * HOW.input_px), NO_AUGMENTATION, 0.5),
    ],
)
def test_a_large_jpeg_is_decoded_smaller_but_never_enlarged(
    tmp_path: Path,
    decoded_sizes: list[tuple[int, int]],
    how: Preprocessing,
    augmentation: Augmentation,
    share: float,
) -> None:
    (tmp_path / "large.jpg").write_bytes(pictures.jpeg(pictures.photo(1600, 1024)))
    train_px = 32
    large = open_loader(
        [record(tmp_path / "large.jpg")], preprocessing=how, augmentation=augmentation, train_px=train_px
    )

    list(large.training_batches(rows([0]), SEED))

    ((height, width),) = decoded_sizes
    assert height < 1024
    assert width / height == pytest.approx(1600 / 1024, rel=0.01)
    assert height * share >= train_px


def test_a_jpeg_is_decoded_no_smaller_than_the_centre_that_training_sees_without_a_crop(
    tmp_path: Path, decoded_sizes: list[tuple[int, int]]
) -> None:
    # An eighth would leave 32 pixels, of which the centre's 16 would be enlarged to 32; a quarter does not.
    (tmp_path / "square.jpg").write_bytes(pictures.jpeg(pictures.photo(256, 256)))
    how = dataclasses.replace(HOW, resize_px=2 * HOW.input_px)
    loader = open_loader(
        [record(tmp_path / "square.jpg")], preprocessing=how, augmentation=NO_AUGMENTATION, train_px=32
    )

    list(loader.training_batches(rows([0]), SEED))

    assert decoded_sizes == [(64, 64)]


def test_embedding_decodes_at_the_scale_that_indexing_decodes_at(
    tmp_path: Path, decoded_sizes: list[tuple[int, int]]
) -> None:
    # 1.9 times the 36 pixels of the resize are 69: of 1,024 an eighth is enough, 128.
    (tmp_path / "large.jpg").write_bytes(pictures.jpeg(pictures.photo(1600, 1024)))
    list(open_loader([record(tmp_path / "large.jpg")]).embedding_batches(rows([0])))
    assert decoded_sizes == [(128, 200)]


# Lost pictures


@pytest.mark.parametrize("content", [None, b"", b"no picture", pictures.truncated_jpeg()])
def test_a_picture_that_cannot_be_read_any_more_is_named(tmp_path: Path, content: bytes | None) -> None:
    records = written(tmp_path)
    path = Path(records[3].path)
    path.unlink() if content is None else path.write_bytes(content)
    named = r"^picture 3\.png cannot be read any more: .+; put it back and --resume$"

    with pytest.raises(TrainingError, match=named):
        list(open_loader(records, threads=3).training_batches(rows([0, 1, 2], [3, 4, 5]), SEED))
    with pytest.raises(TrainingError, match=named):
        list(open_loader(records, threads=3).embedding_batches(rows([0, 1, 2], [3, 4, 5])))


def test_a_picture_above_the_limit_is_named(tmp_path: Path) -> None:
    loader = open_loader(written(tmp_path, 1), limits=DecodeLimits(max_megapixels=0.001))
    with pytest.raises(TrainingError, match=r"picture 0\.jpeg .*the limit is 0\.001 MP"):
        list(loader.training_batches(rows([0]), SEED))


# Threads


def test_no_thread_is_left_when_an_epoch_breaks_off(tmp_path: Path) -> None:
    batches = open_loader(written(tmp_path), threads=3).training_batches(rows(*[[0, 1, 2, 3]] * 8), SEED)
    next(batches)
    assert decoding_threads()

    batches.close()  # type: ignore[attr-defined]  # it is a generator

    assert decoding_threads() == []


def test_no_thread_is_left_when_a_picture_is_lost(tmp_path: Path) -> None:
    records = written(tmp_path)
    Path(records[0].path).unlink()
    with pytest.raises(TrainingError):
        list(open_loader(records, threads=3).embedding_batches(rows(*[[0, 1, 2, 3]] * 8)))
    assert decoding_threads() == []


def test_only_a_few_batches_are_decoded_ahead(tmp_path: Path, decoded_sizes: list[tuple[int, int]]) -> None:
    batches = open_loader(written(tmp_path), threads=4).embedding_batches(rows(*[[0, 1]] * 50))
    for _ in range(3):
        next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert len(decoded_sizes) <= 2 * (3 + 2)  # those taken and two more


def test_no_batches_are_no_pixels(tmp_path: Path) -> None:
    assert list(open_loader(written(tmp_path, 1)).training_batches([], SEED)) == []
