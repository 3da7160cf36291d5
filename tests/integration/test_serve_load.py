"""A server that is written to while it is asked, refreshed and killed: what it has answered holds."""

import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from commands import retrieve
from retrieval.answer import Refinements
from retrieval.client import Client
from retrieval.client.trying import Retries
from retrieval.engine import SearchEngine
from retrieval.errors import ServiceError, UnknownKey
from served_writes import Load
from serving import serving

MODEL, BETTER = "efficientnet_lite0", "efficientnet_lite2"
AT_ONCE = Retries(most=0)
FULL = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def index(tmp_path: Path, demo_gallery: Path) -> Path:
    with SearchEngine.create(tmp_path / "index", model=MODEL) as engine:
        engine.sync(demo_gallery)
    return tmp_path / "index"


def test_callers_at_once_get_what_each_of_them_asked_for(index: Path, demo_gallery: Path, tmp_path: Path) -> None:
    pictures = sorted(demo_gallery.glob("*/*"))[:12]
    wishes: list[Refinements] = [{}, {"min_score": 0.6}, {"where": "label = 'food'"}, {"like": ["apple/noto.png"]}]
    asked = [(picture, k, wish) for picture in pictures for k in (2, 5) for wish in wishes]
    random.Random(0).shuffle(asked)
    bad = [(picture, 3, Refinements(like=["not there"])) for picture in pictures]
    with (
        serving(index, log=tmp_path / "log") as served,
        Client(served.url, retries=AT_ONCE) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        refused = [pool.submit(client.search, picture, k, **wish) for picture, k, wish in bad]
        answers = list(pool.map(lambda one: client.search(one[0], one[1], **one[2]), asked))
        assert all(isinstance(one.exception(), UnknownKey | ServiceError) for one in refused)
    with SearchEngine.open(index) as engine:
        for (picture, k, wish), answer in zip(asked, answers, strict=True):
            expected = engine.search(picture, k, **wish)
            scores = [hit.score for hit in expected.hits]
            assert [hit.score for hit in answer.hits] == pytest.approx(scores, abs=5e-3)
            assert len({hit.key for hit in answer.hits} & {hit.key for hit in expected.hits}) >= len(scores) - 1


def write_until_killed(url: str, name: str, pictures: list[Path], answered: dict[str, int], started: list[str]) -> None:
    """Upsert one picture after the other; note which were begun and which were answered."""
    with Client(url, retries=AT_ONCE) as client:
        for number in range(10**6):
            key = f"{name}/{number}"
            started.append(key)
            try:
                answered[key] = client.upsert(key, pictures[number % len(pictures)], metadata={"number": number})
            except ServiceError:
                return


def killed_under_writes(index: Path, pictures: list[Path], log: Path, kills: int) -> None:
    random_ = random.Random(0)
    answered: dict[str, int] = {}
    for turn in range(kills):
        started: list[str] = []
        with serving(index, log=log) as served:
            with ThreadPoolExecutor(3) as pool:
                writers = [
                    pool.submit(write_until_killed, served.url, f"{turn}-{n}", pictures, answered, started)
                    for n in range(3)
                ]
                time.sleep(random_.uniform(0.3, 2.0))
                served.process.send_signal(signal.SIGKILL)
                for writer in writers:
                    writer.result()
            served.process.wait()
        with SearchEngine.open(index) as engine:
            for key, generation in answered.items():
                assert engine.picture(key).metadata == {"number": int(key.rpartition("/")[2])}
                assert generation <= engine.generation
            assert engine.info().images - 100 <= len(answered) + 3 * (turn + 1)
    assert len(answered) > 3 * kills
    assert retrieve("verify", "--index", index).returncode == 0


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=FULL)])
def test_what_was_answered_is_there_after_a_kill(index: Path, demo_gallery: Path, tmp_path: Path, kills: int) -> None:
    killed_under_writes(index, sorted(demo_gallery.glob("*/*"))[:9], tmp_path / "log", kills)


@pytest.mark.parametrize(("seconds", "callers"), [(1, 3), pytest.param(60, 8, marks=FULL)])
def test_searches_writes_and_a_new_model_go_together(
    index: Path, demo_gallery: Path, tmp_path: Path, seconds: float, callers: int
) -> None:
    def another_model(load: Load) -> None:
        time.sleep(seconds)
        moved = retrieve("refresh", "--model", BETTER, "--gate", "recall_at_1 >= 0", "--index", index, "--json")
        assert moved.returncode == 0, moved.stderr
        load.wait_for_models(2)
        time.sleep(seconds)

    queries = sorted(path for path in demo_gallery.glob("*/noto.png"))[:12]
    with serving(index, log=tmp_path / "log") as served:
        load = Load(served.url, queries, demo_gallery / "car" / "fluent.webp")
        seen = load.run(another_model, askers=callers, writers=callers, changes_per_s=20)
    assert (seen.errors, seen.wrong) == ([], [])
    assert seen.models == 2
    assert seen.searches > 20 * seconds
    assert seen.writes > 10 * seconds
