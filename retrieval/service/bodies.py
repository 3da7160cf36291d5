"""What came in a request's body? Read whole within a size and a time; a picture as it is or in a form, or JSON."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from retrieval.files import one_line
from retrieval.service.problems import Problem
from retrieval.service.settings import ServiceSettings

_PICTURE_TYPES = ("image/", "application/octet-stream")
_MOST_FIELDS = 2000
_MOST_DIGITS = 308  # of an integer: those of more are no floats, which numbers are compared as
_MOST_JSON_BYTES = 2_000_000  # a vector of 65,536 numbers takes 1.5 MB


class Body(NamedTuple):
    """What a request brought.

    Attributes:
        pictures: the files' contents.
        fields: of the query string, and over these of the form or of the JSON object.
    """

    pictures: list[bytes]
    fields: dict[str, Any]


async def read_body(request: Request, settings: ServiceSettings, *, most_pictures: int = 1) -> Body:
    """Read a request that brings pictures, or fields alone.

    Raises:
        Problem: it is too large or too slow, of a type that is not understood, or cannot be parsed.
    """
    kind, fields = _kind_of(request), fields_of(request.query_params)
    if kind == "application/json":
        return Body([], fields | await read_object(request, settings))
    content = await _read_bytes(request, settings, settings.max_upload_bytes, "the server's --max-upload")
    if kind == "multipart/form-data":
        pictures, said = await _form(request, content, most_pictures)
        return Body(pictures, fields | said)
    if not content:
        raise Problem(400, "the body is empty; send a picture, a form with one, or JSON")
    if most_pictures and kind.startswith(_PICTURE_TYPES):
        return Body([content], fields)
    understood = "image/*, multipart/form-data or application/json" if most_pictures else "application/json"
    raise Problem(415, f"content type {kind[:100]!r} is not understood; send {understood}")


async def read_object(
    request: Request, settings: ServiceSettings, most_bytes: int = _MOST_JSON_BYTES
) -> dict[str, Any]:
    """Read a request that brings an object in JSON, and nothing else.

    Raises:
        Problem: it is too large or too slow, of another type, or no such object.
    """
    if (kind := _kind_of(request)) != "application/json":
        raise Problem(415, f"content type {kind[:100]!r} is not understood; send application/json")
    limit, whose = min((most_bytes, "of JSON here"), (settings.max_upload_bytes, "the server's --max-upload"))
    content = await _read_bytes(request, settings, limit, whose)
    try:
        said = parse_json(content)
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise Problem(422, "the body must be a JSON object")
    return said


def parse_json(text: str | bytes) -> Any:
    """What JSON says; without the NaN and Infinity that Python's reader takes.

    Raises:
        ValueError: it is none, or nested too deep; says so in one line.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise ValueError(one_line(error)[:200]) from error


def _kind_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read_bytes(request: Request, settings: ServiceSettings, limit: int, whose: str) -> bytes:
    """The body's bytes.

    Raises:
        Problem: 413 too large, 408 too slow.
        ClientDisconnect: nobody waits for an answer.
    """
    said = request.headers.get("content-length", "0")
    too_large = Problem(413, f"the body is larger than {limit} bytes ({whose})", headers={"Connection": "close"})
    if said.isdecimal() and int(said) > limit:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise Problem(
            408, f"the body has not come within {settings.body_timeout_s:g} s", headers={"Connection": "close"}
        ) from None
    return b"".join(parts)


def fields_of(query: QueryParams) -> dict[str, Any]:
    """The fields of a query string; those that are given more than once as lists."""
    return {name: _one_or_all(query.getlist(name)) for name in query}


def checked(model: type[BaseModel], fields: Mapping[str, Any]) -> Any:
    """Fields as a model takes them. One value where a list is meant is a list of one.

    Raises:
        Problem: a field is unknown, or not what it must be; names it.
    """
    lists = _lists_of(model)
    said = {name: [value] if name in lists and isinstance(value, str) else value for name, value in fields.items()}
    try:
        return model.model_validate(said)
    except ValidationError as error:
        raise Problem(422, first_of(error.errors())) from error


@cache
def _lists_of(model: type[BaseModel]) -> frozenset[str]:
    """The fields that are lists."""
    return frozenset(name for name, one in model.model_fields.items() if "list" in str(one.annotation))


def first_of(errors: Sequence[Any]) -> str:
    """The first of a validation's errors, in a line."""
    first, count = errors[0], len(errors)
    place = ".".join(map(str, first["loc"])) or "the body"
    is_missing = first["type"] == "missing" or isinstance(first.get("input"), dict)
    said = "" if is_missing else f", {str(first.get('input'))[:80]!r} given"
    more = f" (and {count - 1} more)" if count > 1 else ""
    return f"{place}: {first['msg'].removeprefix('Value error, ')}{said}{more}"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits is too large; at most {_MOST_DIGITS} are read")
    return int(digits)


async def _form(request: Request, content: bytes, most_pictures: int) -> tuple[list[bytes], dict[str, Any]]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield content

    try:
        parser = MultiPartParser(request.headers, stream(), max_files=most_pictures, max_fields=_MOST_FIELDS)
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, AssertionError) as error:
        said = getattr(error, "message", None) or "no boundary, or parts that are not as they should be"
        raise Problem(400, f"the form cannot be parsed: {said}") from error
    try:
        pictures = [await value.read() for _, value in form.multi_items() if isinstance(value, UploadFile)]
        texts: dict[str, list[str]] = {}
        for name, value in form.multi_items():
            if isinstance(value, str):
                texts.setdefault(name, []).append(value)
    finally:
        await form.close()
    return pictures, {name: _one_or_all(values) for name, values in texts.items()}


def _one_or_all(values: Sequence[str]) -> Any:
    """A field that is given once is its value; else the list of them."""
    return values[0] if len(values) == 1 else list(values)
