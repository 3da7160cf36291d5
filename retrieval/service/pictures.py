"""The pictures of the index by their keys: putting, changing, removing, and looking at them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from retrieval.errors import PictureError
from retrieval.images import read_bytes
from retrieval.images.headers import format_of
from retrieval.results import IndexedPicture
from retrieval.service.bodies import Body, checked, read_body
from retrieval.service.deps import allow_reading, allow_writing, service_of
from retrieval.service.openapi import GENERATION, PICTURE, answers, bytes_of, json_body, picture_or
from retrieval.service.options import AttributesOfPicture, FeedbackBody, Key, Upsert
from retrieval.service.problems import Problem
from retrieval.service.searching import json_of
from retrieval.service.thumbnails import SIDES_PX

reading = APIRouter(dependencies=[Depends(allow_reading)], tags=["pictures"])
writing = APIRouter(dependencies=[Depends(allow_writing)], tags=["pictures"])

_TYPES = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp",
    "TIFF": "image/tiff", "AVIF": "image/avif", "HEIF": "image/heif",
}  # fmt: skip


async def _only_key(request: Request, key: Annotated[Key, Query()]) -> str:
    """The key that a request names, once.

    Raises:
        Problem: it names several.
    """
    if len(named := request.query_params.getlist("key")) > 1:
        raise Problem(422, f"key: {len(named)} came; name one picture")
    return key


KeyInQuery = Annotated[str, Depends(_only_key)]
Pixels = Annotated[int, Query(ge=SIDES_PX[0], le=SIDES_PX[1], description="The longer side at most.")]


@writing.put(
    "/v1/images",
    summary="Add a picture, or put it in the place of what a key holds",
    responses=answers(GENERATION, 404),
    openapi_extra=picture_or(None, Upsert),
)
async def put(request: Request, key: KeyInQuery) -> Response:
    """Durable when it is answered; `generation` is the one from which it is found, for `min_generation`."""
    service = service_of(request)
    with service.queue.place():
        body = await read_body(request, service.settings)
        options: Upsert = checked(Upsert, _but_key(body, key))
        if not body.pictures:
            raise Problem(422, "no picture came; send its bytes, or a form with a file")

        def upsert() -> int:
            return service.engine.upsert(
                key,
                body.pictures[0],
                product_id=options.product_id,
                label=options.label,
                metadata=options.metadata,
                box=options.box,
            )

        generation = await service.queue.run(upsert)
    return json_of({"key": key, "generation": generation})


@writing.patch(
    "/v1/images",
    summary="Change what is known of a picture",
    responses=answers(GENERATION, 404),
    openapi_extra=json_body(AttributesOfPicture),
)
async def patch(request: Request, key: KeyInQuery) -> Response:
    """What is not sent stays as it is; `metadata` is replaced as a whole. No vector is touched."""
    service = service_of(request)
    with service.queue.place():
        body = await read_body(request, service.settings, most_pictures=0)
        changes: AttributesOfPicture = checked(AttributesOfPicture, _but_key(body, key))
        given = {name: value for name, value in changes if name in changes.model_fields_set}
        if given.get("metadata", {}) is None:
            given["metadata"] = {}
        generation = await service.queue.run(lambda: service.engine.update_metadata(key, **given))
    return json_of({"key": key, "generation": generation})


@writing.delete("/v1/images", summary="Remove a picture", responses=answers(GENERATION, 404))
async def delete(request: Request, key: KeyInQuery) -> Response:
    """Durable when it is answered; `generation` is the one from which it is gone."""
    service = service_of(request)
    with service.queue.place():
        generation = await service.queue.run(service.engine.remove, key)
    return json_of({"key": key, "generation": generation})


@writing.post(
    "/v1/feedback",
    summary="Say that a hit was chosen or rejected",
    responses=answers(None, 404),
    openapi_extra=json_body(FeedbackBody),
    status_code=204,
)
async def feedback(request: Request) -> Response:
    """The next `retrieve refresh` learns from it."""
    service = service_of(request)
    with service.queue.place():
        body = await read_body(request, service.settings, most_pictures=0)
        said: FeedbackBody = checked(FeedbackBody, body.fields)

        def record() -> None:
            query = service.engine.picture(said.query_key)
            with _no_longer_there(said.query_key, query.path):
                service.engine.record_feedback(query.path, said.key, said.relevant, source=said.source, box=query.box)

        await service.queue.run(record)
    return Response(status_code=204)


@reading.get("/v1/images", summary="What is known of a picture", responses=answers(PICTURE, 404))
async def get(request: Request, key: KeyInQuery) -> Response:
    """In the newest generation."""
    service = service_of(request)
    picture = await service.queue.run(service.engine.picture, key)
    return json_of(picture.to_dict())


@reading.get("/v1/images/content", summary="A picture's file", responses=answers(bytes_of(*_TYPES.values()), 404))
async def content(request: Request, key: KeyInQuery) -> Response:
    """As it lies on the disk."""
    service = service_of(request)
    picture = await service.queue.run(service.engine.picture, key)
    headers = _kept_as(picture)
    if _is_kept(request, headers):
        return Response(status_code=304, headers=headers)
    with _no_longer_there(key, picture.path):
        found = await service.queue.run(read_bytes, picture.path)
    kind = _TYPES.get(format_of(found[:64]) or "")
    if kind is None:
        raise Problem(404, f"the file of {key!r} is no picture any more")
    return Response(found, headers=headers, media_type=kind)


@reading.get("/v1/images/thumbnail", summary="A picture, small", responses=answers(bytes_of("image/jpeg"), 404))
async def thumbnail(request: Request, key: KeyInQuery, side_px: Pixels = 256) -> Response:
    """The part that is embedded, where that is a part, as a JPEG."""
    service = service_of(request)
    picture = await service.queue.run(service.engine.picture, key)
    headers = _kept_as(picture, f"-{side_px}")
    if _is_kept(request, headers):
        return Response(status_code=304, headers=headers)
    with _no_longer_there(key, picture.path):
        small = await service.queue.run(service.thumbnails.of, picture, side_px)
    return Response(small, headers=headers, media_type="image/jpeg")


@contextmanager
def _no_longer_there(key: str, path: Path) -> Iterator[None]:
    """A picture that was indexed and whose file cannot be used now is one that is not found."""
    try:
        yield
    except PictureError as error:
        said = str(error).removeprefix(f"{path}: ")  # callers know pictures by their keys
        raise Problem(404, f"the file of {key!r} cannot be used: {said}") from error


def _but_key(body: Body, key: str) -> dict[str, Any]:
    """The fields of a request, without the one that names the picture.

    Raises:
        Problem: the body names another picture than the query string.
    """
    if body.fields["key"] != key:
        raise Problem(422, f"key: the query string says {key!r}, the body another; say it in the query string alone")
    return {name: value for name, value in body.fields.items() if name != "key"}


def _kept_as(picture: IndexedPicture, suffix: str = "") -> dict[str, str]:
    """The headers by which a browser keeps a picture, and asks about it again."""
    return {"ETag": f'"{picture.content_hash}{suffix}"', "Cache-Control": "private, max-age=60"}


def _is_kept(request: Request, headers: dict[str, str]) -> bool:
    """Whether the browser has what these headers name."""
    held = [one.strip().removeprefix("W/") for one in ",".join(request.headers.getlist("if-none-match")).split(",")]
    return headers["ETag"] in held or "*" in held
