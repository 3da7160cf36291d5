"""What the server says of itself: what it holds, whether it lives and is ready, and what it has counted."""

from dataclasses import asdict

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from retrieval.service.access import COOKIE
from retrieval.service.bodies import checked, read_object
from retrieval.service.deps import allow_reading, refuse_if_gone, service_of
from retrieval.service.openapi import FIELDS, an_object, answers, bytes_of, json_body
from retrieval.service.options import SessionBody
from retrieval.service.problems import Problem
from retrieval.service.searching import json_of

router = APIRouter(tags=["server"])
_MOST_SESSION_BYTES = 16_384  # whoever comes may send so much; a key takes 12 kB where each character is an escape
_STATE = an_object(status={"type": "string"})


@router.get(
    "/v1/info",
    summary="What the index holds",
    dependencies=[Depends(allow_reading)],
    responses=answers({"type": "object"}),
)
async def info(request: Request) -> Response:
    """The same as `retrieve info --json`, and whether this server takes writes."""
    service = service_of(request)
    held = await service.queue.run(service.engine.info)
    can_write = request.state.role == "write" and not service.settings.is_read_only
    return json_of({**held.to_dict(), "can_write": can_write})


@router.get(
    "/v1/fields",
    summary="What conditions can be made of",
    dependencies=[Depends(allow_reading)],
    responses=answers(FIELDS),
)
async def fields(request: Request) -> Response:
    """The fields of the newest pictures' metadata: their types, extremes and commonest texts."""
    service = service_of(request)
    found = await service.queue.run(service.engine.fields)
    return json_of({"fields": [asdict(one) for one in found]})


@router.get("/healthz", summary="Does the process live?", responses={200: answers(_STATE)[200]})
async def healthz() -> Response:
    """Always, if it answers."""
    return json_of({"status": "ok"})


@router.get("/readyz", summary="Does it answer searches?", responses={s: answers(_STATE)[s] for s in (200, 503)})
async def readyz(request: Request) -> Response:
    """Once the model is loaded, until it is told to stop, as long as the index is there."""
    if not request.app.state.is_ready:
        raise Problem(503, "the model is being loaded, or the server is stopping", {"Retry-After": "1"})
    refuse_if_gone(service_of(request))
    return json_of({"status": "ready"})


@router.get(
    "/metrics",
    summary="Counters and times, for Prometheus",
    dependencies=[Depends(allow_reading)],
    responses=answers(bytes_of("text/plain")),
)
async def metrics(request: Request) -> Response:
    """Of this server since its start."""
    service = service_of(request)
    service.metrics.generation.set(service.engine.generation)
    service.metrics.images.set(service.engine.images)
    return Response(service.metrics.text(), media_type=service.metrics.content_type)


@router.post(
    "/v1/session",
    summary="Exchange an API key for a cookie",
    responses=answers(None),
    openapi_extra=json_body(SessionBody),
    status_code=204,
)
async def session(request: Request) -> Response:
    """For the page: scripts cannot read the cookie, and no other site can have it sent."""
    settings = service_of(request).settings
    said: SessionBody = checked(SessionBody, await read_object(request, settings, _MOST_SESSION_BYTES))
    cookie = settings.keys.session_of(said.key.encode())
    if cookie is None:
        raise Problem(401, "this key is not one of the server's", {"WWW-Authenticate": "Bearer"})
    answer = Response(status_code=204)
    answer.set_cookie(
        COOKIE, cookie, httponly=True, samesite="strict", secure=request.url.scheme == "https", max_age=30 * 86_400
    )
    return answer
