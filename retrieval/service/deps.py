"""What the handlers of requests are given: the engine and what stands around it."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar, cast

from starlette.requests import Request

from indexer.catalog import has_catalog
from retrieval.engine import SearchEngine
from retrieval.service.access import Role, key_of
from retrieval.service.following import Follower
from retrieval.service.metrics import Metrics
from retrieval.service.problems import Problem
from retrieval.service.queue import SearchQueue
from retrieval.service.settings import ServiceSettings
from retrieval.service.thumbnails import Thumbnails

T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """One server's parts."""

    engine: SearchEngine
    settings: ServiceSettings
    metrics: Metrics
    queue: SearchQueue
    follower: Follower
    thumbnails: Thumbnails


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def service_of(request: Request) -> Service:
    """The parts of the server that a request came to."""
    return cast(Service, request.app.state.service)


async def allow_reading(request: Request) -> None:
    """Raise unless a request may read.

    Raises:
        Problem: 401.
    """
    _role(request)


async def allow_writing(request: Request) -> None:
    """Raise unless a request may write.

    Raises:
        Problem: 401, 403, or 503 where there is nothing to write to any more.
    """
    if _role(request) != "write":
        raise Problem(403, "this key may read only; a key with `write` is needed")
    service = service_of(request)
    if service.settings.is_read_only:
        raise Problem(403, "this server is read-only; write to the one that is not")
    refuse_if_gone(service)


def refuse_if_gone(service: Service) -> None:
    """Raise where the index was taken from the disk; searches go on with what is in memory.

    Raises:
        Problem: 503.
    """
    if not has_catalog(service.engine.index_dir):
        raise Problem(503, "the index is gone from the server's disk; put it back and start the server again")


def _role(request: Request) -> Role:
    role: Role | None = request.state.role
    if role is None:
        said = "an API key is needed: `Authorization: Bearer KEY`"
        if key_of(request.headers) is not None:
            said = "this API key is not one of the server's"
        raise Problem(401, said, headers={"WWW-Authenticate": "Bearer"})
    return role


async def unless_gone(request: Request, work: Awaitable[T], deadline_s: float) -> T:
    """Wait for an answer as long as its caller does.

    Raises:
        ClientGone: the caller has gone away.
        Problem: it took too long; 503.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        done, _ = await asyncio.wait({working, watching}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if working in done:
            return working.result()
        if watching in done:
            raise ClientGone
        raise Problem(503, f"no answer within {deadline_s:g} s; the server is busy", {"Retry-After": "1"})
    finally:
        working.cancel()
        watching.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
