"""An index behind HTTP answers as the library does: searches, writes, pictures, and what a server says of itself."""

import io
import json
import logging
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import PIL.Image
import pytest

from commands import assert_one_line, retrieve
from indexer.errors import FilterError
from retrieval.engine import SearchEngine
from retrieval.records import Box
from retrieval.service.problems import problem_of
from retrieval.service.running import json_log
from serving import Served, free_port, serving

MODEL = "efficientnet_lite0"
THINGS = ("apple", "banana", "bicycle", "butterfly", "camera", "car")
APPLE, CAR = "apple/noto.png", "car/noto.png"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Path:
    """An index of twelve pictures of six products, priced 1 to 12; copy it, do not write to it."""
    folder = tmp_path_factory.mktemp("shop")
    with SearchEngine.create(folder / "index", model=MODEL) as engine:
        for price, path in enumerate(sorted(p for thing in THINGS for p in (demo_gallery / thing).iterdir()), 1):
            metadata: dict[str, Any] = {"price": price, "maker": path.stem}
            engine.upsert(f"{path.parent.name}/{path.name}", path, product_id=path.parent.name, metadata=metadata)
    return folder / "index"


@pytest.fixture(scope="module")
def served(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that is only asked."""
    with serving(pristine, "--read-only", log=tmp_path_factory.mktemp("log") / "log") as served:
        yield served


@pytest.fixture
def shop(pristine: Path, tmp_path: Path) -> Path:
    """An index to write to."""
    return Path(shutil.copytree(pristine, tmp_path / "index"))


@pytest.fixture
def engine(pristine: Path) -> Iterator[SearchEngine]:
    with SearchEngine.open(pristine) as engine:
        yield engine


@pytest.fixture(scope="module")
def photo(demo_queries: Path) -> bytes:
    return next(path for path in demo_queries.iterdir() if path.stem == "apple").read_bytes()


def found(response: httpx2.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return dict(response.json())


def keys(result: dict[str, Any]) -> list[str]:
    return [hit["key"] for hit in result["hits"]]


def assert_problem(response: httpx2.Response, status: int, said: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert said in problem["detail"]
    assert "\n" not in problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]


def assert_alike(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal but for the last bits of the scores: pictures are embedded alone and together with others."""
    scores = [[hit.pop("score") for hit in one["hits"]] for one in (answer, expected)]
    assert answer == expected
    np.testing.assert_allclose(scores[0], scores[1], atol=5e-3)


# -------------------- searches


def test_a_picture_as_it_is_finds_what_the_library_finds(served: Served, engine: SearchEngine, photo: bytes) -> None:
    answer = found(served.client.post("/v1/search?k=3", content=photo, headers={"content-type": "image/png"}))
    assert_alike(answer, engine.search(photo, k=3).to_dict())


def test_a_form_finds_the_same(served: Served, engine: SearchEngine, photo: bytes) -> None:
    fields = {"k": "4", "where": "price > 2", "group_by": "product_id", "exclude": [CAR, APPLE]}
    answer = found(served.client.post("/v1/search", files={"image": ("a.png", photo)}, data=fields))
    expected = engine.search(photo, k=4, where="price > 2", group_by="product_id", exclude=[CAR, APPLE])
    assert_alike(answer, expected.to_dict())


def test_every_wish_reaches_the_search(served: Served, engine: SearchEngine, photo: bytes) -> None:
    wishes: dict[str, Any] = {
        "where": {"price": {"<": 11}}, "group_by": "product_id", "offset": 1, "exclude": [CAR], "like": [APPLE],
        "unlike": ["banana/noto.png"], "dedup": 0.99, "expand": 2, "rerank": True, "min_score": -0.5,
    }  # fmt: skip
    box = Box(5, 5, 50, 40)
    said = {name: json.dumps(value) if name == "where" else value for name, value in wishes.items()}
    query = {"k": 3, "box": "5,5,50,40", **said}
    answer = found(served.client.post("/v1/search", params=query, content=photo, headers={"content-type": "image/png"}))
    assert_alike(answer, engine.search(photo, k=3, box=box, **wishes).to_dict())


def test_indexed_pictures_are_searched_with_by_their_keys(served: Served, engine: SearchEngine) -> None:
    answer = found(served.client.post("/v1/search", json={"like": [APPLE], "k": 5, "where": {"price": {">": 1}}}))
    assert_alike(answer, engine.search(k=5, like=[APPLE], where={"price": {">": 1}}).to_dict())


def test_a_vector_is_searched_with(served: Served, engine: SearchEngine, photo: bytes) -> None:
    embedded = found(served.client.post("/v1/embed", content=photo, headers={"content-type": "image/png"}))
    np.testing.assert_allclose(np.linalg.norm(embedded["vector"]), 1, atol=1e-4)
    answer = found(served.client.post("/v1/search", json={"k": 3, **embedded}))
    assert_alike(answer, engine.search(photo, k=3).to_dict())
    with_vector = found(
        served.client.post("/v1/search?k=3&with_vector=true", content=photo, headers={"content-type": "image/png"})
    )
    np.testing.assert_allclose(with_vector.pop("vector"), embedded["vector"], atol=1e-3)
    assert_alike(with_vector, engine.search(photo, k=3).to_dict())
    stale = served.client.post("/v1/search", json={"vector": embedded["vector"], "model": "0" * 64})
    assert_problem(stale, 409, "the query encoder is another model@00000000")


def test_many_pictures_are_answered_in_their_order(served: Served, engine: SearchEngine, demo_queries: Path) -> None:
    paths = sorted(demo_queries.iterdir())[:9]
    files = [("images", (path.name, path.read_bytes())) for path in paths]
    answers = found(served.client.post("/v1/search/batch", files=files, data={"k": "2"}))["queries"]
    for answer, path in zip(answers, paths, strict=True):
        assert_alike(answer, engine.search(path.read_bytes(), k=2).to_dict())


def test_two_pictures_are_compared(served: Served, engine: SearchEngine, photo: bytes, demo_gallery: Path) -> None:
    other = (demo_gallery / APPLE).read_bytes()
    answer = found(served.client.post("/v1/match", files=[("images", ("a", photo)), ("images", ("b", other))]))
    expected = engine.match(photo, other).to_dict()
    assert answer["score"] == pytest.approx(expected.pop("score"), abs=5e-3)
    assert answer["distance"] == pytest.approx(expected.pop("distance"), abs=2e-2)
    assert {name: answer[name] for name in expected} == expected


def test_many_callers_at_once_each_get_their_own_answer(served: Served, demo_gallery: Path) -> None:
    paths = [demo_gallery / thing / name for thing in THINGS for name in ("noto.png", "fluent.webp")]
    paths = [path for path in paths if path.is_file()] * 6

    def ask(path: Path) -> str:
        answer = served.client.post("/v1/search?k=1", content=path.read_bytes(), headers={"content-type": "image/png"})
        return keys(found(answer))[0]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, paths)) == [f"{path.parent.name}/{path.name}" for path in paths]
    metrics = served.client.get("/metrics").text
    together = float(
        next(line for line in metrics.splitlines() if line.startswith("retrieve_batch_size_count")).split()[1]
    )
    asked = float(next(line for line in metrics.splitlines() if line.startswith("retrieve_batch_size_sum")).split()[1])
    assert together < asked  # some were embedded together


