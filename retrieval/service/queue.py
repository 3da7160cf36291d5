"""How do searches of many callers share one encoder? They are decoded as they come, and embedded with who waits too.

Whoever has decoded a picture embeds it, and with it those that wait, if not enough others do so already; else it waits
for these. Nobody waits for a batch to fill, and an idle server wakes one thread for a search.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from retrieval.embedder import ImageLike
from retrieval.engine import SearchEngine
from retrieval.prepared import EmbeddedQuery, PreparedQuery, in_groups
from retrieval.records import Box
from retrieval.service.following import Follower
from retrieval.service.metrics import Metrics
from retrieval.service.problems import RETRY_AFTER_S, Problem
from retrieval.service.settings import ServiceSettings
from retrieval.threads import usable_cores

T = TypeVar("T")
EMBEDDING = 2  # threads, so that one searches while the other embeds
MOST_TOGETHER = 4  # as many as the encoder takes at once in the shortest time


class _Wanted(NamedTuple):
    """What a caller wants of a picture.

    Attributes:
        then: what is done once it is embedded, with others that are `alike`.
        alike: equal for all of whom the same is wanted.
        future: of the answer.
    """

    then: Callable[[list[EmbeddedQuery]], Sequence[Any]]
    alike: Any
    future: "asyncio.Future[Any]"


class _Waiting(NamedTuple):
    """A picture that is decoded, and since when."""

    wanted: _Wanted
    query: PreparedQuery
    since_s: float


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
        self._threads = ThreadPoolExecutor(usable_cores() + EMBEDDING, "search")
        self._waiting: deque[_Waiting] = deque()
        self._embedding = 0  # threads that embed and search
        self._lock = threading.Lock()  # of both

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
        then: Callable[[list[EmbeddedQuery]], Sequence[T]],
        *,
        alike: Any = None,
        box: Box | None = None,
        min_generation: int | None = None,
    ) -> T:
        """What follows from a picture, within a place that the caller has taken.

        Args:
            image: the picture.
            then: what to do once it is embedded, such as to search; in one of the queue's threads. It is given this
                query, or with it others that are `alike`, and returns as many answers.
            alike: what is equal for all queries of which the same is wanted; None: nobody else's.
            box: the part to look at.
            min_generation: answer from this one or a later.

        Raises:
            Problem: that generation is not there.
            PictureError: the picture cannot be used.
            Whatever `then` raises.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        wanted = _Wanted(then, object() if alike is None else alike, future)
        loop.run_in_executor(self._threads, self._decode, wanted, image, box, min_generation)
        return await future

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run something else that takes its time, in the same threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def close(self) -> None:
        """End the threads; searches must have ended."""
        self._threads.shutdown()

    def _decode(self, wanted: "_Wanted", image: ImageLike, box: Box | None, min_generation: int | None) -> None:
        start_s = time.perf_counter()
        try:
            self._follower.catch_up(min_generation, self._settings.deadline_s)
            query = self._engine.prepare(image, box)
        except Exception as error:  # its caller's to be told
            _tell([wanted.future], [error])
            return
        now_s = time.perf_counter()
        self._metrics.stage_seconds.labels("decode").observe(now_s - start_s)
        with self._lock:
            self._waiting.append(_Waiting(wanted, query, now_s))
            if self._embedding == EMBEDDING:
                return
            self._embedding += 1
        while batch := self._next():
            self._embed_and_search(batch)

    def _next(self) -> list[_Waiting]:
        """Those that wait, as many as are embedded together; none ends the calling thread's turn."""
        batch: list[_Waiting] = []
        with self._lock:
            while self._waiting and len(batch) < MOST_TOGETHER:
                one = self._waiting.popleft()
                if not one.wanted.future.done():  # its caller has gone away otherwise
                    batch.append(one)
            if not batch:
                self._embedding -= 1
        return batch

    def _embed_and_search(self, batch: Sequence[_Waiting]) -> None:
        start_s = time.perf_counter()
        for one in batch:
            self._metrics.stage_seconds.labels("wait").observe(start_s - one.since_s)
        self._metrics.batch_size.observe(len(batch))
        outcomes = self._outcomes(batch)
        self._metrics.stage_seconds.labels("embed and search").observe(time.perf_counter() - start_s)
        _tell([one.wanted.future for one in batch], outcomes)

    def _outcomes(self, batch: Sequence[_Waiting]) -> list[Any]:
        try:
            together = self._engine.embed_prepared([one.query for one in batch])
        except Exception as error:  # theirs to be told
            return [error] * len(batch)

        def done(alike: list[tuple[_Waiting, EmbeddedQuery]]) -> Sequence[Any]:
            try:
                return alike[0][0].wanted.then([query for _, query in alike])
            except Exception as error:  # of what they all want
                return [error] * len(alike)

        return in_groups(list(zip(batch, together, strict=True)), lambda one: one[0].wanted.alike, done)


def _tell(futures: Sequence["asyncio.Future[Any]"], outcomes: Sequence[Any]) -> None:
    """Give callers their answers, or what is wrong, from another thread than theirs."""

    def tell() -> None:
        for future, outcome in zip(futures, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    futures[0].get_loop().call_soon_threadsafe(tell)
