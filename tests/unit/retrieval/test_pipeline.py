"""Records become embeddings: all of them, in order, whatever one of them is like."""

import io
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xxhash
from PIL import Image

from retrieval.encoder.preprocess import decode_min_side, preprocess
from retrieval.encoder.runtime import Encoder, open_encoder
from retrieval.images import DecodeLimits, decode
from retrieval.pipeline import Embedded, Unchanged, embed
from retrieval.records import Box, ImageRecord, Skipped


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    encoder = open_encoder("efficientnet_lite0", device="cpu")
    yield encoder
    encoder.close()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRecord]:
    """Twenty pictures that do not look alike: JPEG and PNG, upright and across."""
    folder = tmp_path_factory.mktemp("gallery")
    rng = np.random.default_rng(23)
    records = []
    for i in range(20):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        path = folder / f"{i:02}.{'jpg' if i % 3 else 'png'}"
        coarse.resize((300 + 10 * i, 320), Image.Resampling.NEAREST).save(path)
        records.append(record_of(path))
    return records


def record_of(path: Path, **fields: object) -> ImageRecord:
    return ImageRecord(path.name, str(path), size_bytes=0, mtime_ns=0, **fields)  # type: ignore[arg-type]


def content_hash(record: ImageRecord) -> str:
    return xxhash.xxh3_128_hexdigest(Path(record.path).read_bytes())


def jpeg(width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 40).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def decode_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_every_picture_is_embedded_as_if_it_were_alone(gallery: list[ImageRecord], encoder: Encoder) -> None:
    results = list(embed(gallery, encoder, threads=2))

    assert [result.record for result in results if isinstance(result, Embedded)] == gallery
    for result in results:
        assert isinstance(result, Embedded)
        image = decode(Path(result.record.path), min_side_px=decode_min_side(encoder.preprocessing))
        alone = encoder.encode(preprocess(image, encoder.preprocessing)[np.newaxis])[0]
        assert result.vector @ alone >= 0.9999
        assert result.note is None


def test_what_was_read_is_described_not_what_was_scanned(tmp_path: Path, encoder: Encoder) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg())
    os.utime(path, ns=(5, 1_234_567_890))

    (result,) = embed([ImageRecord("a", str(path), size_bytes=99, mtime_ns=99)], encoder)

    assert isinstance(result, Embedded)
    assert (result.size_bytes, result.mtime_ns) == (path.stat().st_size, 1_234_567_890)
    assert result.content_hash == content_hash(result.record)


def test_the_number_of_threads_changes_nothing(gallery: list[ImageRecord], encoder: Encoder) -> None:
    one, three = (list(embed(gallery, encoder, threads=threads)) for threads in (1, 3))

    for a, b in zip(one, three, strict=True):
        assert isinstance(a, Embedded)
        assert isinstance(b, Embedded)
        assert a.record is b.record
        assert a.vector @ b.vector >= 0.9999


def test_known_bytes_are_not_decoded(tmp_path: Path, encoder: Encoder) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"no picture at all")
    record = record_of(path)
    os.utime(path, ns=(5, 77))

    assert list(embed([record], encoder, known_hash=content_hash)) == [
        Unchanged(record, content_hash(record), size_bytes=17, mtime_ns=77)
    ]


def test_changed_bytes_are_embedded_anew(gallery: list[ImageRecord], encoder: Encoder) -> None:
    (result,) = embed(gallery[:1], encoder, known_hash=lambda record: "0" * 32)

    assert isinstance(result, Embedded)


def test_known_hashes_are_asked_for_in_the_calling_thread(gallery: list[ImageRecord], encoder: Encoder) -> None:
    asked_in = set()

    def known_hash(record: ImageRecord) -> None:
        asked_in.add(threading.current_thread())

    list(embed(gallery, encoder, known_hash=known_hash))

    assert asked_in == {threading.current_thread()}


