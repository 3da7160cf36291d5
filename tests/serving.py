"""A real server of `retrieve serve` on loopback, for as long as a test wants it."""

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import uvicorn
from fastapi import FastAPI

from commands import RETRIEVE
from retrieval.service.protocol import GuardedProtocol

START_WITHIN_S = 120


class Served(NamedTuple):
    """A server that answers.

    Attributes:
        url: without a slash at its end.
        process: to be stopped, or killed.
        client: of it.
        log: what it has written to standard error.
    """

    url: str
    process: subprocess.Popen[bytes]
    client: httpx2.Client
    log: Path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(index: Path, *options: str, log: Path, host: str = "127.0.0.1") -> Iterator[Served]:
    """Serve an index; SIGTERM at the end must stop it with exit code 0."""
    port = free_port()
    command = [*RETRIEVE, "serve", "--index", str(index), "--port", str(port), *options]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stderr=sink)
    url = f"http://{host}:{port}"
    try:
        with httpx2.Client(base_url=url, timeout=60) as client:
            wait_until_ready(process, client, log)
            yield Served(url, process, client, log)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@contextmanager
def serving_here(app: FastAPI) -> Iterator[int]:
    """The application in a thread of this process, for settings that no option sets; its port."""
    server = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_config=None, http=GuardedProtocol))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until_s = time.monotonic() + START_WITHIN_S
        while not server.started:
            assert time.monotonic() < until_s
            assert thread.is_alive()
            time.sleep(0.02)
        yield server.config.port
    finally:
        server.should_exit = True
        thread.join()


def wait_until_ready(process: subprocess.Popen[bytes], client: httpx2.Client, log: Path) -> None:
    until_s = time.monotonic() + START_WITHIN_S
    while time.monotonic() < until_s:
        assert process.poll() is None, log.read_text()
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"no answer within {START_WITHIN_S} s: {log.read_text()}")
