"""A server that runs until it is told to stop: one process, its signals, its log."""

import errno
import json
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime

import uvicorn

from indexer.locks import server_lock
from retrieval.engine import SearchEngine
from retrieval.errors import RetrievalError
from retrieval.service.app import create_app
from retrieval.service.protocol import GuardedProtocol
from retrieval.service.settings import ServiceSettings
from retrieval.service.watching import REQUESTS

_log = logging.getLogger(__name__)
_STOP_WITHIN_S = 30  # what runs is finished; what takes longer is cut off
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # "localhost" may be ::1 where there is no IPv6
_MOST_IDLE = 1000  # connections beyond those that have a place: they hold some kilobytes each


class CannotListen(RetrievalError):
    """A server cannot have the address that it was given."""


def serve(engine: SearchEngine, settings: ServiceSettings, host: str, port: int) -> None:
    """Serve an index until SIGTERM or SIGINT; what runs then is finished.

    Args:
        engine: open; closed by whoever opened it.
        settings: see there.
        host, port: where.

    Raises:
        IndexBusy: another server writes to this index.
        IndexReadOnly: this user cannot write to it, and the settings do not say that nobody shall.
        CannotListen: the port is taken or may not be taken, or there is no such host.
        UnknownModel, WeightsUnavailable, ModelDamaged, DeviceUnavailable, ModelMismatch: the model cannot be loaded.
    """
    with (
        nullcontext() if settings.is_read_only else server_lock(engine.index_dir),
        _bound(host, port) as sockets,
    ):
        config = uvicorn.Config(
            create_app(engine, settings),
            http=GuardedProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_STOP_WITHIN_S,
            limit_concurrency=settings.max_concurrency + _MOST_IDLE,
        )
        server = _Server(config, f"{engine.index_dir} at http://{_written(host)}:{port}/")
        # What is wrong is raised here; uvicorn would log it and end the process. In a thread that ends: a server whose
        # main thread had loaded a model, and which had moved to another one since, ended with a segmentation fault.
        with server.capture_signals(), ThreadPoolExecutor(1) as loading:
            loading.submit(engine.load_model).result()
        try:
            server.run(sockets)
        except OSError as error:  # another had bound the port as well, and listened first
            raise _cannot_listen(host, port, error) from error
        except SystemExit as error:  # uvicorn's, where the application has not started
            raise RetrievalError("the server could not start; what stands above says why") from error


@contextmanager
def _bound(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets that have a host's addresses, and do not listen yet: who comes before the model is loaded is refused."""
    with ExitStack() as opened:
        sockets, missing = [], None
        try:
            addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, _, _, address in addresses:
                try:
                    one = opened.enter_context(socket.socket(family, kind))
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
                    one.bind(address)
                except OSError as error:
                    if error.errno not in _NOT_HERE:
                        raise
                    missing = error
                else:
                    sockets.append(one)
            if missing and not sockets:
                raise missing
        except (OSError, UnicodeError) as error:
            raise _cannot_listen(host, port, error) from error
        yield sockets


def _cannot_listen(host: str, port: int, error: OSError | UnicodeError) -> CannotListen:
    said = getattr(error, "strerror", None) or str(error)
    return CannotListen(f"cannot listen at {_written(host)}:{port}: {said}; choose another --host or --port")


def _written(host: str) -> str:
    """A host as it stands in front of a port."""
    return f"[{host}]" if ":" in host else host


class _Server(uvicorn.Server):
    """A server that says when it serves, and whose process ends by itself, not by the signal that told it to stop."""

    def __init__(self, config: uvicorn.Config, what: str) -> None:
        super().__init__(config)
        self._what = what

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            _log.info("serving %s", self._what)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        former = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


@contextmanager
def json_log() -> Iterator[None]:
    """Write all that is logged to standard error, one JSON object a line: each request, and what is wrong."""
    root, ours, requests = logging.getLogger(), logging.getLogger("retrieval"), logging.getLogger(REQUESTS)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    former, ours.handlers = ours.handlers, []  # the command line's, for people
    level = requests.level
    requests.setLevel(logging.INFO)
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        requests.setLevel(level)
        ours.handlers = former


class _Json(logging.Formatter):
    """A record as a JSON object, its time in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        if record.name == REQUESTS:
            return f'{{"time": "{time}", "request": {record.getMessage()}}}'
        said = {"time": time, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)
