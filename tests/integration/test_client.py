"""The client has the methods, the types and the errors of the engine; waits where the server is busy; `query --url`."""

import asyncio
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from commands import assert_one_line, retrieve, retrieve_json
from indexer.errors import FilterError, ModelMismatch
from retrieval.client import AsyncClient, Client
from retrieval.client.calls import headers_of
from retrieval.client.trying import Retries
from retrieval.engine import SearchEngine
from retrieval.errors import PictureError, PictureTooLarge, PictureUndecodable, QueryError, ServiceError, UnknownKey
from retrieval.records import Box
from retrieval.results import SearchResult
from serving import Served, free_port, serving

MODEL = "efficientnet_lite0"
APPLE, CAR = "apple/noto.png", "car/noto.png"
BOX = Box(1, 1, 60, 60)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    with SearchEngine.create(folder / "index", model=MODEL) as engine:
        for price, thing in enumerate(("apple", "banana", "camera", "car")):
            path = demo_gallery / thing / "noto.png"
            engine.upsert(f"{thing}/noto.png", path, product_id=thing, metadata={"price": price}, box=BOX)
    return folder / "index"


@pytest.fixture(scope="module")
def served(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(pristine, folder / "index")
    with serving(folder / "index", log=folder / "log") as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url) as client:
        yield client


@pytest.fixture(scope="module")
def engine(pristine: Path) -> Iterator[SearchEngine]:
    with SearchEngine.open(pristine) as engine:
        yield engine


def assert_alike(answer: SearchResult, expected: SearchResult) -> None:
    assert (answer.query, answer.model) == (expected.query, expected.model)
    assert [hit.key for hit in answer.hits] == [hit.key for hit in expected.hits]
    assert [type(hit.path) for hit in answer.hits] == [type(hit.path) for hit in expected.hits]
    assert [hit.metadata for hit in answer.hits] == [hit.metadata for hit in expected.hits]
    scores = [[hit.score for hit in result.hits] for result in (answer, expected)]
    np.testing.assert_allclose(*scores, atol=5e-3)


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "image", "array"])
def test_pictures_of_every_kind_are_searched_with(
    client: Client, engine: SearchEngine, demo_gallery: Path, kind: str
) -> None:
    path = demo_gallery / CAR
    image = PIL.Image.open(path).convert("RGB")
    picture: Any = {
        "path": path, "text": str(path), "bytes": path.read_bytes(), "image": image, "array": np.asarray(image),
    }[kind]  # fmt: skip
    assert_alike(client.search(picture, 3), engine.search(picture, 3))


def test_every_wish_is_passed_on(client: Client, engine: SearchEngine, demo_gallery: Path) -> None:
    path, box = demo_gallery / CAR, Box(2, 2, 50, 50)
    wishes: dict[str, Any] = {
        "where": {"price": {">=": 1}}, "group_by": "product_id", "offset": 1, "exclude": ["camera/noto.png"],
        "like": [APPLE], "min_score": -1.0, "dedup": 1.0, "expand": 1, "rerank": True,
    }  # fmt: skip
    assert_alike(client.search(path, 2, box=box, **wishes), engine.search(path, 2, box=box, **wishes))
    assert_alike(client.search(k=2, like=[APPLE, CAR]), engine.search(k=2, like=[APPLE, CAR]))


def test_several_pictures_and_vectors(client: Client, engine: SearchEngine, demo_gallery: Path) -> None:
    paths = [demo_gallery / APPLE, demo_gallery / CAR]
    for answer, expected in zip(client.search(paths, 2), engine.search(paths, 2), strict=True):
        assert_alike(answer, expected)
    assert client.search([], 2) == []
    vectors = client.embed(paths)
    np.testing.assert_allclose(vectors, engine.embed(paths), atol=2e-2)
    fingerprint = engine.model_fingerprint
    for answer, expected in zip(
        client.search_vectors(vectors, 2, model_fingerprint=fingerprint), engine.search_vectors(vectors, 2), strict=True
    ):
        assert_alike(answer, expected)
    with pytest.raises(ModelMismatch):
        client.search_vectors(vectors, model_fingerprint="0" * 64)