def test_unchanged_and_bad_pictures_keep_their_places_among_the_others(
    gallery: list[ImageRecord], encoder: Encoder, tmp_path: Path
) -> None:
    bad = record_of(tmp_path / "bad.jpg")
    Path(bad.path).write_bytes(b"text")
    mixed = list(itertools.chain.from_iterable((bad, record) for record in gallery))
    known = {record.key: content_hash(record) for record in gallery[::3]}

    results = list(embed(mixed, encoder, known_hash=lambda record: known.get(record.key)))

    keys = [result.key if isinstance(result, Skipped) else result.record.key for result in results]
    assert keys == [record.key for record in mixed]
    kinds = {result.record.key: type(result) for result in results if not isinstance(result, Skipped)}
    assert kinds == {record.key: Unchanged if record.key in known else Embedded for record in gallery}
    assert sum(isinstance(result, Skipped) for result in results) == len(gallery)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty file"), (b"text", "not a picture"), (jpeg()[:-300], "truncated JPEG")],
)
def test_a_picture_that_does_not_decode_is_remembered_with_its_reason(
    tmp_path: Path, encoder: Encoder, content: bytes, reason: str
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    os.utime(path, ns=(5, 77))

    (result,) = embed([record_of(path)], encoder)

    assert isinstance(result, Skipped)
    assert (result.key, result.cause, result.known) == ("a.jpg", "decode", False)
    assert (result.size_bytes, result.mtime_ns) == (len(content), 77)
    assert reason in result.reason


@pytest.mark.parametrize("kind", ["missing", "folder", "broken link", "null character"])
def test_a_picture_that_cannot_be_read_is_tried_again_next_time(tmp_path: Path, encoder: Encoder, kind: str) -> None:
    path = tmp_path / "a.jpg"
    if kind == "folder":
        path.mkdir()
    elif kind == "broken link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "null character":
        path = tmp_path / "a\0.jpg"

    (result,) = embed([record_of(path)], encoder)

    assert isinstance(result, Skipped)
    assert (result.cause, result.size_bytes, result.mtime_ns) == ("access", -1, -1)
    assert "\n" not in result.reason


def test_an_error_nobody_thought_of_sets_one_picture_aside(
    gallery: list[ImageRecord], encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fragile_preprocess(image: np.ndarray, how: object) -> np.ndarray:
        if image.shape[1] == 310:  # the second picture
            raise ZeroDivisionError("float division\nby zero")
        return preprocess(image, how)  # type: ignore[arg-type]

    monkeypatch.setattr("retrieval.pipeline.preprocess", fragile_preprocess)

    first, second, third = embed(gallery[:3], encoder)

    assert isinstance(first, Embedded)
    assert isinstance(third, Embedded)
    assert isinstance(second, Skipped)
    assert second.reason == "cannot be decoded: ZeroDivisionError: float division by zero"


def test_the_limits_are_kept(tmp_path: Path, encoder: Encoder) -> None:
    large, cut = tmp_path / "large.jpg", tmp_path / "cut.jpg"
    large.write_bytes(jpeg(200, 200))
    cut.write_bytes(jpeg()[:-300])
    limits = DecodeLimits(max_megapixels=0.01, allow_truncated=True)

    refused, partial = embed([record_of(large), record_of(cut)], encoder, limits=limits)

    assert isinstance(refused, Skipped)
    assert "MP" in refused.reason
    assert isinstance(partial, Embedded)
    assert partial.note is not None
    assert "truncated" in partial.note


def test_only_the_box_is_embedded(gallery: list[ImageRecord], encoder: Encoder, tmp_path: Path) -> None:
    left, right = (Image.open(gallery[i].path).convert("RGB").resize((320, 320)) for i in (4, 5))
    pair = Image.new("RGB", (640, 320))
    pair.paste(left, (0, 0))
    pair.paste(right, (320, 0))
    pair.save(tmp_path / "pair.png")
    right.save(tmp_path / "right.png")

    boxed, whole, alone = embed(
        [
            record_of(tmp_path / "pair.png", box=Box(0.5, 0, 0.5, 1, is_relative=True)),
            record_of(tmp_path / "pair.png"),
            record_of(tmp_path / "right.png"),
        ],
        encoder,
    )

    assert isinstance(boxed, Embedded)
    assert isinstance(whole, Embedded)
    assert isinstance(alone, Embedded)
    assert boxed.vector @ alone.vector >= 0.999
    assert whole.vector @ alone.vector < 0.99


def test_an_empty_gallery_yields_nothing(encoder: Encoder) -> None:
    assert list(embed([], encoder)) == []


def test_records_are_read_only_a_little_ahead(gallery: list[ImageRecord], encoder: Encoder) -> None:
    read = 0

    def endless() -> Iterator[ImageRecord]:
        nonlocal read
        for read, record in enumerate(itertools.cycle(gallery), 1):  # noqa: B007
            yield record

    results = embed(endless(), encoder, threads=2)
    for _ in range(100):
        next(results)
    results.close()

    assert read <= 100 + 6 * encoder.batch_size


def test_unchanged_pictures_flow_though_no_batch_fills(gallery: list[ImageRecord], encoder: Encoder) -> None:
    known = content_hash(gallery[0])
    results = embed(itertools.repeat(gallery[0]), encoder, known_hash=lambda record: known)

    assert all(isinstance(next(results), Unchanged) for _ in range(1000))
    results.close()


def test_closing_early_ends_the_threads(gallery: list[ImageRecord], encoder: Encoder) -> None:
    results = embed(itertools.cycle(gallery), encoder, threads=2)
    next(results)
    assert decode_threads()
    results.close()

    assert decode_threads() == []


def test_an_error_of_the_gallery_reaches_the_caller_and_ends_the_threads(
    gallery: list[ImageRecord], encoder: Encoder
) -> None:
    def failing() -> Iterator[ImageRecord]:
        yield from gallery
        raise LookupError("the manifest ends here")

    with pytest.raises(LookupError, match="ends here"):
        list(embed(failing(), encoder))
    assert decode_threads() == []


def test_a_closed_encoder_is_an_error_and_no_thread_remains(gallery: list[ImageRecord]) -> None:
    encoder = open_encoder("efficientnet_lite0", device="cpu")
    encoder.close()

    with pytest.raises(ValueError, match="closed"):
        list(embed(gallery, encoder))
    assert decode_threads() == []