# -------------------- writes


def test_what_is_written_is_found_changed_and_gone(shop: Path, photo: bytes, tmp_path: Path) -> None:
    with serving(shop, log=tmp_path / "log") as served:
        client, name = served.client, {"key": "new/ä b.png"}
        put = client.put(
            "/v1/images",
            params=name | {"product_id": "p1", "metadata": '{"price": 99}'},
            content=photo,
            headers={"content-type": "image/png"},
        )
        assert found(put)["key"] == name["key"]
        query = {"min_generation": put.json()["generation"], "k": 1}
        image = {"content-type": "image/png"}
        answer = found(client.post("/v1/search", params=query, content=photo, headers=image))
        assert keys(answer) == [name["key"]]
        assert answer["hits"][0]["product_id"] == "p1"
        assert answer["hits"][0]["metadata"] == {"price": 99}
        assert answer["generation"] >= put.json()["generation"]

        changed = found(client.patch("/v1/images", params=name, json={"metadata": {"price": 1, "colour": "red"}}))
        record = found(client.get("/v1/images", params=name))
        assert record["metadata"] == {"price": 1, "colour": "red"}
        assert record["product_id"] == "p1"
        assert changed["generation"] == put.json()["generation"] + 1

        form = client.put("/v1/images", params={"key": "form.png"}, files={"image": photo}, data={"label": "fruit"})
        assert found(client.get("/v1/images", params={"key": "form.png"}))["label"] == "fruit", form.text
        assert (
            client.post("/v1/feedback", json={"query_key": "form.png", "key": APPLE, "relevant": True}).status_code
            == 204
        )

        assert found(client.delete("/v1/images", params=name))["generation"] > changed["generation"]
        assert_problem(client.get("/v1/images", params=name), 404, "no picture 'new/ä b.png'")
        assert_problem(client.delete("/v1/images", params=name), 404, "nothing was removed")
        assert_problem(client.patch("/v1/images", params=name, json={"label": "x"}), 404, "no picture")
    with SearchEngine.open(shop) as engine:
        assert engine.picture("form.png").label == "fruit"
        assert engine.info().images == 13


