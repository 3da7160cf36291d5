"""Who may do what? API keys by their hashes, the cookie that stands for one, and requests that other sites send."""

import hashlib
import hmac
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from retrieval.errors import RetrievalError
from retrieval.files import read_bytes

Role = Literal["read", "write"]
COOKIE = "retrieve_session"
_LINE = re.compile(r"(read|write)\s+([0-9a-f]{64})", re.IGNORECASE)


class KeysError(RetrievalError):
    """A file of API keys cannot be read."""


class _Key(NamedTuple):
    role: Role
    digest: bytes
    session: str  # what a cookie holds in its place: of no use elsewhere, and gone with the key


@dataclass(frozen=True)
class ApiKeys:
    """The keys of a server, as their sha256."""

    _keys: tuple[_Key, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._keys)

    def role_of(self, key: bytes) -> Role | None:
        """What a key allows; None if it is none of these. Takes as long for each."""
        digest = hashlib.sha256(key).digest()
        return self._strongest([one.role for one in self._keys if hmac.compare_digest(one.digest, digest)])

    def role_of_session(self, cookie: bytes) -> Role | None:
        """What a cookie allows that stands for a key."""
        return self._strongest([one.role for one in self._keys if hmac.compare_digest(one.session.encode(), cookie)])

    def session_of(self, key: bytes) -> str | None:
        """What a cookie holds that stands for a key; None if it is none of these."""
        digest = hashlib.sha256(key).digest()
        found = [one.session for one in self._keys if hmac.compare_digest(one.digest, digest)]
        return found[0] if found else None

    @staticmethod
    def _strongest(roles: Sequence[Role]) -> Role | None:
        return "write" if "write" in roles else "read" if roles else None


def read_keys(path: str | os.PathLike[str]) -> ApiKeys:
    """The keys of a file: on each line `read` or `write` and the sha256 of a key; `#` begins a comment.

    Raises:
        KeysError: it cannot be read, a line is neither, or there is none.
    """
    try:
        lines = read_bytes(path).decode("utf-8").splitlines()
    except (RetrievalError, UnicodeDecodeError) as error:
        raise KeysError(f"keys {os.fspath(path)} cannot be read: {error}") from error
    keys = []
    for number, line in enumerate(lines, 1):
        said = line.partition("#")[0].strip()
        if not said:
            continue
        found = _LINE.fullmatch(said)
        if not found:
            raise KeysError(
                f"keys {os.fspath(path)}, line {number}: not `read` or `write` and a sha256; make one with "
                "`printf %s KEY | sha256sum`"
            )
        digest = bytes.fromhex(found[2])
        session = hmac.new(digest, b"retrieve session", hashlib.sha256).hexdigest()
        keys.append(_Key("write" if found[1].lower() == "write" else "read", digest, session))
    if not keys:
        raise KeysError(f"keys {os.fspath(path)} holds no key; write `read` or `write` and the sha256 of one")
    return ApiKeys(tuple(keys))


def role_of_request(keys: ApiKeys, headers: Mapping[str, str], cookies: Mapping[str, str]) -> Role | None:
    """What a request may do: by its `Authorization: Bearer`, its `X-API-Key` or its cookie; all, where no keys are."""
    if not keys:
        return "write"
    if (key := key_of(headers)) is not None:
        return keys.role_of(key)
    return keys.role_of_session(_bytes_of(cookies[COOKIE])) if COOKIE in cookies else None


def key_of(headers: Mapping[str, str]) -> bytes | None:
    """The key that a request brings in its headers, or None."""
    scheme, _, said = headers.get("authorization", "").partition(" ")
    key = said.strip(" \t") if scheme.lower() == "bearer" else headers.get("x-api-key")
    return None if key is None else _bytes_of(key)


def _bytes_of(header: str) -> bytes:
    """A header as it was sent: ASGI's are bytes, which the framework reads as Latin-1."""
    return header.encode("latin-1")


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser sends this for a page of another site."""
    if headers.get("sec-fetch-site", "none") in ("cross-site", "same-site"):
        return True
    if (origin := headers.get("origin")) is None:
        return False
    try:
        return urlsplit(origin).netloc != headers.get("host", "")
    except ValueError:
        return True


def names_this_machine(host: str) -> bool:
    """Whether a `Host` header names this machine, as a page that has rebound its own name does not."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether a server bound to this host is reached from this machine alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
