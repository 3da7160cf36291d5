"""The client has the methods, the types and the errors of the engine; waits where the server is busy; `query --url`."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from commands import assert_one_line, retrieve, retrieve_json
from indexer.errors import FilterError, ModelMismatch
from retrieval.client import AsyncClient, Client
from retrieval.client.trying import Retries
from retrieval.engine import SearchEngine
from retrieval.errors import PictureError, PictureTooLarge, PictureUndecodable, QueryError, ServiceError, UnknownKey
from retrieval.records import Box
from retrieval.results import SearchResult
from serving import Served, free_port, serving

MODEL = "efficientnet_lite0"
APPLE, CAR = "apple/noto.png", "car/noto.png"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    with SearchEngine.create(folder / "index", model=MODEL) as engine:
        for price, thing in enumerate(("apple", "banana", "camera", "car")):
            path = demo_gallery / thing / "noto.png"
            engine.upsert(f"{thing}/noto.png", path, product_id=thing, metadata={"price": price}, box=Box(1, 1, 60, 60))
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
