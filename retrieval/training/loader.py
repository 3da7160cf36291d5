"""Batches of augmented pixels, decoded in threads while the network learns from the ones before."""

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.encoder.preprocess import Preprocessing, decode_min_side, preprocess
from retrieval.errors import PictureError, TrainingError
from retrieval.images import DecodeLimits, decode
from retrieval.records import ImageRecord
from retrieval.training.augment import Augmentation, augment

_BATCHES_AHEAD = 2
Pixels = NDArray[np.uint8]  # (N, 3, P, P)


@dataclass(frozen=True)
class BatchLoader:
    """Reads pictures for training and for embedding.

    Attributes:
        records: (N,) the pictures; rows index them.
        preprocessing: what the network sees when it embeds.
        augmentation: what happens to a picture before it is trained on.
        train_px: P of a training picture; may be smaller than that of embedding.
        limits: what is too large to decode.
        threads: decode threads.
    """

    records: Sequence[ImageRecord]
    preprocessing: Preprocessing
    augmentation: Augmentation
    train_px: int
    limits: DecodeLimits
    threads: int

    def training_batches(self, batches: Sequence[NDArray[np.int64]], seed: Sequence[int]) -> Iterator[Pixels]:
        """Augmented pixels of each batch of rows.

        A picture's changes are drawn from `seed` and its place in the epoch, so that an epoch that is trained again
        sees the same pixels whatever the threads do.

        Raises:
            TrainingError: a picture cannot be read any more.
        """
        places = iter(range(sum(map(len, batches))))
        numbered = [[(int(row), (*seed, next(places))) for row in batch] for batch in batches]
        yield from self._load(numbered)

    def embedding_batches(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[Pixels]:
        """Pixels of each batch of rows as indexing and queries see them.

        Raises:
            TrainingError: a picture cannot be read any more.
        """
        yield from self._load([[(int(row), None) for row in batch] for batch in batches])

    def _load(self, batches: Sequence[Sequence[tuple[int, tuple[int, ...] | None]]]) -> Iterator[Pixels]:
        pending: deque[list[Future[Pixels]]] = deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
            try:
                for batch in batches:
                    pending.append([pool.submit(self._pixels, row, seed) for row, seed in batch])
                    if len(pending) > _BATCHES_AHEAD:
                        yield np.stack([future.result() for future in pending.popleft()])
                while pending:
                    yield np.stack([future.result() for future in pending.popleft()])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _pixels(self, row: int, seed: tuple[int, ...] | None) -> Pixels:
        record, how = self.records[row], self.preprocessing
        min_side_px = decode_min_side(how) if seed is None else self._train_min_side()
        try:
            image = decode(os.fspath(record.path), min_side_px=min_side_px, box=record.box, limits=self.limits)
        except PictureError as error:
            raise TrainingError(
                f"picture {record.key} cannot be read any more: {error}; put it back and --resume"
            ) from error
        if seed is None:
            return preprocess(image, how)
        random = np.random.default_rng(seed)
        return augment(image, self.augmentation, self.train_px, random, how.input_px / how.resize_px)

    def _train_min_side(self) -> int:
        """The shorter side, in pixels, from which even the smallest crop is not enlarged."""
        how = self.augmentation
        if how.crop_area >= 1.0:  # the centre square, as indexing sees it
            return math.ceil(self.train_px * self.preprocessing.resize_px / self.preprocessing.input_px)
        return math.ceil(self.train_px * math.sqrt(how.crop_aspect / how.crop_area))
