"""A served index for code that waits."""

import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import httpx2
import numpy as np

from indexer.changes import KEEP
from indexer.vectors import Vectors
from retrieval.answer import Refinements
from retrieval.client import calls
from retrieval.client.calls import Call
from retrieval.client.trying import AGAIN, Retries
from retrieval.embedder import ImageLike
from retrieval.errors import ServiceError
from retrieval.records import Box
from retrieval.results import IndexedPicture, IndexInfo, MatchResult, SearchResult

T = TypeVar("T")


class Client:
    """The methods of `SearchEngine` over HTTP, with its types and its errors; safe to use from several threads.

    Args:
        url: of the server, such as "http://127.0.0.1:8000".
        api_key: if it asks for one.
        timeout_s: for an answer.
        retries: where the server is busy, or not there when a connection is made.

    Example:
        with Client("http://127.0.0.1:8000") as client:
            for hit in client.search("photo.jpg", k=5).hits:
                print(hit.score, hit.key)
    """

    def __init__(
        self, url: str, api_key: str | None = None, *, timeout_s: float = 30.0, retries: Retries = Retries()
    ) -> None:
        self._url, self._retries = url.rstrip("/"), retries
        headers = calls.headers_of(api_key)
        try:
            self._http = httpx2.Client(base_url=self._url, headers=headers, timeout=timeout_s)
        except httpx2.InvalidURL as error:
            raise ServiceError(f"{url} is no address: {error}; write it as http://127.0.0.1:8000") from error

    @overload
    def search(
        self,
        images: ImageLike | None = None,
        k: int = 10,
        *,
        box: Box | None = None,
        min_generation: int | None = None,
        **refined: Unpack[Refinements],
    ) -> SearchResult: ...

    @overload
    def search(
        self,
        images: list[ImageLike] | tuple[ImageLike, ...],
        k: int = 10,
        *,
        box: Box | None = None,
        min_generation: int | None = None,
        **refined: Unpack[Refinements],
    ) -> list[SearchResult]: ...

    def search(
        self,
        images: ImageLike | list[ImageLike] | tuple[ImageLike, ...] | None = None,
        k: int = 10,
        *,
        box: Box | None = None,
        min_generation: int | None = None,
        **refined: Unpack[Refinements],
    ) -> SearchResult | list[SearchResult]:
        """See `SearchEngine.search`.

        Args:
            min_generation: answer from this generation or a later one, as an upsert has returned it.
            images, k, box, refined: as there.

        Raises:
            ServiceError: the server cannot be reached, is too busy, or has not that generation.
            As `SearchEngine.search`.
        """
        more = {**refined, "min_generation": min_generation}
        if isinstance(images, list | tuple):
            if not images:
                return []
            several = calls.search_many(images, k, box, more)
            return [result for call in several for result in self._run(call)]
        return self._run(calls.search(images, k, box, more))

    def search_vectors(
        self, vectors: Vectors, k: int = 10, *, model_fingerprint: str | None = None, **refined: Unpack[Refinements]
    ) -> list[SearchResult]:
        """See `SearchEngine.search_vectors`."""
        return [self._run(calls.search_vector(vector, k, model_fingerprint, refined)) for vector in vectors]

    def embed(self, images: Sequence[ImageLike]) -> Vectors:
        """See `SearchEngine.embed`."""
        if len(images) == 0:
            return np.empty((0, self.info().model.dim), np.float32)
        return np.stack([self._run(calls.embed(image)) for image in images])

    def match(self, a: ImageLike, b: ImageLike, *, false_accept_rate: float | None = None) -> MatchResult:
        """See `SearchEngine.match`."""
        return self._run(calls.match(a, b, false_accept_rate))

    def upsert(
        self,
        key: str,
        image: ImageLike,
        *,
        product_id: str | None = None,
        label: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        box: Box | None = None,
    ) -> int:
        """See `SearchEngine.upsert`; the picture's bytes are kept in the index, whatever `image` is."""
        return self._run(calls.upsert(key, image, product_id, label, metadata, box))

    def update_metadata(
        self,
        key: str,
        *,
        product_id: str | None = KEEP,
        label: str | None = KEEP,
        metadata: Mapping[str, Any] = KEEP,
    ) -> int:
        """See `SearchEngine.update_metadata`."""
        given = {"product_id": product_id, "label": label, "metadata": metadata}
        return self._run(calls.update_metadata(key, given))

    def remove(self, keys: str | Iterable[str]) -> int:
        """See `SearchEngine.remove`; of several keys each by itself, so those before one that fails are gone."""
        generation = None
        for key in [keys] if isinstance(keys, str) else keys:
            generation = self._run(calls.remove(key))
        return self.info().generation if generation is None else generation

    def picture(self, key: str) -> IndexedPicture:
        """See `SearchEngine.picture`."""
        return self._run(calls.picture(key))

    def record_feedback(self, query_key: str, key: str, relevant: bool, *, source: str | None = None) -> None:
        """See `SearchEngine.record_feedback`; what was searched with is a picture of the index."""
        self._run(calls.record_feedback(query_key, key, relevant, source))

    def info(self) -> IndexInfo:
        """See `SearchEngine.info`."""
        return self._run(calls.info())

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        waits = self._retries.waits()
        while True:
            try:
                response = self._http.request(call.method, call.path, **call.request())
            except httpx2.ConnectError as error:
                if (wait := next(waits, None)) is None:
                    raise ServiceError(
                        f"{self._url} cannot be reached: {error}; is `retrieve serve` running?"
                    ) from error
                time.sleep(wait)
                continue
            except httpx2.InvalidURL as error:
                raise ServiceError(f"{self._url} cannot be asked so: {error}") from error
            except httpx2.RequestError as error:
                raise ServiceError(f"{self._url} has not answered: {type(error).__name__} {error}") from error
            if response.status_code not in AGAIN or (wait := next(waits, None)) is None:
                return call.answer(response.status_code, response.content, self._url)
            time.sleep(self._retries.wait_of(wait, response.headers.get("retry-after")))
