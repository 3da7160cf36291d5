"""Who may come to a server, and what hostile callers get: a status and a line, never another's data or a crash."""

import hashlib
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from test_serve import APPLE, assert_problem

from commands import assert_one_line, retrieve
from retrieval.engine import SearchEngine
from retrieval.service import ServiceSettings, create_app
from serving import Served, serving, serving_here

KEYS = {"reader": "read", "writer": "write", "страх": "read"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    with SearchEngine.create(folder / "index", model="efficientnet_lite0") as engine:
        engine.upsert(APPLE, demo_gallery / APPLE, metadata={"name": "<img src=x onerror=alert(1)>"})
    return folder / "index"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    lines = [f"{role} {hashlib.sha256(key.encode()).hexdigest()}  # {key}" for key, role in KEYS.items()]
    path.write_text("# of the shop\n\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def guarded(index: Path, key_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that asks for keys."""
    log = tmp_path_factory.mktemp("log") / "log"
    with serving(index, "--api-key-file", str(key_file), log=log) as served:
        yield served


@pytest.fixture(scope="module")
def open_to_all(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server on loopback that asks for none."""
    copy = tmp_path_factory.mktemp("copy") / "index"
    shutil.copytree(index, copy)
    with serving(copy, log=copy.parent / "log") as served:
        yield served


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_without_a_key_only_its_health_is_told(guarded: Served) -> None:
    for route in ("/v1/info", "/v1/fields", "/metrics", f"/v1/images/content?key={APPLE}"):
        answer = guarded.client.get(route)
        assert_problem(answer, 401, "an API key is needed")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert_problem(guarded.client.post("/v1/search", json={"like": [APPLE]}), 401, "an API key is needed")
    assert_problem(guarded.client.get("/v1/info", headers=bearer("guess")), 401, "is not one of the server's")
    assert guarded.client.get("/healthz").status_code == guarded.client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        bearer("reader"),
        {"x-api-key": "reader"},
        {b"x-api-key": "страх".encode()},
        {b"authorization": "Bearer страх".encode()},
    ],
)
def test_a_key_that_reads_cannot_write(guarded: Served, headers: Any) -> None:
    found = guarded.client.post("/v1/search", json={"like": [APPLE]}, headers=headers)
    assert found.status_code == 200
    for method in ("PUT", "PATCH", "DELETE"):
        answer = guarded.client.request(method, f"/v1/images?key={APPLE}", headers=headers, content=b"{}")
        assert_problem(answer, 403, "a key with `write` is needed")
    assert guarded.client.get("/v1/info", headers=headers).json()["can_write"] is False


def test_a_key_that_writes_may_do_both(guarded: Served) -> None:
    changed = guarded.client.patch(f"/v1/images?key={APPLE}", json={"label": "fruit"}, headers=bearer("writer"))
    assert changed.status_code == 200
    assert guarded.client.get("/v1/info", headers=bearer("writer")).json()["can_write"] is True


def test_a_key_is_exchanged_for_a_cookie_that_scripts_and_other_sites_cannot_use(guarded: Served) -> None:
    with httpx2.Client(base_url=guarded.url) as browser:
        assert_problem(browser.post("/v1/session", json={"key": "guess"}), 401, "is not one of the server's")
        granted = browser.post("/v1/session", json={"key": "reader"})
        assert granted.status_code == 204
        said = granted.headers["set-cookie"].lower()
        assert "httponly" in said
        assert "samesite=strict" in said
        assert hashlib.sha256(b"reader").hexdigest() not in said
        assert browser.get("/v1/info").status_code == 200
        assert_problem(browser.delete(f"/v1/images?key={APPLE}"), 403, "a key with `write`")
        forged = {"cookie": f"retrieve_session={hashlib.sha256(b'reader').hexdigest()}"}
        assert httpx2.get(f"{guarded.url}/v1/info", headers=forged).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "null"},
        {"origin": "http://[bad"},
    ],
)
def test_pages_of_other_sites_may_not_write(open_to_all: Served, headers: dict[str, str]) -> None:
    answer = open_to_all.client.post(
        "/v1/feedback", content=b'{"query_key": "a", "key": "b", "relevant": true}',
        headers=headers | {"content-type": "text/plain"},
    )  # fmt: skip
    assert_problem(answer, 403, "pages of other sites")
    assert "access-control-allow-origin" not in answer.headers


def test_a_name_that_was_rebound_to_this_machine_is_refused(open_to_all: Served) -> None:
    assert_problem(open_to_all.client.get("/v1/info", headers={"host": "evil.example"}), 421, "localhost alone")
    assert_problem(open_to_all.client.get("/v1/info", headers={"host": "127.evil.example"}), 421, "localhost alone")
    for host in ("localhost:1", "127.0.0.2:80", "[::1]"):
        assert open_to_all.client.get("/v1/info", headers={"host": host}).status_code == 200


def test_whoever_says_anybody_means_it(index: Path, key_file: Path, tmp_path: Path) -> None:
    with serving(index, "--read-only", "--anybody", log=tmp_path / "log") as served:
        assert served.client.get("/v1/info", headers={"host": "shop.example"}).status_code == 200
    done = retrieve("serve", "--index", index, "--anybody", "--api-key-file", key_file)
    assert done.returncode == 2
    assert "give one of them" in done.stderr
    done = retrieve("serve", "--index", index, "--host", "127.evil.example")
    assert done.returncode == 2
    assert "is reached from other machines" in done.stderr


def test_every_answer_forbids_what_a_page_does_not_need(open_to_all: Served) -> None:
    for route in ("/", "/v1/info", "/v1/nothing"):
        headers = open_to_all.client.get(route).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


def said_to(served: Served, request: bytes, *, wait_s: float = 20) -> bytes:
    """What a server answers to bytes as they are."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
            if b"\r\n\r\n" in answer:
                break
    return answer


def test_a_flood_of_headers_is_cut_off(open_to_all: Served) -> None:
    flood = b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\n" + b"".join(
        b"X-%d: %s\r\n" % (n, b"y" * 500) for n in range(400)
    )
    assert said_to(open_to_all, flood + b"\r\n").startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    endless = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000
    assert said_to(open_to_all, endless).startswith(b"HTTP/1.1 400")
    assert open_to_all.client.get("/v1/info").status_code == 200


def test_nonsense_in_place_of_http_is_refused(open_to_all: Served) -> None:
    assert said_to(open_to_all, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert said_to(open_to_all, b"POST /v1/search HTTP/1.1\r\nContent-Length: -5\r\n\r\n").startswith(b"HTTP/1.1 400")


BEGUN = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 900\r\n\r\nx"


def test_who_goes_away_while_sending_leaves_its_place(open_to_all: Served) -> None:
    host, port = open_to_all.url.removeprefix("http://").split(":")
    for _ in range(100):  # more than there are places
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(BEGUN)
    until_s = time.monotonic() + 10
    while "retrieve_queue 0.0" not in open_to_all.client.get("/metrics").text:
        assert time.monotonic() < until_s
        time.sleep(0.05)
    assert open_to_all.client.post("/v1/search", json={"like": [APPLE]}).status_code == 200


def test_a_body_that_comes_too_slowly_is_given_up(index: Path) -> None:
    with (
        SearchEngine.open(index) as engine,
        serving_here(create_app(engine, ServiceSettings(body_timeout_s=0.3))) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
    ):
        connection.sendall(BEGUN)
        answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"has not come within 0.3 s" in answer + connection.recv(65_536)


def test_a_key_is_exchanged_within_few_bytes_and_little_time(guarded: Served, index: Path) -> None:
    as_json = {"content-type": "application/json"}
    for content, kind, status, said in (
        (b'{"key": "' + bytes(17_000) + b'"}', as_json, 413, "larger than 16384 bytes"),
        (b'{"key": "a', as_json, 400, "the body is not JSON"),
        (b'{"key": 5}', as_json, 422, "key: Input should be a valid string"),
        (b"{}", as_json, 422, "key: Field required"),
        (b"key=a", {}, 415, "send application/json"),
    ):
        assert_problem(guarded.client.post("/v1/session", content=content, headers=kind), status, said)
    begun = BEGUN.replace(b"/v1/search", b"/v1/session").replace(b"image/png", b"application/json")
    with (
        SearchEngine.open(index) as engine,
        serving_here(create_app(engine, ServiceSettings(body_timeout_s=0.3))) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
    ):
        connection.sendall(begun)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("admin 00", "line 1: not `read` or `write` and a sha256"),
        ("# nobody\n", "holds no key"),
        (f"read {'g' * 64}", "line 1"),
    ],
)
def test_a_key_file_that_is_none_is_refused(index: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "keys").write_text(text)
    done = retrieve("serve", "--index", index, "--api-key-file", tmp_path / "keys")
    assert done.returncode == 1
    assert said in done.stderr
    assert_one_line(done.stderr)
