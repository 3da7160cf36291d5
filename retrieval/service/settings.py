"""What may a server be asked for, how much at once, and by whom?"""

from dataclasses import dataclass, field

from retrieval.service.access import ApiKeys

DEFAULT_UPLOAD_BYTES = 20_000_000


@dataclass(frozen=True)
class ServiceSettings:
    """How an index is served.

    Attributes:
        keys: who may read and who may write; without any, everybody may.
        is_read_only: nobody may write.
        max_upload_bytes: of a request's body.
        max_concurrency: searches and upserts that wait or run at once; one more is answered 429.
        deadline_s: after which a search that still waits is given up, 503.
        body_timeout_s: in which a request's body must have come, else 408.
        max_pictures: of one batch.
        thumbnail_cache_bytes: of pictures that are kept small.
        logs_requests: a line of JSON for each goes to the logger `retrieval.service.requests`.
        is_loopback: bound to this machine alone, so that a request which names another host is an attack by a web page.
    """

    keys: ApiKeys = field(default_factory=ApiKeys)
    is_read_only: bool = False
    max_upload_bytes: int = DEFAULT_UPLOAD_BYTES
    max_concurrency: int = 64
    deadline_s: float = 10.0
    body_timeout_s: float = 30.0
    max_pictures: int = 64
    thumbnail_cache_bytes: int = 64_000_000
    logs_requests: bool = False
    is_loopback: bool = False