def test_what_cannot_be_kept_is_refused(shop: Path, photo: bytes, tmp_path: Path) -> None:
    deep = 200 * "[" + 200 * "]"
    image = {"content-type": "image/png"}
    with serving(shop, log=tmp_path / "log") as served:
        client = served.client
        for metadata, said in {
            '{"a": NaN}': "metadata: is not JSON: NaN is no JSON number",
            '{"a": [1e999]}': "metadata: inf is no JSON number",
            f'{{"a": {deep}}}': "metadata: nested more than 100 deep",
            f'{{"a": 1{400 * "0"}}}': "metadata: is not JSON: a number of 401 digits is too large",
            20_000 * "[": "metadata: is not JSON: maximum recursion depth exceeded",
            '{"a": "\\ud800"}': "metadata: '\\ud800' is half of a character",
            '{"\\ud800": 1}': "metadata: '\\ud800' is half of a character",
        }.items():
            put = client.put("/v1/images", params={"key": "a", "metadata": metadata}, content=photo, headers=image)
            assert_problem(put, 422, said)
            body = f'{{"metadata": {metadata}}}'.encode()
            patch = client.patch(f"/v1/images?key={APPLE}", content=body, headers={"content-type": "application/json"})
            assert patch.status_code in (400, 422), patch.text
        assert_problem(client.patch("/v1/images?key=x2", json={"key": APPLE}), 422, "key: the query string says 'x2'")
        form = client.put("/v1/images?key=x2", files={"image": photo}, data={"key": "other"})
        assert_problem(form, 422, "the body another")
        twice = client.put("/v1/images?key=a&key=b", content=photo, headers=image)
        assert_problem(twice, 422, "key: 2 came")
        unread = client.post(f"/v1/feedback?query_key={APPLE}&key={CAR}&relevant=1", content=photo, headers=image)
        assert_problem(unread, 415, "'image/png' is not understood; send application/json")
        fields = {one["name"] for one in found(client.get("/v1/fields"))["fields"]}
        assert fields == {"product_id", "price", "maker"}
        assert found(client.get("/v1/info"))["images"] == 12


def test_callers_are_told_no_path_of_the_server(shop: Path, photo: bytes, tmp_path: Path) -> None:
    (tmp_path / "gone.png").write_bytes(photo)
    with SearchEngine.open(shop) as engine:
        engine.upsert("gone.png", tmp_path / "gone.png")
    (tmp_path / "gone.png").unlink()
    with serving(shop, log=tmp_path / "log") as served:
        client = served.client
        said = {"query_key": "gone.png", "key": APPLE, "relevant": True}
        for answer in (
            client.post("/v1/feedback", json=said),
            client.get("/v1/images/content?key=gone.png"),
            client.get("/v1/images/thumbnail?key=gone.png"),
        ):
            assert_problem(answer, 404, "the file of 'gone.png' cannot be used: no such file")
            assert str(tmp_path) not in answer.text
        for answer in (
            client.get("/v1/images?key=nope"),
            client.delete("/v1/images?key=nope"),
            client.patch("/v1/images?key=nope", json={"label": "x"}),
            client.post("/v1/feedback", json=said | {"query_key": APPLE, "key": "nope"}),
        ):
            assert_problem(answer, 404, "no picture 'nope' in the index")
            assert str(tmp_path) not in answer.text
        vector = found(client.post("/v1/embed", content=photo, headers={"content-type": "image/png"}))["vector"]
        other = client.post("/v1/search", json={"vector": vector, "model": "0" * 64})
        assert_problem(other, 409, "the query encoder is another model@00000000; embed the picture again")
        assert str(tmp_path) not in other.text
        assert "--" not in other.json()["detail"]


