"""How does every picture of an index get a vector by another model, while the index is read and written?"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from indexer.errors import IndexerError
from indexer.lookup import Picture
from indexer.spaces import Space
from indexer.store import IndexStore
from retrieval.encoder.runtime import Encoder
from retrieval.evaluation.pictures import record_of
from retrieval.images import DEFAULT_LIMITS, DecodeLimits
from retrieval.pipeline import Embedded, embed
from retrieval.records import ImageRecord, Skipped
from retrieval.sync.run import COMMIT_EVERY_S, COMMIT_ROWS

_BLOCK = 1024  # pictures looked up at once

OnProgress = Callable[[int, int], None]
"""Called with the number of pictures looked at so far, and how many there are; more may come meanwhile."""


@dataclass
class Reembedded:
    """What a re-embedding came to.

    Attributes:
        embedded: pictures.
        skipped: by id, pictures that cannot be used any more, with the reason; they have no vector in the space.
    """

    embedded: int = 0
    skipped: dict[int, Skipped] = field(default_factory=dict)


def fill_space(
    store: IndexStore,
    space: Space,
    encoder: Encoder,
    *,
    limits: DecodeLimits = DEFAULT_LIMITS,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> Reembedded:
    """Embed every picture that has no vector in a space yet; those that come meanwhile too.

    Commits every few seconds, so that a run that is stopped, however, is gone on with by the next.

    Args:
        store: the index; somebody else may write to it meanwhile.
        space: not the live one.
        encoder: the model of that space.
        limits, threads: as for `embed`.
        on_progress: called after each picture.

    Raises:
        IndexReadOnly, IndexBusy, DiskFull
    """
    done = Reembedded()
    waiting: deque[Picture] = deque()
    vectors: dict[int, NDArray[np.float32]] = {}
    committed_s = time.perf_counter()
    total = store.count_without_vector(space)
    outcomes = embed(_records(store, space, waiting), encoder, limits=limits, threads=threads)
    try:
        for outcome in outcomes:  # in the order of the records
            picture = waiting.popleft()
            if isinstance(outcome, Embedded):
                vectors[picture.id] = outcome.vector
                done.embedded += 1
            elif isinstance(outcome, Skipped):
                done.skipped[picture.id] = Skipped(picture.key, outcome.reason)
            now_s = time.perf_counter()
            if now_s - committed_s >= COMMIT_EVERY_S or len(vectors) >= COMMIT_ROWS:
                store.fill(space, vectors)
                vectors, committed_s = {}, now_s
            if on_progress is not None:
                seen = done.embedded + len(done.skipped)
                on_progress(seen, max(seen, total))
    except BaseException:
        outcomes.close()
        with suppress(IndexerError):  # where committing is what failed, that is already on its way to the caller
            store.fill(space, vectors)
        raise
    store.fill(space, vectors)
    return done


def _records(store: IndexStore, space: Space, waiting: deque[Picture]) -> Iterator[ImageRecord]:
    """Each picture once; every one that is handed out waits for its outcome."""
    after_id = 0
    while block := store.pictures_without_vector(space, after_id=after_id, most=_BLOCK):
        after_id = block[-1].id
        for picture in block:
            waiting.append(picture)
            yield record_of(picture)
