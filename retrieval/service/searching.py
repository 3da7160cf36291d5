"""Asking: searches by picture, by key and by vector, one and many, and whether two pictures match."""

import asyncio
import json
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from retrieval.prepared import EmbeddedQuery
from retrieval.results import SearchResult
from retrieval.service.bodies import Body, checked, read_body
from retrieval.service.deps import Service, allow_reading, service_of, unless_gone
from retrieval.service.openapi import MATCH, RESULT_AND_VECTOR, RESULTS, VECTOR, answers, picture_or
from retrieval.service.options import EmbedOptions, MatchOptions, SearchOptions, VectorSearch
from retrieval.service.problems import Problem

router = APIRouter(dependencies=[Depends(allow_reading)], tags=["search"])


@router.post(
    "/v1/search",
    summary="Find what looks alike",
    responses=answers(RESULT_AND_VECTOR, 404),
    openapi_extra=picture_or(VectorSearch, SearchOptions),
)
async def search(request: Request) -> Response:
    """Search by a picture, by indexed pictures (`like`), by both, or by a vector.

    Send the picture's bytes as they are with the options in the query string, as a form with a file and the options as
    its fields, or, without a picture, JSON.
    """
    service = service_of(request)
    with service.queue.place():
        body = await read_body(request, service.settings)
        result = await unless_gone(request, _answer(service, body), service.settings.deadline_s)
    return json_of(result)


@router.post(
    "/v1/search/batch",
    summary="Find what looks like each of several pictures",
    responses=answers(RESULTS, 404),
    openapi_extra=picture_or(None, SearchOptions, many=(1, 64)),
)
async def search_batch(request: Request) -> Response:
    """Search by several pictures of one form, all with the same options; the answers are in the order of the files."""
    service = service_of(request)
    with service.queue.place():
        body = await read_body(request, service.settings, most_pictures=service.settings.max_pictures)
        options: SearchOptions = checked(SearchOptions, body.fields)
        if not body.pictures:
            raise Problem(422, "no picture came; send them as files of a form")
        await service.queue.run(service.follower.catch_up, options.min_generation, service.settings.deadline_s)
        asked = [_by_picture(service, picture, options) for picture in body.pictures]
        results = await unless_gone(request, asyncio.gather(*asked), service.settings.deadline_s)
    return json_of({"queries": results})


@router.post(
    "/v1/match",
    summary="Do two pictures show the same product?",
    responses=answers(MATCH),
    openapi_extra=picture_or(None, MatchOptions, many=(2, 2)),
)
async def match(request: Request) -> Response:
    """Compare the two pictures of a form."""
    service = service_of(request)
    with service.queue.place():
        body = await read_body(request, service.settings, most_pictures=2)
        options: MatchOptions = checked(MatchOptions, body.fields)
        if len(body.pictures) != 2:
            raise Problem(422, f"{len(body.pictures)} pictures came, two are needed, as files of a form")

        def kept(queries: list[EmbeddedQuery]) -> list[EmbeddedQuery]:
            return queries

        embedded = asyncio.gather(*(service.queue.embed(picture, kept) for picture in body.pictures))
        a, b = await unless_gone(request, embedded, service.settings.deadline_s)
        result = service.engine.match_embedded(a, b, false_accept_rate=options.false_accept_rate)
    return json_of(result.to_dict())


@router.post(
    "/v1/embed",
    summary="A picture as the index's model sees it",
    responses=answers(VECTOR),
    openapi_extra=picture_or(None, EmbedOptions),
)
async def embed(request: Request) -> Response:
    """A unit vector, to search with again and again (`vector` of `/v1/search`)."""
    service = service_of(request)
    with service.queue.place():
        body = await read_body(request, service.settings)
        options: EmbedOptions = checked(EmbedOptions, body.fields)
        if not body.pictures:
            raise Problem(422, "no picture came; send its bytes, or a form with a file")

        def described(queries: list[EmbeddedQuery]) -> list[dict[str, Any]]:
            return [
                {"vector": query.vector[0].tolist(), "model": query.live.model.space.model_fingerprint}
                for query in queries
            ]

        embedding = service.queue.embed(body.pictures[0], described, box=options.box)
        return json_of(await unless_gone(request, embedding, service.settings.deadline_s))


async def _answer(service: Service, body: Body) -> dict[str, Any]:
    options: VectorSearch = checked(VectorSearch, body.fields)
    if options.vector is not None and body.pictures:
        raise Problem(422, "a picture and a vector came; send one of them")
    if options.vector is None and options.model is not None:
        raise Problem(422, "model: says which model made a vector, and none came; send `vector`, or leave it out")
    for name in ("box", "with_vector"):
        if not body.pictures and getattr(options, name):
            raise Problem(422, f"{name}: is about a picture, and none came; send one, or leave it out")
    if options.vector is not None:
        return (await service.queue.run(_by_vector, service, options)).to_dict()
    if body.pictures:
        return await _by_picture(service, body.pictures[0], options)
    return (await service.queue.run(_by_keys, service, options)).to_dict()


async def _by_picture(service: Service, picture: bytes, options: SearchOptions) -> dict[str, Any]:
    def search(queries: list[EmbeddedQuery]) -> list[dict[str, Any]]:
        found = service.engine.search_embedded(queries, options.k, **options.refinements())
        answers = [result.to_dict() for result in found]
        if options.with_vector:
            for said, query in zip(answers, queries, strict=True):
                said["vector"] = query.vector[0].tolist()
        return answers

    return await service.queue.embed(
        picture, search, alike=options.alike(), box=options.box, min_generation=options.min_generation
    )


def _by_vector(service: Service, options: VectorSearch) -> SearchResult:
    service.follower.catch_up(options.min_generation, service.settings.deadline_s)
    with np.errstate(over="ignore"):  # what is not finite is refused
        vectors = np.array([options.vector], np.float32)
    return service.engine.search_vectors(vectors, options.k, model_fingerprint=options.model, **options.refinements())[
        0
    ]


def _by_keys(service: Service, options: SearchOptions) -> SearchResult:
    service.follower.catch_up(options.min_generation, service.settings.deadline_s)
    return service.engine.search(k=options.k, **options.refinements())


def json_of(content: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(json.dumps(content), status, media_type="application/json")