def test_of_two_that_remove_a_picture_at_once_one_is_told_that_it_is_not_there(shop: Path, tmp_path: Path) -> None:
    with serving(shop, log=tmp_path / "log") as served, ThreadPoolExecutor(2) as pool:
        for key in sorted(f"{thing}/noto.png" for thing in THINGS):
            both = list(pool.map(lambda key: served.client.delete("/v1/images", params={"key": key}), [key, key]))
            assert sorted(answer.status_code for answer in both) == [200, 404]


def test_an_index_that_is_taken_away_is_said(shop: Path, photo: bytes, tmp_path: Path) -> None:
    with serving(shop, log=tmp_path / "log") as served:
        shop.rename(tmp_path / "elsewhere")
        put = served.client.put("/v1/images?key=a", content=photo, headers={"content-type": "image/png"})
        for answer in (served.client.get("/readyz"), put, served.client.delete(f"/v1/images?key={APPLE}")):
            assert_problem(answer, 503, "the index is gone from the server's disk")
        assert served.client.get("/healthz").status_code == 200


def test_what_another_process_commits_is_seen_by_the_next_search(shop: Path, photo: bytes, tmp_path: Path) -> None:
    with serving(shop, log=tmp_path / "log") as served, SearchEngine.open(shop) as engine:
        generation = engine.upsert("other.png", photo)
        answer = found(served.client.post("/v1/search", content=photo, headers={"content-type": "image/png"}))
        assert answer["generation"] == generation
        assert keys(answer)[0] == "other.png"
        ahead = {"min_generation": generation + 5}
        late = served.client.post("/v1/search", params=ahead, content=photo, headers={"content-type": "image/png"})
        assert_problem(late, 409, f"the index is at {generation}")


def test_one_server_writes_and_others_only_read(shop: Path, tmp_path: Path) -> None:
    with serving(shop, log=tmp_path / "log") as served:
        second = retrieve("serve", "--index", shop, "--port", "1")
        assert second.returncode == 1
        said = second.stderr.splitlines()[-1]
        assert f"`retrieve serve` runs as process {served.process.pid}" in said
        assert "--read-only" in said
        with serving(shop, "--read-only", log=tmp_path / "log2") as reader:
            assert_problem(reader.client.delete("/v1/images", params={"key": APPLE}), 403, "this server is read-only")
        retrieve("remove", APPLE, "--index", shop)  # jobs and other commands go on beside it
        assert_problem(served.client.get("/v1/images", params={"key": APPLE}), 404, APPLE)


# -------------------- pictures


def test_pictures_are_shown_by_their_keys(served: Served, demo_gallery: Path) -> None:
    content = served.client.get("/v1/images/content", params={"key": APPLE})
    assert content.content == (demo_gallery / APPLE).read_bytes()
    assert content.headers["content-type"] == "image/png"
    small = served.client.get("/v1/images/thumbnail", params={"key": APPLE, "side_px": 64})
    assert small.headers["content-type"] == "image/jpeg"
    assert max(PIL.Image.open(io.BytesIO(small.content)).size) == 64
    again = served.client.get(
        "/v1/images/thumbnail", params={"key": APPLE, "side_px": 64}, headers={"if-none-match": small.headers["etag"]}
    )
    assert again.status_code == 304
    assert not again.content
    for held in (f"W/{small.headers['etag']}", f'"other", {small.headers["etag"]}', "*"):
        again = served.client.get("/v1/images/content", params={"key": APPLE}, headers={"if-none-match": held})
        assert again.status_code == (304 if held == "*" else 200)  # of another file
        again = served.client.get(
            "/v1/images/thumbnail", params={"key": APPLE, "side_px": 64}, headers={"if-none-match": held}
        )
        assert again.status_code == 304


