"""A server that is written to while it is asked, refreshed and killed: what it has answered holds."""

import random
import signal
import threading
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
from serving import Served, serving

MODEL, BETTER = "efficientnet_lite0", "efficientnet_lite2"
AT_ONCE = Retries(most=0)


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


def test_what_was_answered_is_there_after_a_kill(index: Path, demo_gallery: Path, tmp_path: Path) -> None:
    killed_under_writes(index, sorted(demo_gallery.glob("*/*"))[:9], tmp_path / "log", kills=3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_was_answered_is_there_after_twenty_kills(index: Path, demo_gallery: Path, tmp_path: Path) -> None:
    killed_under_writes(index, sorted(demo_gallery.glob("*/*"))[:9], tmp_path / "log", kills=20)


def ask_steadily(served: Served, queries: list[Path], done: threading.Event, wrong: list[str], models: set[str]) -> int:
    """Search without pause; each answer is of one generation, which only grows, and finds what is searched for."""
    count, newest = 0, 0
    with Client(served.url, retries=AT_ONCE) as client:
        while not done.is_set():
            query = queries[count % len(queries)]
            try:
                answer = client.search(query, 1)
            except Exception as error:  # whatever it is, it is reported
                wrong.append(f"search: {error}")
                continue
            count += 1
            models.add(answer.model)
            if answer.hits[0].path != query or answer.hits[0].score < 0.99:
                wrong.append(f"{query}: {answer.hits[0]}")
            newest = max(newest, answer.generation)
    return count


def write_and_read(served: Served, name: str, picture: Path, done: threading.Event, wrong: list[str]) -> int:
    """Upsert, look with the generation that was returned, remove, look again: ten a second."""
    count = 0
    with Client(served.url) as client:
        while not done.is_set():
            key = f"{name}-{count}.png"
            try:
                there = client.upsert(key, picture, metadata={"writer": name})
                found = client.search(picture, 5, min_generation=there, where={"writer": name})
                if key not in [hit.key for hit in found.hits] or found.generation < there:
                    wrong.append(f"{key} was written in {there} and is not in {found.generation}")
                gone = client.remove(key)
                found = client.search(picture, 5, min_generation=gone, exclude=[key])
                if found.generation < gone:
                    wrong.append(f"{key} was removed in {gone}, answered from {found.generation}")
            except Exception as error:  # whatever it is, it is reported
                wrong.append(f"writer: {error}")
            count += 1
            done.wait(0.1)
    return count


def test_searches_writes_and_a_new_model_go_together(index: Path, demo_gallery: Path, tmp_path: Path) -> None:
    queries = sorted(path for path in demo_gallery.glob("*/noto.png"))[:12]
    extra = demo_gallery / "car" / "fluent.webp"
    done, wrong, models = threading.Event(), list[str](), set[str]()
    with serving(index, log=tmp_path / "log") as served, ThreadPoolExecutor(6) as pool:
        askers = [pool.submit(ask_steadily, served, queries, done, wrong, models) for _ in range(3)]
        writers = [pool.submit(write_and_read, served, f"w{n}", extra, done, wrong) for n in range(2)]
        try:
            moved = retrieve("refresh", "--model", BETTER, "--gate", "recall_at_1 >= 0", "--index", index, "--json")
            assert moved.returncode == 0, moved.stderr
            until_s = time.monotonic() + 60
            while len(models) < 2 and time.monotonic() < until_s:
                time.sleep(0.1)
            time.sleep(1)
        finally:
            done.set()
        assert sum(asker.result() for asker in askers) > 50
        assert sum(writer.result() for writer in writers) > 10
    assert not wrong, wrong[:5]
    assert len(models) == 2
