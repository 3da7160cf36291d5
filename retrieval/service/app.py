"""The service put together: an engine behind HTTP."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from indexer.errors import IndexerError
from retrieval.engine import SearchEngine
from retrieval.errors import PictureError, RetrievalError
from retrieval.service import page, pictures, searching, system
from retrieval.service.bodies import first_of
from retrieval.service.deps import ClientGone, Service
from retrieval.service.following import Follower
from retrieval.service.metrics import Metrics
from retrieval.service.problems import Problem, problem_of, response_of
from retrieval.service.queue import SearchQueue
from retrieval.service.settings import ServiceSettings
from retrieval.service.thumbnails import Thumbnails
from retrieval.service.watching import Watch

_log = logging.getLogger(__name__)
_CLIENT_GONE = 499  # nobody reads it; logs and metrics do
DESCRIPTION = "Search a shop's pictures by what they look like."


def create_app(engine: SearchEngine, settings: ServiceSettings = ServiceSettings()) -> FastAPI:
    """The service as an ASGI application, for uvicorn or another server, in one process.

    Args:
        engine: open; whoever opened it closes it, once the application has shut down.
        settings: what may be asked for, how much at once, and by whom.
    """
    metrics = Metrics()
    follower = Follower(engine, metrics)
    service = Service(
        engine,
        settings,
        metrics,
        SearchQueue(engine, follower, settings, metrics),
        follower,
        Thumbnails(engine.limits, settings.thumbnail_cache_bytes),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.queue.run(engine.load_model)
        app.state.is_ready = True
        yield
        app.state.is_ready = False
        service.queue.close()
        follower.close()

    app = FastAPI(
        title="retrieve", description=DESCRIPTION, version=version("retrieval-engine"), lifespan=lifespan,
        docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json",
    )  # fmt: skip
    app.state.service, app.state.is_ready = service, False
    for router in (searching.router, pictures.reading, pictures.writing, system.router, page.router):
        app.include_router(router)
    for kind in (Problem, RetrievalError, IndexerError, ValueError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answering(service))
    for gone in (ClientGone, ClientDisconnect):
        app.add_exception_handler(gone, _nobody)
    app.add_exception_handler(Exception, _answering(service))
    app.add_middleware(Watch, settings=settings, metrics=metrics)
    return app


def _answering(service: Service) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        request_id = request.state.request_id
        if isinstance(error, PictureError):
            service.metrics.skipped.inc()
        problem = _of_framework(request, error) or problem_of(error, service.engine.index_dir)
        if problem is None:
            _log.error("request %s failed", request_id, exc_info=error)
            problem = Problem(500, f"a fault of the server; its log has it under {request_id}")
        return response_of(problem, request_id, service.metrics)

    return answer


def _of_framework(request: Request, error: Exception) -> Problem | None:
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        if error.status_code == 405:  # the framework names the methods of the first route alone
            at_this_place = request.app.openapi()["paths"].get(request.url.path)
            if at_this_place:
                methods = {method.upper() for method in at_this_place} | ({"HEAD"} if "get" in at_this_place else set())
                headers["Allow"] = ", ".join(sorted(methods))
        return Problem(error.status_code, str(error.detail), headers)
    if isinstance(error, RequestValidationError):
        return Problem(422, first_of([one | {"loc": one["loc"][1:]} for one in error.errors()]))  # without "query"
    return None


async def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_GONE)
