"""What is sent to a server for each method, and how its answer is read; nothing here waits for anything."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from indexer import errors as of_index
from indexer.vectors import Vectors
from retrieval import errors
from retrieval.embedder import ImageLike, content_of, naming
from retrieval.errors import RetrievalError, ServiceError
from retrieval.images import DEFAULT_LIMITS
from retrieval.records import Box
from retrieval.results import Hit, IndexedPicture, IndexInfo, MatchResult, ModelInfo, SearchResult

T = TypeVar("T")
KEEP: Any = object()  # "leave as it is", where None means "none"
_PICTURE = {"content-type": "application/octet-stream"}


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request.

    Attributes:
        method, path: of HTTP.
        read: the answer's JSON to what the caller gets.
        params: of the query string.
        content: of the body.
        files: (name, content) of a form, in place of it.
        json: in place of both.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    files: Sequence[tuple[str, bytes]] = ()
    json: Any = None

    def options(self) -> dict[str, Any]:
        """As httpx takes it."""
        said: dict[str, Any] = {}
        if self.files:
            said["files"] = [(name, (f"{number}", content)) for number, (name, content) in enumerate(self.files)]
            said["data"] = self.params
        elif self.params:
            said["params"] = self.params
        if self.json is not None:
            said["json"] = self.json
        if self.content is not None:
            said |= {"content": self.content, "headers": _PICTURE}
        return said


def search(image: ImageLike | None, k: int, box: Box | None, more: Mapping[str, Any]) -> Call[SearchResult]:
    """See `SearchEngine.search`, of one picture or of none."""
    wishes = _wishes(k, box, more)
    if image is None:
        return Call("POST", "/v1/search", _result_of(None), json=wishes)
    return Call("POST", "/v1/search", _result_of(_name_of(image)), params=_as_text(wishes), content=_content_of(image))


def search_many(
    images: Sequence[ImageLike], k: int, box: Box | None, more: Mapping[str, Any]
) -> Call[list[SearchResult]]:
    """See `SearchEngine.search`, of several pictures."""

    def read(said: Any) -> list[SearchResult]:
        return [_result_of(_name_of(image))(one) for image, one in zip(images, said["queries"], strict=True)]

    files = [("images", _content_of(image)) for image in images]
    return Call("POST", "/v1/search/batch", read, params=_as_text(_wishes(k, box, more)), files=files)


def search_vector(
    vector: Vectors, k: int, model_fingerprint: str | None, more: Mapping[str, Any]
) -> Call[SearchResult]:
    """See `SearchEngine.search_vectors`, of one vector."""
    wishes = {**_wishes(k, None, more), "vector": np.asarray(vector, np.float64).tolist()}
    if model_fingerprint is not None:
        wishes["model"] = model_fingerprint
    return Call("POST", "/v1/search", _result_of(None), json=wishes)


def embed(image: ImageLike) -> Call[Vectors]:
    """See `SearchEngine.embed`, of one picture."""
    return Call("POST", "/v1/embed", lambda said: np.array(said["vector"], np.float32), content=_content_of(image))


def match(a: ImageLike, b: ImageLike, false_accept_rate: float | None) -> Call[MatchResult]:
    """See `SearchEngine.match`."""

    def read(said: Any) -> MatchResult:
        return MatchResult(**{**said, "a": _name_of(a), "b": _name_of(b)})

    params = {} if false_accept_rate is None else {"false_accept_rate": str(false_accept_rate)}
    files = [("images", _content_of(image)) for image in (a, b)]
    return Call("POST", "/v1/match", read, params=params, files=files)


def upsert(
    key: str,
    image: ImageLike,
    product_id: str | None,
    label: str | None,
    metadata: Mapping[str, Any] | None,
    box: Box | None,
) -> Call[int]:
    """See `SearchEngine.upsert`."""
    said = {"product_id": product_id, "label": label, "metadata": metadata, "box": _sides_of(box)}
    params = _as_text({name: value for name, value in said.items() if value is not None})
    return Call("PUT", "/v1/images", _generation_of, params={"key": key} | params, content=_content_of(image))


def update_metadata(key: str, given: Mapping[str, Any]) -> Call[int]:
    """See `SearchEngine.update_metadata`."""
    said = {name: value for name, value in given.items() if value is not KEEP}
    return Call("PATCH", "/v1/images", _generation_of, params={"key": key}, json=said)


def remove(key: str) -> Call[int]:
    """See `SearchEngine.remove`, of one picture."""
    return Call("DELETE", "/v1/images", _generation_of, params={"key": key})


def picture(key: str) -> Call[IndexedPicture]:
    """See `SearchEngine.picture`."""

    def read(said: Any) -> IndexedPicture:
        sides, is_relative = said.pop("box"), said.pop("box_is_relative")
        box = None if sides is None else Box(sides[0], sides[1], sides[2], sides[3], is_relative)
        return IndexedPicture(**{**said, "path": Path(said["path"]), "box": box})

    return Call("GET", "/v1/images", read, params={"key": key})


def record_feedback(query_key: str, key: str, relevant: bool, source: str | None) -> Call[None]:
    """See `SearchEngine.record_feedback`, of a query that is a picture of the index."""
    said = {"query_key": query_key, "key": key, "relevant": relevant, "source": source}
    return Call("POST", "/v1/feedback", lambda _: None, json=said)


def info() -> Call[IndexInfo]:
    """See `SearchEngine.info`."""

    def read(said: Any) -> IndexInfo:
        said.pop("can_write")
        return IndexInfo(**{**said, "model": ModelInfo(**said["model"])})

    return Call("GET", "/v1/info", read)


def error_of(status: int, content: bytes, url: str) -> Exception:
    """The error that the library would have raised where the server is, or a `ServiceError`."""
    try:
        problem = json.loads(content)
        kind, detail = str(problem["type"]).rpartition(":")[2], str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return ServiceError(f"{url} answered {status}, and not as `retrieve serve` does; check the address", status)
    found = getattr(errors, kind, None) or getattr(of_index, kind, None)
    if isinstance(found, type) and issubclass(found, RetrievalError | of_index.IndexerError):
        return found(detail)
    return ValueError(detail) if status == 422 else ServiceError(f"{url} answered {status}: {detail}", status)


def _wishes(k: int, box: Box | None, more: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in more.items() if value is not None and value != () and value != []}
    sides = _sides_of(box)
    return {"k": k, **given} if sides is None else {"k": k, "box": sides, **given}


def _sides_of(box: Box | None) -> list[float] | None:
    if box is None:
        return None
    if box.is_relative:
        raise ValueError("a box over HTTP is in pixels; multiply its fractions by the picture's sides")
    return list(box[:4])


def _as_text(wishes: Mapping[str, Any]) -> dict[str, Any]:
    """Wishes as the fields of a form or a query string."""
    said: dict[str, Any] = {}
    for name, value in wishes.items():
        if name == "box":
            said[name] = ",".join(map(str, value))
        elif isinstance(value, Mapping):
            said[name] = json.dumps(value)
        elif isinstance(value, bool):
            said[name] = "true" if value else "false"
        elif isinstance(value, str):
            said[name] = value
        elif isinstance(value, Sequence):
            said[name] = list(value)
        else:
            said[name] = str(value)
    return said


def _content_of(image: ImageLike) -> bytes:
    with naming(image):
        return content_of(image, DEFAULT_LIMITS)


def _name_of(image: object) -> str | None:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else None


def _generation_of(said: Any) -> int:
    return int(said["generation"])


def _result_of(name: str | None) -> Callable[[Any], SearchResult]:
    def read(said: Any) -> SearchResult:
        hits = [Hit(**{**hit, "path": None if hit["path"] is None else Path(hit["path"])}) for hit in said["hits"]]
        return SearchResult(name, hits, said["generation"], said["model"])

    return read