def test_comparing_and_looking(client: Client, engine: SearchEngine, demo_gallery: Path) -> None:
    a, b = demo_gallery / APPLE, demo_gallery / CAR
    assert client.match(a, b).score == pytest.approx(engine.match(a, b).score, abs=5e-3)
    assert (client.match(a, b).a, client.match(a, b).b) == (str(a), str(b))
    assert client.picture(APPLE) == engine.picture(APPLE)
    assert client.info().model == engine.info().model


def test_what_is_written_is_read_again(client: Client, demo_gallery: Path) -> None:
    generation = client.upsert("new.png", demo_gallery / "car" / "fluent.webp", label="x", metadata={"price": 7})
    found = client.search(demo_gallery / "car" / "fluent.webp", 1, min_generation=generation)
    assert [hit.key for hit in found.hits] == ["new.png"]
    client.update_metadata("new.png", product_id="p", metadata={"price": 8})
    assert client.picture("new.png").metadata == {"price": 8}
    assert (client.picture("new.png").product_id, client.picture("new.png").label) == ("p", "x")
    client.update_metadata("new.png", product_id=None)
    assert client.picture("new.png").product_id is None
    client.record_feedback("new.png", CAR, relevant=True, source="customer 7")
    assert client.remove(["new.png"]) > generation
    with pytest.raises(UnknownKey, match=r"no picture 'new\.png'"):
        client.picture("new.png")