@pytest.mark.parametrize("key", ["../../etc/passwd", "/etc/passwd", "apple/../apple/noto.png", "file:///etc/passwd"])
@pytest.mark.parametrize("route", ["/v1/images", "/v1/images/content", "/v1/images/thumbnail"])
def test_a_path_is_no_key(served: Served, route: str, key: str) -> None:
    assert_problem(served.client.get(route, params={"key": key}), 404, "no picture")


# -------------------- what is wrong


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("k=0", "k: Input should be greater than or equal to 1"),
        ("k=many", "k: Input should be a valid integer"),
        ("k=1&colour=red", "colour: Extra inputs are not permitted"),
        ("where=price <", "position"),
        ("where=size > 3", "no picture has a field 'size'"),
        ("where={", "where: begins with a brace and is not JSON"),
        ("box=1,2,3", "box: four numbers are needed"),
        ("box=9000,9000,5,5", "box"),
        ("min_probability=0.5", "is not calibrated"),
        ("dedup=0", "dedup: Input should be greater than 0"),
        ("box=-5,5,0,9", "box: four numbers are needed"),
        ("model=abc", "model: says which model made a vector, and none came"),
        (f"where={'{%22not%22:' * 3000}", "where: begins with a brace and is not JSON: maximum recursion depth"),
        ("where={%22price%22:NaN}", "where: begins with a brace and is not JSON: NaN is no JSON number"),
        ("where={%22price%22:1e999}", "price: inf is no text, number, true or false"),
    ],
)
def test_a_wrong_field_is_named(served: Served, photo: bytes, query: str, said: str) -> None:
    answer = served.client.post(f"/v1/search?{query}", content=photo, headers={"content-type": "image/png"})
    assert_problem(answer, 422, said)


def bomb() -> bytes:
    """A PNG whose header says 400 megapixels."""
    buffer = io.BytesIO()
    PIL.Image.new("L", (20_000, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "status", "said"),
    [
        (b"not a picture", "image/jpeg", 422, "not a picture"),
        (b"", "image/jpeg", 400, "the body is empty"),
        (b"{", "application/json", 400, "the body is not JSON"),
        (b"[" * 100_000, "application/json", 400, "the body is not JSON"),
        (b"[]", "application/json", 422, "must be a JSON object"),
        (b"{}", "application/json", 422, "nothing to look for"),
        (b'{"vector": [1, 0]}', "application/json", 422, "the index takes"),
        (b'{"vector": [NaN]}', "application/json", 400, "NaN is no JSON number"),
        (b'{"like": ["nobody"]}', "application/json", 404, "no picture 'nobody' in the index; nothing can be like"),
        (b'{"like": ["apple/noto.png"], "box": "1,2,3,4"}', "application/json", 422, "box: is about a picture"),
        (b'{"vector": [1], "box": "1,2,3,4"}', "application/json", 422, "box: is about a picture"),
        (b'{"vector": [1], "with_vector": true}', "application/json", 422, "with_vector: is about a picture"),
        (
            b'{"like": ["apple/noto.png"], "model": "a"}',
            "application/json",
            422,
            "model: says which model made a vector",
        ),
        (b'{"like": ["apple/noto.png"], "where": {"price": 1%0400d}}' % 0, "application/json", 400, "401 digits"),
        (b'{"like": ["\\ud800"]}', "application/json", 422, "like.0: Input should be a valid string"),
        (bytes(2_000_001), "application/json", 413, "2000000 bytes (of JSON here)"),
        (b"x", "text/html", 415, "'text/html' is not understood"),
        (b"x", "multipart/form-data", 400, "the form cannot be parsed"),
        (b"x", "multipart/form-data; boundary=y", 400, "the form cannot be parsed"),
        (bomb, "image/png", 413, "400.0 MP, the limit is 100 MP"),
    ],
)
def test_a_body_that_is_none_is_refused(served: Served, content: Any, kind: str, status: int, said: str) -> None:
    sent = content() if callable(content) else content
    assert_problem(served.client.post("/v1/search", content=sent, headers={"content-type": kind}), status, said)


