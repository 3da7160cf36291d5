"""What is said where something goes wrong: problem+json (RFC 9457), in the words of the library's own errors."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from starlette.responses import Response

from indexer import errors as of_index
from retrieval import errors
from retrieval.service.metrics import Metrics

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

# The first that fits; what is not among them is a fault of ours.
STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (errors.PictureTooLarge, 413),
    (errors.PictureError, 422),
    (errors.QueryError, 422),
    (errors.UnknownKey, 404),
    (errors.UnknownModel, 503),
    (errors.WeightsUnavailable, 503),
    (errors.ModelDamaged, 503),
    (errors.ModelError, 422),  # asked for a probability that nobody knows
    (errors.EngineUnusable, 503),
    (of_index.FilterError, 422),
    (of_index.VectorError, 422),
    (of_index.ModelMismatch, 409),
    (of_index.IndexReadOnly, 403),
    (of_index.IndexBusy, 503),
    (of_index.GenerationForgotten, 503),
    (of_index.DiskFull, 507),
    (ValueError, 422),
)


class Problem(Exception):
    """A request that is answered with a problem.

    Args:
        status: of HTTP.
        detail: one line for whoever sent it: the thing, the value, the limit, the remedy.
        headers: of the answer.
        kind: the library's name for it, by which a client raises the same.
    """

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, *, kind: str | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.kind = status, detail, dict(headers or {}), kind


def problem_of(error: Exception, index_dir: Path) -> Problem | None:
    """What an error of the library is to who caused it; None for one that nobody should have caused.

    Args:
        index_dir: which the library's words name, and which callers neither know nor need.
    """
    if isinstance(error, Problem):
        return error
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), None)
    if status is None:
        return None
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    detail = str(error).replace(f"index {index_dir}", "the index").replace(str(index_dir), "the index")
    if isinstance(error, of_index.ModelMismatch):  # the remedy is the command line's
        detail = f"{detail.partition(';')[0]}; embed the picture again, with the index's model"
    is_known = isinstance(error, errors.RetrievalError | of_index.IndexerError)  # to a client, by this name
    return Problem(status, detail, headers, kind=type(error).__name__ if is_known else None)


def response_of(problem: Problem, request_id: str, metrics: Metrics) -> Response:
    """The answer."""
    metrics.errors.labels(str(problem.status)).inc()
    content = {
        "type": "about:blank" if problem.kind is None else f"urn:retrieve:{problem.kind}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
    }
    return Response(json.dumps(content), problem.status, problem.headers, MEDIA_TYPE)
