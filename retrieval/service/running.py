"""A server that runs until it is told to stop: one process, its signals, its log."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import uvicorn

from indexer.locks import server_lock
from retrieval.engine import SearchEngine
from retrieval.service.app import create_app
from retrieval.service.protocol import GuardedProtocol
from retrieval.service.settings import ServiceSettings

_STOP_WITHIN_S = 30  # what runs is finished; what takes longer is cut off
_MOST_IDLE = 1000  # connections beyond those that have a place: they hold some kilobytes each


def serve(engine: SearchEngine, settings: ServiceSettings, host: str, port: int) -> None:
    """Serve an index until SIGTERM or SIGINT; what runs then is finished.

    Args:
        engine: open; closed by whoever opened it.
        settings: see there.
        host, port: where.

    Raises:
        IndexBusy: another server writes to this index.
        IndexReadOnly: this user cannot write to it, and the settings do not say that nobody shall.
        OSError: the port is taken, or may not be taken.
    """
    with nullcontext() if settings.is_read_only else server_lock(engine.index_dir):
        config = uvicorn.Config(
            create_app(engine, settings),
            host=host,
            port=port,
            http=GuardedProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_STOP_WITHIN_S,
            limit_concurrency=settings.max_concurrency + _MOST_IDLE,
        )
        _Server(config).run()


class _Server(uvicorn.Server):
    """A server whose process ends by itself, rather than by the signal that told it to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        former = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


@contextmanager
def request_log() -> Iterator[None]:
    """Write a line of JSON on standard error for each request."""
    log = logging.getLogger("retrieval.service.requests")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter('{"time": "%(asctime)s", "request": %(message)s}'))
    log.addHandler(handler)
    log.propagate = False
    level, log.level = log.level, logging.INFO
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
