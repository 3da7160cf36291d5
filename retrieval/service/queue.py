"""How do searches of many callers share one encoder? They are decoded as they come, and embedded with who waits too.

No batch is waited for: whoever has come while the encoder was busy is of the next one.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from retrieval.embedder import ImageLike
from retrieval.engine import SearchEngine
from retrieval.prepared import EmbeddedQuery, PreparedQuery
from retrieval.records import Box
from retrieval.service.following import Follower
from retrieval.service.metrics import Metrics
from retrieval.service.problems import RETRY_AFTER_S, Problem
from retrieval.service.settings import ServiceSettings
from retrieval.threads import usable_cores

T = TypeVar("T")
WORKERS = 2  # so that one searches while the other embeds
MOST_TOGETHER = 8  # as many as the encoder takes at once


@dataclass(eq=False, slots=True)
class _Waiting:
    """A query that is decoded, and what its caller wants of it once it is embedded."""

    query: PreparedQuery
    then: Callable[[EmbeddedQuery], Any]
    future: "asyncio.Future[Any]"
    since_s: float = field(default_factory=time.perf_counter)


class SearchQueue:
    """The way of pictures through decoding and embedding to answers.

    Args:
        engine: that answers.
        follower: that moves it on.
        settings: how many at once, and for how long.
        metrics: that are kept.
    """

    def __init__(self, engine: SearchEngine, follower: Follower, settings: ServiceSettings, metrics: Metrics) -> None:
        self._engine, self._follower, self._settings, self._metrics = engine, follower, settings, metrics
        self._places = 0
        self._threads = ThreadPoolExecutor(usable_cores(), "decode")
        self._waiting: deque[_Waiting] = deque()
        self._is_any = threading.Condition()
        self._is_closed = False
        self._workers = [threading.Thread(target=self._work, name=f"search-{n}", daemon=True) for n in range(WORKERS)]
        for worker in self._workers:
            worker.start()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take one of the places of those who wait or run.

        Raises:
            Problem: all are taken; 429.
        """
        if self._places >= self._settings.max_concurrency:
            self._metrics.refused.inc()
            raise Problem(
                429,
                f"{self._places} requests wait already (the server's --max-concurrency); try again in a moment",
                {"Retry-After": str(RETRY_AFTER_S)},
            )
        self._places += 1
        self._metrics.queue.set(self._places)
        try:
            yield
        finally:
            self._places -= 1
            self._metrics.queue.set(self._places)

    async def embed(
        self,
        image: ImageLike,
        then: Callable[[EmbeddedQuery], T],
        *,
        box: Box | None = None,
        min_generation: int | None = None,
    ) -> T:
        """What follows from a picture, within a place that the caller has taken.

        Args:
            image: the picture.
            then: what to do once it is embedded, such as to search; in one of the queue's threads.
            box: the part to look at.
            min_generation: answer from this one or a later.

        Raises:
            Problem: that generation is not there.
            PictureError: the picture cannot be used.
            Whatever `then` raises.
        """
        with self._timed("decode"):
            query = await self.run(self._prepare, image, box, min_generation)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._is_any:
            self._waiting.append(_Waiting(query, then, future))
            self._is_any.notify()
        return await future

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run something else that takes its time, in the threads of decoding."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def close(self) -> None:
        """End the threads; searches must have ended."""
        with self._is_any:
            self._is_closed = True
            self._is_any.notify_all()
        for worker in self._workers:
            worker.join()
        self._threads.shutdown()

    def _prepare(self, image: ImageLike, box: Box | None, min_generation: int | None) -> PreparedQuery:
        self._follower.catch_up(min_generation, self._settings.deadline_s)
        return self._engine.prepare(image, box)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start_s = time.perf_counter()
        yield
        self._metrics.stage_seconds.labels(stage).observe(time.perf_counter() - start_s)

    def _work(self) -> None:
        while batch := self._next():
            now_s = time.perf_counter()
            for one in batch:
                self._metrics.stage_seconds.labels("wait").observe(now_s - one.since_s)
            self._metrics.batch_size.observe(len(batch))
            with self._timed("embed and search"):
                outcomes = self._outcomes(batch)
            batch[0].future.get_loop().call_soon_threadsafe(_tell, batch, outcomes)

    def _next(self) -> list[_Waiting]:
        """Those that wait, as many as are embedded together; nothing when all is over."""
        with self._is_any:
            while True:
                batch: list[_Waiting] = []
                while self._waiting and len(batch) < MOST_TOGETHER:
                    one = self._waiting.popleft()
                    if not one.future.done():  # its caller has gone away otherwise
                        batch.append(one)
                if batch or self._is_closed:
                    return batch
                self._is_any.wait()

    def _outcomes(self, batch: Sequence[_Waiting]) -> list[Any]:
        try:
            together = self._engine.embed_prepared([one.query for one in batch])
        except Exception as error:  # theirs to be told
            return [error] * len(batch)
        outcomes = []
        for one, embedded in zip(batch, together, strict=True):
            try:
                outcomes.append(one.then(embedded))
            except Exception as error:  # of this query alone
                outcomes.append(error)
        return outcomes


def _tell(batch: Sequence[_Waiting], outcomes: Sequence[Any]) -> None:
    for one, outcome in zip(batch, outcomes, strict=True):
        if one.future.done():
            continue
        if isinstance(outcome, Exception):
            one.future.set_exception(outcome)
        else:
            one.future.set_result(outcome)