def test_errors_are_those_of_the_library(client: Client, demo_gallery: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(PictureUndecodable):
        client.search(tmp_path / "broken.png")
    with pytest.raises(PictureError, match="nowhere"):
        client.search("nowhere.png")
    with pytest.raises(FilterError, match="no picture has a field 'size'"):
        client.search(demo_gallery / APPLE, where="size > 1")
    with pytest.raises(QueryError):
        client.search()
    with pytest.raises(ValueError, match="k: Input should be greater than or equal to 1"):
        client.search(demo_gallery / APPLE, k=0)
    with pytest.raises(ServiceError, match="generation 99999 is not there"):
        client.search(demo_gallery / APPLE, min_generation=99_999)
    bomb = tmp_path / "bomb.png"
    PIL.Image.new("L", (20_000, 20_000)).save(bomb)
    with pytest.raises(PictureTooLarge):
        client.search(bomb)


def test_long_options_do_not_make_a_long_address(client: Client, engine: SearchEngine, demo_gallery: Path) -> None:
    path, many = demo_gallery / CAR, [f"{'long/' * 60}{number}.png" for number in range(250)]
    wishes: list[dict[str, Any]] = [{"exclude": [APPLE, *many]}, {"where": {"key": [CAR, *many]}}]
    for wish in wishes:
        assert_alike(client.search(path, 3, box=BOX, **wish), engine.search(path, 3, box=BOX, **wish))
    client.upsert("long.png", path, metadata={"text": "é" * 70_000}, box=BOX)
    kept = client.picture("long.png")
    assert (kept.metadata, kept.box) == ({"text": "é" * 70_000}, BOX)
    client.remove("long.png")


def test_numbers_and_keys_may_be_of_any_kind(client: Client, engine: SearchEngine, demo_gallery: Path) -> None:
    wishes: dict[str, Any] = {
        "k": np.int64(2), "min_score": np.float32(-0.5), "rerank": np.bool_(True), "exclude": {CAR},
    }  # fmt: skip
    for searched in ({"images": demo_gallery / CAR}, {"like": (APPLE,)}, {"like": APPLE}):
        assert_alike(client.search(**searched, **wishes), engine.search(**searched, **(wishes | {"k": 2})))
    plain: Any = (1, 1, 60, 60)
    assert client.search(demo_gallery / CAR, 1, box=plain).hits[0].score == pytest.approx(1, abs=1e-3)


def test_nothing_and_very_much_are_answered_as_by_the_engine(
    client: Client, engine: SearchEngine, demo_gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> tuple[Any, int]:
        async with AsyncClient(client._url) as there:
            return await there.embed([]), await there.remove([])

    assert client.embed([]).shape == asyncio.run(ask())[0].shape == engine.embed([]).shape
    assert client.remove([]) == asyncio.run(ask())[1] == client.info().generation
    names = [demo_gallery / (APPLE, CAR)[number % 2] for number in range(65)]
    assert [one.hits[0].key for one in client.search(names, 1)] == [APPLE, CAR] * 32 + [APPLE]
    monkeypatch.setattr("retrieval.client.calls.MOST_BYTES_TOGETHER", 1)  # each is larger
    assert [one.hits[0].key for one in client.search(names[:3], 1)] == [APPLE, CAR, APPLE]


def test_a_picture_that_fails_there_is_named(client: Client, tmp_path: Path) -> None:
    broken, large = tmp_path / "broken.png", tmp_path / "large.png"
    broken.write_bytes(b"nothing")
    large.write_bytes(b"\x89PNG" + bytes(21_000_000))
    for call in (client.search, lambda picture: client.embed([picture]), lambda picture: client.upsert("x", picture)):
        with pytest.raises(PictureUndecodable, match=f"^{broken}: not a picture"):
            call(broken)  # type: ignore[operator]
    with pytest.raises(PictureTooLarge, match=f"^{large}: the body is larger than 20000000 bytes"):
        client.search(large)


def test_what_a_server_does_not_take_is_a_value_error_that_can_be_told(client: Client, demo_gallery: Path) -> None:
    for wish in ({"k": 20_000}, {"expand": 101}, {"min_score": float("nan")}, {"offset": 10**7}):
        with pytest.raises(ValueError, match=f"{client._url} answered 422: {next(iter(wish))}: ") as raised:
            client.search(demo_gallery / APPLE, **wish)  # type: ignore[call-overload]
        assert isinstance(raised.value, ServiceError)
    with pytest.raises(QueryError, match="there is none"):
        client.search(like=[APPLE], box=Box(1, 1, 30, 30))


@pytest.mark.parametrize(
    ("kind", "said"),
    [("text/html", b"<html>"), ("application/json", b'{"ok": true}'), ("application/json", b"[1]"), ("x", b"")],
)
def test_a_server_of_another_kind_is_named(kind: str, said: bytes, demo_gallery: Path) -> None:
    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    async def ask(url: str) -> None:
        async with AsyncClient(url) as there:
            await there.search(demo_gallery / APPLE)

    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            for asked in (lambda: Client(url).search(demo_gallery / APPLE), lambda: asyncio.run(ask(url))):
                with pytest.raises(ServiceError, match=f"{url} answered 200, and not as `retrieve serve` does"):
                    asked()
        finally:
            server.shutdown()
            thread.join()


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(ServiceError, match="http://x:abc is no address"):
        Client("http://x:abc")
    with pytest.raises(ServiceError, match="nowhere has not answered"):
        Client("nowhere").info()


def test_a_key_may_hold_any_letter() -> None:
    key = "ключ"
    assert headers_of(key) == [(b"authorization", b"Bearer " + key.encode())]
    with pytest.raises(ServiceError, match="line break"):
        Client("http://127.0.0.1", "two\nlines")


def test_a_server_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with (
        Client(url, retries=Retries(most=1, first_wait_s=0.01)) as client,
        pytest.raises(ServiceError, match=f"{url} cannot be reached") as raised,
    ):
        client.info()
    assert raised.value.status is None


def test_a_busy_server_is_asked_again(pristine: Path, tmp_path: Path, demo_gallery: Path) -> None:
    picture = (demo_gallery / APPLE).read_bytes()

    async def ask(url: str) -> list[str]:
        async with AsyncClient(url, retries=Retries(most=200, longest_wait_s=0.2)) as client:
            answers = await asyncio.gather(*(client.search(picture, 1) for _ in range(40)))
        return [answer.hits[0].key for answer in answers]

    with serving(pristine, "--read-only", "--max-concurrency", "1", log=tmp_path / "log") as served:
        assert asyncio.run(ask(served.url)) == [APPLE] * 40
        metrics = served.client.get("/metrics").text
        refused = next(line for line in metrics.splitlines() if line.startswith("retrieve_refused_total"))
        assert float(refused.split()[1]) > 0


def test_the_asynchronous_client_does_the_same(served: Served, engine: SearchEngine, demo_gallery: Path) -> None:
    async def ask() -> None:
        async with AsyncClient(served.url) as client:
            assert_alike(await client.search(demo_gallery / CAR, 3), engine.search(demo_gallery / CAR, 3))
            several = await client.search([demo_gallery / CAR, demo_gallery / APPLE], 1)
            assert [one.hits[0].key for one in several] == [CAR, APPLE]
            vectors = await client.embed([demo_gallery / CAR])
            assert (await client.search_vectors(vectors, 1))[0].hits[0].key == CAR
            assert (await client.match(demo_gallery / CAR, demo_gallery / CAR)).score == pytest.approx(1, abs=1e-3)
            await client.upsert("async.png", demo_gallery / "car" / "fluent.webp")
            await client.update_metadata("async.png", label="y")
            assert (await client.picture("async.png")).label == "y"
            await client.record_feedback("async.png", CAR, relevant=False)
            await client.remove("async.png")
            assert (await client.info()).model == engine.info().model
            with pytest.raises(UnknownKey):
                await client.picture("async.png")

    asyncio.run(ask())


def test_both_clients_have_the_same_methods() -> None:
    public = [{name for name in vars(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)]
    assert public[0] == public[1]
    assert public[0] <= {name for name in dir(SearchEngine) if not name.startswith("_")}


def test_the_command_asks_a_server(served: Served, pristine: Path, demo_gallery: Path) -> None:
    query = ("query", demo_gallery / APPLE, "-k", "2", "--group-by", "product_id", "--where", "price < 3")
    there = retrieve_json(*query, "--url", served.url)["queries"][0]
    here = retrieve_json(*query, "--index", pristine)["queries"][0]
    assert [hit["key"] for hit in there["hits"]] == [hit["key"] for hit in here["hits"]]
    assert there["query"] == here["query"]
    gone = retrieve("query", demo_gallery / APPLE, "--url", f"http://127.0.0.1:{free_port()}")
    assert gone.returncode == 1
    assert "cannot be reached" in gone.stderr
    assert_one_line(gone.stderr)
    assert retrieve("query", demo_gallery / APPLE, "--url", served.url, "--index", pristine).returncode == 2


def test_a_picture_that_fails_there_leaves_the_others_their_answers(
    served: Served, demo_gallery: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + bytes(21_000_000))
    names = [tmp_path / "bad.png", demo_gallery / APPLE, tmp_path / "large.png"]
    done = retrieve("query", *names, "-k", "1", "--url", served.url)
    assert done.returncode == 1
    first, last = done.stderr.splitlines()
    assert first == f"retrieve: {names[0]}: not a picture (unknown format)"
    assert last.startswith(f"retrieve: {names[2]}: the body is larger than")
    assert done.stdout.startswith(f"{names[1]}:\n0.99")


@pytest.mark.parametrize("wish", [("-k", "20000"), ("--expand", "101"), ("--offset", "10000000")], ids=" ".join)
def test_what_a_server_does_not_take_is_one_line(served: Served, demo_gallery: Path, wish: tuple[str, ...]) -> None:
    done = retrieve("query", demo_gallery / APPLE, *wish, "--url", served.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_line(done.stderr)
    assert f"retrieve: {served.url} answered 422: {wish[0].strip('-').partition('=')[0]}: " in done.stderr
