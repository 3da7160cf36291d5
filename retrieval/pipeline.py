"""How do records become embeddings? Decode threads, bounded look-ahead, order kept, bad pictures set aside."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from retrieval.encoder.preprocess import Preprocessing, decode_min_side, preprocess
from retrieval.encoder.runtime import Encoder
from retrieval.errors import PictureError, PictureUnreadable
from retrieval.files import one_line, why_unreadable
from retrieval.images import DEFAULT_LIMITS, DecodeLimits, decode, read_bytes
from retrieval.records import ImageRecord, Skipped
from retrieval.threads import thread_budget

_MOST_OUTCOMES_PER_BATCH = 256  # in a gallery of unchanged pictures no batch ever fills; results flow all the same


@dataclass(frozen=True, slots=True)
class Embedded:
    """One picture and its embedding.

    Attributes:
        record: the picture, as it was passed in.
        content_hash: xxh3_128 of its bytes, in hex; tells changes, is no protection against forgery.
        size_bytes, mtime_ns: of the file that was read.
        vector: (D,) float32, a unit vector.
        note: what the user should know, for instance that only a part of the picture decodes; or None.
    """

    record: ImageRecord
    content_hash: str
    size_bytes: int
    mtime_ns: int
    vector: NDArray[np.float32]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """One picture whose bytes are the known ones; it was not decoded.

    Attributes:
        record: the picture, as it was passed in.
        content_hash: as it was known.
        size_bytes, mtime_ns: of the file that was read.
    """

    record: ImageRecord
    content_hash: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What `Embedded` needs, with pixels (3, P, P) in place of the vector."""

    record: ImageRecord
    content_hash: str
    size_bytes: int
    mtime_ns: int
    pixels: NDArray[np.uint8]
    note: str | None


_Outcome = _Loaded | Unchanged | Skipped


def _nothing_known(record: ImageRecord) -> str | None:
    return None


def embed(
    records: Iterable[ImageRecord],
    encoder: Encoder,
    *,
    limits: DecodeLimits = DEFAULT_LIMITS,
    threads: int | None = None,
    known_hash: Callable[[ImageRecord], str | None] = _nothing_known,
) -> Generator[Embedded | Unchanged | Skipped, None, None]:
    """Embed pictures, many at once.

    A bad picture never ends the run. Closing the iterator early ends the threads after the pictures they are at; what
    was yielded is complete, what was not is as if it had never been read.

    Args:
        records: read a few batches ahead, in the calling thread.
        encoder: gets batches while the next ones are decoded.
        limits: what is too large to decode.
        threads: cores to keep busy, None for all this process may use; see `thread_budget`.
        known_hash: the content hash that a record had when it was embedded, or None; called in the calling thread.
            Pictures whose bytes still have it are not decoded.

    Yields:
        One outcome per record, in the order of the records.
    """
    load = _Loader(encoder.preprocessing, limits)
    decoding = thread_budget(threads).decoding
    look_ahead = encoder.batch_size + 2 * decoding
    with ThreadPoolExecutor(decoding, thread_name_prefix="decode") as pool:
        outcomes = _in_order(pool, load, ((record, known_hash(record)) for record in records), look_ahead)
        try:
            for batch, vectors in encoder.encode_stream(_batches(outcomes, encoder)):
                rows = iter(vectors)
                for outcome in batch:
                    yield _embedded(outcome, next(rows)) if isinstance(outcome, _Loaded) else outcome
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # leaving the block waits for the pictures being decoded


@dataclass(frozen=True)
class _Loader:
    """Reads and decodes one picture; runs in many threads at once."""

    preprocessing: Preprocessing
    limits: DecodeLimits

    def __call__(self, record: ImageRecord, known_hash: str | None) -> _Outcome:
        try:
            # Looked at before it is read: if the file changes between the two, the next run sees a newer time and
            # reads it again, never an old content under the new time.
            status = Path(record.path).stat()
            content = read_bytes(record.path)
        except PictureUnreadable as error:
            return Skipped(record.key, str(error), cause="access")
        except (OSError, ValueError) as error:
            return Skipped(record.key, why_unreadable(error, record.path), cause="access")
        size_bytes, mtime_ns = len(content), status.st_mtime_ns
        content_hash = xxhash.xxh3_128_hexdigest(content)
        if content_hash == known_hash:
            return Unchanged(record, content_hash, size_bytes, mtime_ns)
        try:
            pixels, note = self._pixels(record, content)
        except PictureError as error:
            return Skipped(record.key, str(error), size_bytes=size_bytes, mtime_ns=mtime_ns)
        except Exception as error:  # one picture of many: set aside, counted and reported
            reason = f"cannot be decoded: {type(error).__name__}: {one_line(error)}"
            return Skipped(record.key, reason, size_bytes=size_bytes, mtime_ns=mtime_ns)
        return _Loaded(record, content_hash, size_bytes, mtime_ns, pixels, note)

    def _pixels(self, record: ImageRecord, content: bytes) -> tuple[NDArray[np.uint8], str | None]:
        notes: list[str] = []
        min_side_px = decode_min_side(self.preprocessing)
        image = decode(content, min_side_px=min_side_px, box=record.box, limits=self.limits, notes=notes)
        return preprocess(image, self.preprocessing), "; ".join(notes) or None


def _in_order(
    pool: ThreadPoolExecutor,
    load: _Loader,
    wanted: Iterable[tuple[ImageRecord, str | None]],
    look_ahead: int,
) -> Iterator[_Outcome]:
    """Load records in the pool, `look_ahead` of them at most beyond the one that is waited for."""
    pending: deque[Future[_Outcome]] = deque()
    for record, known_hash in wanted:
        pending.append(pool.submit(load, record, known_hash))
        if len(pending) > look_ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _batches(outcomes: Iterable[_Outcome], encoder: Encoder) -> Iterator[tuple[list[_Outcome], NDArray[np.uint8]]]:
    """Gather outcomes until their pixels fill a batch; the array is used again, as `encode_stream` allows."""
    side = encoder.preprocessing.input_px
    slots = np.empty((encoder.batch_size, 3, side, side), np.uint8)
    batch: list[_Outcome] = []
    filled = 0
    for outcome in outcomes:
        batch.append(outcome)
        if isinstance(outcome, _Loaded):
            slots[filled] = outcome.pixels
            filled += 1
        if filled == len(slots) or len(batch) == _MOST_OUTCOMES_PER_BATCH:
            yield batch, slots[:filled]
            batch, filled = [], 0
    if batch:
        yield batch, slots[:filled]


def _embedded(loaded: _Loaded, vector: NDArray[np.float32]) -> Embedded:
    return Embedded(loaded.record, loaded.content_hash, loaded.size_bytes, loaded.mtime_ns, vector, loaded.note)