def test_conditions_are_as_long_in_json_as_in_text(served: Served) -> None:
    """A search takes as long as its condition is large, whatever its deadline."""
    where = {"or": [{"price": number} for number in range(100_000)]}
    for said in (where, json.dumps(where)):
        answer = served.client.post("/v1/search", json={"like": [APPLE], "where": said})
        assert_problem(answer, 422, "at most 100000 are read")


def test_a_box_that_begins_outside_is_cut_to_the_picture(served: Served, engine: SearchEngine, photo: bytes) -> None:
    image = {"content-type": "image/png"}
    answer = found(served.client.post("/v1/search?k=3&box=-5,-5,50,40", content=photo, headers=image))
    assert_alike(answer, engine.search(photo, k=3, box=Box(-5, -5, 50, 40)).to_dict())


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (FilterError("a"), 422, "FilterError"),
        (ValueError("a"), 422, None),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), 422, None),
    ],
)
def test_only_errors_of_the_library_have_a_name(error: Exception, status: int, kind: str | None) -> None:
    problem = problem_of(error, Path("/shop"))
    assert problem is not None
    assert (problem.status, problem.kind) == (status, kind)


def test_unknown_places_and_ways_are_refused(served: Served) -> None:
    assert_problem(served.client.get("/v1/nothing"), 404, "Not Found")
    wrong = served.client.get("/v1/search")
    assert_problem(wrong, 405, "Method Not Allowed")
    assert wrong.headers["allow"] == "POST"
    assert served.client.get("/v1/images/content").status_code == 422
    assert served.client.delete("/v1/info").headers["allow"] == "GET, HEAD"
    assert_problem(served.client.get("/v1/images"), 422, "key: Field required")
    nul = served.client.get("/v1/images", params={"key": "a\0b"})
    assert_problem(nul, 422, "key: holds a NUL character, 'a\\x00b' given")
    assert nul.json()["detail"].startswith("key: ")
    assert_problem(served.client.get("/v1/images?key=a&key=b"), 422, "key: 2 came; name one picture")


@pytest.mark.parametrize("route", ["/", "/healthz", "/readyz", "/v1/info", f"/v1/images/content?key={APPLE}"])
def test_head_says_what_get_would_without_its_body(served: Served, route: str) -> None:
    head, get = served.client.head(route), served.client.get(route)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(get.content))
    assert served.client.head("/v1/search").status_code == 405


def test_what_is_too_large_or_too_slow_is_cut_off(shop: Path, photo: bytes, tmp_path: Path) -> None:
    with serving(shop, "--max-upload", "100KB", log=tmp_path / "log") as served:
        image = {"content-type": "image/png"}
        assert_problem(served.client.post("/v1/search", content=bytes(100_001), headers=image), 413, "100000 bytes")
        chunks = (bytes(20_000) for _ in range(10))  # without saying how much
        assert_problem(served.client.post("/v1/search", content=chunks, headers=image), 413, "--max-upload")
        assert served.client.post("/v1/search", content=photo, headers=image).status_code == 200


def test_who_comes_when_all_places_are_taken_is_told_so(pristine: Path, photo: bytes, tmp_path: Path) -> None:
    with serving(pristine, "--read-only", "--max-concurrency", "2", log=tmp_path / "log") as served:

        def ask(_: int) -> httpx2.Response:
            return served.client.post("/v1/search", content=photo, headers={"content-type": "image/png"})

        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(ask, range(60)))
        statuses = {answer.status_code for answer in answers}
        assert statuses == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert_problem(refused, 429, "--max-concurrency")
        assert refused.headers["retry-after"] == "1"
        assert ask(0).status_code == 200


# -------------------- what it says and how it ends


def test_it_says_what_it_holds_and_how_it_does(served: Served, engine: SearchEngine, photo: bytes) -> None:
    assert found(served.client.get("/healthz")) == {"status": "ok"}
    assert found(served.client.get("/readyz")) == {"status": "ready"}
    info = found(served.client.get("/v1/info"))
    assert info.pop("can_write") is False
    assert info["images"] == 12
    assert info["model"] == engine.info().to_dict()["model"]
    fields = {one["name"]: one for one in found(served.client.get("/v1/fields"))["fields"]}
    assert (fields["price"]["kinds"], fields["price"]["least"], fields["price"]["greatest"]) == (["number"], 1, 12)
    assert sorted(fields["maker"]["texts"]) == ["fluent", "noto"]
    assert (sorted(fields["product_id"]["texts"]), fields["product_id"]["pictures"]) == (sorted(THINGS), 12)
    assert "label" not in fields  # no picture has one
    found(served.client.post("/v1/search", content=photo, headers={"content-type": "image/png"}))
    metrics = served.client.get("/metrics").text
    assert "retrieve_images 12.0" in metrics
    assert 'retrieve_stage_seconds_count{stage="decode"}' in metrics


