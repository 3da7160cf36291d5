"""When does a server move to what others have committed? At the next search, which does not wait for a new model."""

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

from retrieval.engine import SearchEngine
from retrieval.service.metrics import Metrics
from retrieval.service.problems import Problem

_log = logging.getLogger(__name__)
_MOST_WAIT_S = 0.1  # a new generation takes milliseconds; a new model seconds, and the former answers meanwhile
_EVERY_S = 0.02


class Follower:
    """Moves an engine on, in a thread of its own.

    Args:
        engine: that answers.
        metrics: that say where it is.
    """

    def __init__(self, engine: SearchEngine, metrics: Metrics) -> None:
        self._engine, self._metrics = engine, metrics
        self._thread = ThreadPoolExecutor(1, "follow")
        self._lock = threading.Lock()
        self._moving: Future[None] | None = None

    def catch_up(self, min_generation: int | None = None, deadline_s: float = 10.0) -> None:
        """Move to the newest generation, or begin to; let searches become faster, which nobody waits for.

        Args:
            min_generation: that the caller must see.
            deadline_s: how long to wait for it.

        Raises:
            Problem: it is not there; 409.
        """
        if self._engine.is_behind():
            self._move(_MOST_WAIT_S)
        elif self._engine.is_growing:
            self._move(0)
        if min_generation is None or self._engine.generation >= min_generation:
            return
        until_s = time.monotonic() + deadline_s
        while self._engine.generation < min_generation:
            self._move(_EVERY_S)
            if time.monotonic() >= until_s or not (self._engine.is_behind() or self._is_moving()):
                raise Problem(
                    409, f"generation {min_generation} is not there: the index is at {self._engine.generation}"
                )

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _is_moving(self) -> bool:
        return self._moving is not None and not self._moving.done()

    def _move(self, most_s: float) -> None:
        with self._lock:
            if not self._is_moving():
                self._moving = self._thread.submit(self._refresh)
            moving = self._moving
        if moving is not None:
            wait([moving], most_s)

    def _refresh(self) -> None:
        try:
            self._engine.refresh()
        except Exception as error:  # nobody waits for it; the engine stays where it is
            _log.error("the index cannot be followed: %s", error)
        self._metrics.generation.set(self._engine.generation)
