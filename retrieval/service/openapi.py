"""How is the service described to those who call it? The parts of its OpenAPI that FastAPI cannot see for itself."""

from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_TEXT, _NUMBER, _INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
_TEXT_OR_NULL, _NUMBER_OR_NULL = {"type": ["string", "null"]}, {"type": ["number", "null"]}


def an_object(**properties: Schema) -> Schema:
    """An object that has all of these and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


HIT = an_object(
    rank=_INTEGER | {"minimum": 1},
    key=_TEXT,
    path=_TEXT_OR_NULL,
    score=_NUMBER,
    match_probability=_NUMBER_OR_NULL,
    product_id=_TEXT_OR_NULL,
    metadata={"type": "object"},
)
RESULT = an_object(
    query=_TEXT_OR_NULL, hits={"type": "array", "items": HIT}, generation=_INTEGER, model=_TEXT
) | {
    "example": {
        "query": None,
        "hits": [
            {
                "rank": 1, "key": "shoes/7.jpg", "path": "/shop/shoes/7.jpg", "score": 0.91, "match_probability": 0.83,
                "product_id": "p7", "metadata": {"price": 49.9, "colour": "red"},
            }
        ],
        "generation": 12,
        "model": "0c3fa1",
    }
}  # fmt: skip
RESULT_AND_VECTOR = RESULT | {
    "properties": {**RESULT["properties"], "vector": {"type": "array", "items": _NUMBER}}  # where it is asked for
}
RESULTS = an_object(queries={"type": "array", "items": RESULT_AND_VECTOR})
MATCH = an_object(
    a=_TEXT_OR_NULL, b=_TEXT_OR_NULL, score=_NUMBER, distance=_NUMBER, match_probability=_NUMBER_OR_NULL,
    threshold=_NUMBER_OR_NULL, is_match={"type": ["boolean", "null"]}, model=_TEXT,
)  # fmt: skip
VECTOR = an_object(vector={"type": "array", "items": _NUMBER}, model=_TEXT)
GENERATION = an_object(key=_TEXT, generation=_INTEGER)
PICTURE = an_object(
    key=_TEXT, path=_TEXT, product_id=_TEXT_OR_NULL, label=_TEXT_OR_NULL, metadata={"type": "object"},
    box={"type": ["array", "null"], "items": _NUMBER}, box_is_relative={"type": "boolean"}, content_hash=_TEXT,
    is_upserted={"type": "boolean"},
)  # fmt: skip
FIELDS = an_object(
    fields={
        "type": "array",
        "items": an_object(
            name=_TEXT, kinds={"type": "array", "items": _TEXT}, pictures=_INTEGER, least=_NUMBER_OR_NULL,
            greatest=_NUMBER_OR_NULL, texts={"type": "array", "items": _TEXT},
        ),
    }
)  # fmt: skip
PROBLEM = an_object(type=_TEXT, title=_TEXT, status=_INTEGER, detail=_TEXT, request_id=_TEXT) | {
    "example": {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "k: Input should be greater than or equal to 1, '0' given",
        "request_id": "9f2c",
    }
}

_PROBLEMS = {
    400: "The body cannot be parsed",
    401: "An API key is needed",
    403: "This key, this server or this page may not do that",
    404: "No such key",
    408: "The body came too slowly",
    409: "The generation or the model that was asked for is not the index's",
    413: "The body or the picture is too large",
    415: "The content type is not understood",
    421: "The request names another host",
    422: "A field or the picture cannot be used",
    429: "Too many requests wait already",
    503: "Not now; try again",
    507: "No space is left on the disk",
}
_COMMON = tuple(status for status in _PROBLEMS if status != 404)


def bytes_of(*media_types: str) -> Schema:
    """An answer that is a file."""
    return {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}}


def answers(success: Schema | None, *more: int) -> dict[int | str, Schema]:
    """What a route answers: JSON of a shape, or what `bytes_of` says, or nothing; and what can go wrong."""
    found: dict[int | str, Schema] = {
        status: {
            "description": _PROBLEMS[status],
            "content": {"application/problem+json": {"schema": PROBLEM}},
        }
        for status in sorted({*_COMMON, *more})
    }
    if success is None:
        return {204: {"description": "Done"}, **found}
    content = success.get("content", {"application/json": {"schema": success}})
    return {200: {"description": "The answer", "content": content}, **found}


def json_body(model: type[BaseModel]) -> Schema:
    """A body that is JSON."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _schema(model)}}}}


def picture_or(
    in_json: type[BaseModel] | None, options: type[BaseModel], *, many: tuple[int, int] | None = None
) -> Schema:
    """A body that is a picture, with options in the query string or in the fields of a form; or JSON.

    Args:
        in_json: what the JSON holds; None: no JSON is taken.
        options: the fields.
        many: a form with at least and at most so many pictures, and nothing else.
    """
    file = {"type": "string", "format": "binary", "minLength": 1}
    schema = _schema(options)
    fields = {name: _as_form_field(one) for name, one in schema["properties"].items()}
    several = {"type": "array", "items": file} | ({"minItems": many[0], "maxItems": many[1]} if many else {})
    pictures = {"images": several} if many else {"image": file}
    form = {
        "type": "object",
        "properties": {**pictures, **fields},
        "required": list(pictures),
        "additionalProperties": False,
    }
    content: Schema = {"multipart/form-data": {"schema": form}}
    if not many:
        content |= {kind: {"schema": file} for kind in ("image/*", "application/octet-stream")}
    if in_json is not None:
        content["application/json"] = {"schema": _schema(in_json)}
    described: Schema = {"requestBody": {"required": True, "content": content}}
    if not many:
        described["parameters"] = [
            {"name": name, "in": "query", "required": False, "schema": one} for name, one in fields.items()
        ]
    return described


def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _as_form_field(schema: Schema) -> Schema:
    """Of a field in JSON, the same as text: objects are written as JSON."""
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") not in ("null", "object")]
    described = {name: schema[name] for name in ("description", "examples") if name in schema}
    return (dict(kinds[0]) if kinds else {"type": "string"}) | described
