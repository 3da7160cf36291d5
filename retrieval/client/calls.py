"""What is sent to a server for each method, and how its answer is read; nothing here waits for anything."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import numpy as np

from indexer import errors as of_index
from indexer.changes import KEEP
from indexer.vectors import Vectors
from retrieval import errors
from retrieval.embedder import ImageLike, content_of, naming
from retrieval.errors import (
    PictureError,
    PictureTooLarge,
    QueryError,
    RequestRefused,
    RetrievalError,
    ServiceError,
)
from retrieval.images import DEFAULT_LIMITS
from retrieval.records import Box
from retrieval.results import Hit, IndexedPicture, IndexInfo, MatchResult, ModelInfo, SearchResult

T = TypeVar("T")
MOST_TOGETHER = 64  # pictures of one request, and their bytes: what `retrieve serve` takes at first
MOST_BYTES_TOGETHER = 16_000_000
_MOST_IN_URL = 2000  # characters of options: servers in between cut lines at 8,000
_PICTURE = {"content-type": "application/octet-stream"}


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request.

    Attributes:
        method, path: of HTTP.
        read: the answer's JSON to what the caller gets.
        params: of the query string.
        picture: the body as it is, with the options in the query string; a form where these are long.
        pictures: the files of a form, in place of it.
        options: how they are to be searched with or kept.
        json: the body, in place of pictures.
        name: the picture's, where it is a file.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    params: Mapping[str, str] = field(default_factory=dict)
    picture: bytes | None = None
    pictures: Sequence[bytes] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    name: str | None = None

    def request(self) -> dict[str, Any]:
        """As httpx takes it."""
        if self.json is not None:
            return {"params": self.params, "json": self.json}
        if self.pictures or len(urlencode(self.options, doseq=True)) > _MOST_IN_URL:
            pictures = self.pictures if self.picture is None else [self.picture]
            files = [("images", (f"{number}", content)) for number, content in enumerate(pictures)]
            return {"params": self.params, "files": files, "data": self.options}
        request: dict[str, Any] = {"params": {**self.params, **self.options}}
        return request if self.picture is None else request | {"content": self.picture, "headers": _PICTURE}

    def answer(self, status: int, content: bytes, url: str) -> T:
        """What the caller gets of a server's answer.

        Raises:
            The error that the library would have raised where the server is, or a `ServiceError`.
        """
        if not 200 <= status < 300:
            raise self._named(error_of(status, content, url, self.picture is not None))
        try:
            return self.read(json.loads(content) if content else None)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _stranger(status, url) from error

    def _named(self, error: Exception) -> Exception:
        """The error, behind the name of the picture where it is about that."""
        is_about_it = self.name is not None and isinstance(error, PictureError)
        return type(error)(f"{self.name}: {error}") if is_about_it else error


def headers_of(api_key: str | None) -> list[tuple[bytes, bytes]]:
    """The headers of every request.

    Raises:
        ServiceError: the key cannot be sent.
    """
    if api_key is None:
        return []
    if any(char < " " for char in api_key):
        raise ServiceError("the API key holds a line break or another control character; give it without")
    return [(b"authorization", b"Bearer " + api_key.encode("utf-8", "surrogateescape"))]


def search(image: ImageLike | None, k: int, box: Box | None, more: Mapping[str, Any]) -> Call[SearchResult]:
    """See `SearchEngine.search`, of one picture or of none."""
    wishes = _wishes(k, box, more)
    if image is not None:
        return _with_picture("POST", "/v1/search", image, _result_of(_name_of(image)), wishes)
    if box is not None:
        raise QueryError("a box is of the picture that is searched with, and there is none")
    return Call("POST", "/v1/search", _result_of(None), json=wishes)


def search_many(
    images: Sequence[ImageLike], k: int, box: Box | None, more: Mapping[str, Any]
) -> Iterator[Call[list[SearchResult]]]:
    """See `SearchEngine.search`, of several pictures; one request after the other where they are many or large."""
    options = _as_text(_wishes(k, box, more))

    def call(names: list[str | None], contents: list[bytes]) -> Call[list[SearchResult]]:
        def read(said: Any) -> list[SearchResult]:
            return [_result_of(name)(one) for name, one in zip(names, said["queries"], strict=True)]

        return Call("POST", "/v1/search/batch", read, pictures=contents, options=options)

    names: list[str | None] = []
    contents: list[bytes] = []
    size_bytes = 0
    for image in images:
        content = _content_of(image)
        if contents and (len(contents) == MOST_TOGETHER or size_bytes + len(content) > MOST_BYTES_TOGETHER):
            yield call(names, contents)
            names, contents, size_bytes = [], [], 0
        names.append(_name_of(image))
        contents.append(content)
        size_bytes += len(content)
    yield call(names, contents)


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
    return _with_picture("POST", "/v1/embed", image, lambda said: np.array(said["vector"], np.float32), {})


def match(a: ImageLike, b: ImageLike, false_accept_rate: float | None) -> Call[MatchResult]:
    """See `SearchEngine.match`."""

    def read(said: Any) -> MatchResult:
        return MatchResult(**{**said, "a": _name_of(a), "b": _name_of(b)})

    options = {} if false_accept_rate is None else {"false_accept_rate": str(false_accept_rate)}
    return Call("POST", "/v1/match", read, pictures=[_content_of(image) for image in (a, b)], options=options)


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
    options = {name: value for name, value in said.items() if value is not None}
    return _with_picture("PUT", "/v1/images", image, _generation_of, options, {"key": key})


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


def error_of(status: int, content: bytes, url: str, is_of_picture: bool = False) -> Exception:
    """The error that the library would have raised where the server is, or a `ServiceError`.

    Args:
        status, content: of the answer.
        url: of the server.
        is_of_picture: what was sent is one picture, so that too much is a picture too large.
    """
    try:
        problem = json.loads(content)
        kind, detail = str(problem["type"]).rpartition(":")[2], str(problem["detail"])
    except (ValueError, LookupError, TypeError):
        if status == 413 and is_of_picture:
            return PictureTooLarge(f"{url} does not take so many bytes; give a smaller picture")
        return _stranger(status, url)
    found = getattr(errors, kind, None) or getattr(of_index, kind, None)
    if isinstance(found, type) and issubclass(found, RetrievalError | of_index.IndexerError):
        return found(detail)
    if status == 413 and is_of_picture:
        return PictureTooLarge(detail)
    said = f"{url} answered {status}: {detail}"
    return RequestRefused(said, status) if status == 422 else ServiceError(said, status)


def _stranger(status: int, url: str) -> ServiceError:
    return ServiceError(f"{url} answered {status}, and not as `retrieve serve` does; check the address", status)


def _with_picture(
    method: str,
    path: str,
    image: ImageLike,
    read: Callable[[Any], T],
    options: Mapping[str, Any],
    params: Mapping[str, str] | None = None,
) -> Call[T]:
    content, name = _content_of(image), _name_of(image)
    return Call(method, path, read, params or {}, content, options=_as_text(options), name=name)


def _wishes(k: int, box: Box | None, more: Mapping[str, Any]) -> dict[str, Any]:
    wishes = {name: _plain(value) for name, value in ({"k": k} | dict(more)).items()}
    given = {name: value for name, value in wishes.items() if value is not None and value != []}
    sides = _sides_of(box)
    return given if sides is None else {**given, "box": sides}


def _plain(value: Any) -> Any:
    """A value as JSON has it: numbers may be numpy's, keys a set."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value


def _sides_of(box: Box | None) -> list[float] | None:
    if box is None:
        return None
    box = Box(*box)
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