def test_requests_are_logged_with_their_ids(pristine: Path, photo: bytes, tmp_path: Path) -> None:
    with serving(pristine, "--read-only", "--log-json", log=tmp_path / "log") as served:
        named = served.client.post(
            "/v1/search", content=photo, headers={"content-type": "image/png", "x-request-id": "from-the-shop-7"}
        )
        assert named.headers["x-request-id"] == "from-the-shop-7"
        forged = served.client.get("/v1/info", headers={"x-request-id": 'a"}\\n{"b'})
        assert len(forged.headers["x-request-id"]) == 32
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert all(line["time"].endswith("+00:00") for line in lines)
    assert next(line["level"] for line in lines if "serving" in line.get("message", "")) == "INFO"
    requests = [line["request"] for line in lines if "request" in line]
    one = next(request for request in requests if request["request_id"] == "from-the-shop-7")
    assert (one["method"], one["route"], one["status"]) == ("POST", "/v1/search", 200)


def test_a_traceback_is_within_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    with json_log():
        try:
            raise ZeroDivisionError("of nothing")
        except ZeroDivisionError:
            logging.getLogger("somebody.else").exception("it has\nfailed")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "somebody.else", "it has\nfailed")
    assert "ZeroDivisionError: of nothing" in line["traceback"]


def test_sigterm_finishes_what_is_running(shop: Path, demo_queries: Path, tmp_path: Path) -> None:
    files = [("images", (path.name, path.read_bytes())) for path in sorted(demo_queries.iterdir())] * 4
    with serving(shop, log=tmp_path / "log") as served, ThreadPoolExecutor(1) as pool:
        running = pool.submit(served.client.post, "/v1/search/batch", files=files)
        while "retrieve_queue 1.0" not in httpx2.get(f"{served.url}/metrics").text and not running.done():
            time.sleep(0.005)
        served.process.send_signal(signal.SIGTERM)
        assert len(found(running.result())["queries"]) == len(files)
        assert served.process.wait(30) == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "--host 0.0.0.0 is reached from other machines"),
        (["--api-key-file", "/nowhere"], 1, "keys /nowhere cannot be read"),
        (["--max-upload", "lots"], 2, "no size"),
        (["--search-device", "cuda:99"], 1, "search device cuda:99 is not available"),
        (["--host", "127.0.0.999", "--anybody"], 1, "cannot listen at 127.0.0.999:8000: "),
        (["--host", "192.0.2.1", "--anybody"], 1, "cannot listen at 192.0.2.1:8000: "),
    ],
)
def test_what_cannot_be_served_is_one_line(shop: Path, options: list[str], code: int, said: str) -> None:
    done = retrieve("serve", "--index", shop, *options)
    assert done.returncode == code
    assert said in done.stderr
    if code == 1:
        assert_one_line(done.stderr)


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(shop: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = retrieve("serve", "--index", shop, "--port", str(port), "--device", "foo")
    assert done.returncode == 1
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use; choose another --host or --port" in done.stderr
    assert_one_line(done.stderr)


def test_a_model_that_cannot_be_loaded_is_one_line(shop: Path) -> None:
    done = retrieve("serve", "--index", shop, "--port", str(free_port()), "--device", "foo")
    assert done.returncode == 1
    assert "device 'foo' is unknown" in done.stderr
    assert_one_line(done.stderr)


@pytest.mark.parametrize(("host", "at"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_it_says_where_it_serves_once_it_does(pristine: Path, tmp_path: Path, host: str, at: str) -> None:
    with serving(pristine, "--read-only", "--host", host, host=at, log=tmp_path / "log") as served:
        assert (tmp_path / "log").read_text() == f"retrieve: serving {pristine} at {served.url}/\n"
