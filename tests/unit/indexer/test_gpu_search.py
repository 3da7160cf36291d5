"""What a GPU cannot do is never asked of it, and what it does not answer the CPU answers.

On a device with a GPU's limits, and under `make test-gpu` on real ones.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

import indexer.gpu
from indexer.changes import Changes
from indexer.errors import GpuUnavailable
from indexer.gpu import DEEPEST, Cuda, Device, Gpus, _Held, open_gpus
from indexer.settings import SearchSettings
from indexer.store import IndexStore
from indexer.vectors import NO_ID
from like_a_gpu import LikeAGpu, TwoLikeGpus, placed_store
from vectors import clustered_rows, new_store, put

DIM = 32
COUNT = 6000
QUERIES = clustered_rows(20, DIM, seed=100)


@pytest.fixture(autouse=True)
def small_segments_go_to_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.gpu, "LEAST_VALUES", 1000 * DIM)
    monkeypatch.setattr(indexer.gpu, "_ROWS_AT_ONCE", 1700)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexStore]:
    """6,000 pictures in one segment, a tenth of them removed."""
    store = new_store(tmp_path_factory.mktemp("gpu") / "index", DIM)
    rows = clustered_rows(COUNT, DIM, seed=0)
    store.commit(Changes(puts=[put(f"{row}", rows[row], metadata={"lot": row % 1000}) for row in range(COUNT)]))
    with store.job("compact"):
        store.compact(SearchSettings("exact"))
    store.commit(Changes(removes={f"{row}": -1 for row in range(0, COUNT, 10)}))
    yield store
    store.close()


def all_gpus() -> Cuda:
    return Cuda(range(faiss.get_num_gpus()))


@pytest.fixture(params=[LikeAGpu, TwoLikeGpus, pytest.param(all_gpus, marks=pytest.mark.gpu)])
def on_gpu(request: pytest.FixtureRequest, store: IndexStore) -> Iterator[IndexStore]:
    placed = placed_store(store, request.param())
    yield placed
    placed.close()


def assert_equal(placed: IndexStore, store: IndexStore, k: int, where: str | None = None) -> None:
    found, true = placed.search(QUERIES, k, where=where), store.search(QUERIES, k, where=where)
    np.testing.assert_allclose(found.scores, true.scores, atol=1e-5)
    np.testing.assert_array_equal(found.ids == NO_ID, true.ids == NO_ID)
    assert np.mean(found.ids != true.ids) < 0.01  # neighbours whose scores differ by rounding alone


@pytest.mark.parametrize("k", [1, 10, 500, 2000, 3000, COUNT, COUNT + 5])
def test_answers_are_those_of_the_cpu(on_gpu: IndexStore, store: IndexStore, k: int) -> None:
    assert_equal(on_gpu, store, k)


@pytest.mark.parametrize("least", [0, 300, 900, 990, 999, 1000])
def test_answers_under_conditions_are_those_of_the_cpu(on_gpu: IndexStore, store: IndexStore, least: int) -> None:
    for k in (1, 10, 300):
        assert_equal(on_gpu, store, k, f"lot >= {least}")


def test_the_gpu_is_asked_where_it_can_answer_and_not_beyond(store: IndexStore) -> None:
    device = LikeAGpu()
    placed = placed_store(store, device)
    placed.search(QUERIES, 10)
    assert device.flat.calls == [len(QUERIES)]
    placed.search(QUERIES, 10, where="lot >= 900")
    assert len(device.flat.calls) == 2
    placed.search(QUERIES, DEEPEST)
    placed.search(QUERIES, 10, where="lot = 999")  # of six pictures the tenth is not to be asked of 6,000
    assert len(device.flat.calls) == 2
    placed.close()


def test_near_neighbours_that_are_all_removed_do_not_hide_the_next(tmp_path: Path) -> None:
    store = new_store(tmp_path / "index", DIM)
    rows = clustered_rows(2000, DIM, seed=3)
    store.commit(Changes(puts=[put(f"{row}", rows[row]) for row in range(2000)]))
    with store.job("compact"):
        store.compact(SearchSettings("exact"))
    near = store.search(QUERIES[:1], 100).ids[0]
    keys = [picture.key for picture in store.pictures(store.snapshot, near.tolist()).values()]
    store.commit(Changes(removes=dict.fromkeys(keys, -1)))
    placed = placed_store(store, LikeAGpu())
    np.testing.assert_array_equal(placed.search(QUERIES[:1], 10).ids, store.search(QUERIES[:1], 10).ids)
    placed.close()
    store.close()


def test_many_threads_are_answered_each_with_its_own(store: IndexStore) -> None:
    device = LikeAGpu()
    placed = placed_store(store, device)
    ready = threading.Barrier(8)

    def ask(number: int) -> None:
        ready.wait()
        for row in range(20):
            k = 1 + (number + row) % 9
            found = placed.search(QUERIES[row : row + 1], k)
            np.testing.assert_array_equal(found.ids, store.search(QUERIES[row : row + 1], k).ids)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(ask, number) for number in range(8)]:
            done.result()
    assert sum(device.flat.calls) == 160
    assert len(device.flat.calls) < 160  # some were asked together
    placed.close()


def test_vectors_that_do_not_fit_are_searched_on_the_cpu(store: IndexStore, caplog: pytest.LogCaptureFixture) -> None:
    placed = IndexStore(store.index_dir, gpus=Gpus(LikeAGpu(room=3000)))
    with caplog.at_level(logging.WARNING):
        assert_equal(placed, store, 10)
        placed.close()  # after what was going on
    assert len(caplog.records) <= 1
    assert all("of 6000 vectors is searched on the CPU" in record.message for record in caplog.records)


class Full(Cuda):
    """GPUs on which there is no room for vectors."""

    def flats(self, dim: int) -> list[Any]:
        raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    "make",
    [
        partial(LikeAGpu, room=3000),
        pytest.param(lambda: Full(range(faiss.get_num_gpus())), marks=pytest.mark.gpu),
    ],
)
def test_the_lists_of_an_approximation_go_there_instead(make: Callable[[], Device], tmp_path: Path) -> None:
    approximated = new_store(tmp_path / "index", DIM)
    rows = clustered_rows(COUNT, DIM, seed=0)
    approximated.commit(Changes(puts=[put(f"{row}", rows[row], metadata={"lot": row % 1000}) for row in range(COUNT)]))
    with approximated.job("compact"):
        approximated.compact(SearchSettings("IVF32,SQ8", 0.9))
    placed = placed_store(approximated, make())
    found, expected = placed.search(QUERIES, 10), approximated.search(QUERIES, 10)
    assert np.mean(found.scores >= expected.scores[:, -1:] - 1e-6) > 0.97
    under, true = (one.search(QUERIES, 10, where="lot < 100") for one in (placed, approximated))
    np.testing.assert_array_equal(under.ids, true.ids)  # the CPU's
    placed.close()
    approximated.close()


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError])
def test_a_gpu_that_fails_is_left_alone(
    store: IndexStore, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    device = LikeAGpu()
    placed = placed_store(store, device)

    def fail(*_: object) -> None:
        raise kind("CUDA error 999 unknown error")

    device.flat.search = fail
    assert_equal(placed, store, 10)
    assert_equal(placed, store, 10)
    assert [record.message for record in caplog.records] == [
        "the GPU failed, searches go on without it: CUDA error 999 unknown error"
    ]
    placed.close()


def test_a_search_that_waits_when_the_gpus_are_closed_is_answered_by_the_cpu(store: IndexStore) -> None:
    device = LikeAGpu()
    placed = placed_store(store, device)
    is_asked, may_go_on = threading.Event(), threading.Event()
    search = device.flat.search

    def search_late(*arguments: Any) -> Any:
        is_asked.set()
        may_go_on.wait(60)
        return search(*arguments)

    device.flat.search = search_late
    gpus = placed._gpus
    assert gpus is not None
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(placed.search, QUERIES, 10)
        is_asked.wait(60)
        second = pool.submit(placed.search, QUERIES, 10)
        while not gpus._waiting:
            pass
        closing = pool.submit(gpus.close)
        while not gpus._thread._shutdown:
            pass
        may_go_on.set()
        closing.result(60)
        for one in (first, second):
            np.testing.assert_array_equal(one.result(60).ids, store.search(QUERIES, 10).ids)
    placed.close()


def test_a_segment_can_be_let_go_of_wherever_garbage_is_collected() -> None:
    gpus = Gpus(LikeAGpu())
    with gpus._thread._shutdown_lock:  # as while work is handed to the thread
        collecting = threading.Thread(target=gpus.forget, args=(_Held(),), daemon=True)
        collecting.start()
        collecting.join(60)
        assert not collecting.is_alive()
    gpus.close()


def test_segments_that_are_no_longer_searched_are_freed(tmp_path: Path) -> None:
    store = new_store(tmp_path / "index", DIM)
    rows = clustered_rows(3000, DIM, seed=3)
    store.commit(Changes(puts=[put(f"{row}", rows[row]) for row in range(1500)]))
    with store.job("compact"):
        store.compact(SearchSettings("exact"))
    placed = placed_store(store, LikeAGpu())
    held = placed.snapshot.segments[0].placed._held  # type: ignore[union-attr]
    store.commit(Changes(puts=[put(f"{row}", rows[row]) for row in range(1500, 3000)]))
    with store.job("compact"):
        store.compact(SearchSettings("exact"))
    placed.refresh()
    (one,) = placed.snapshot.segments
    assert one.placed is not None
    assert one.placed.is_ready.wait(60)
    assert_equal(placed, store, 10)
    assert held.index is None
    placed.close()
    store.close()


@pytest.mark.parametrize("said", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_asked_for_and_not_there_is_named(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0)
    with pytest.raises(GpuUnavailable, match=f"search device {said} is not available: FAISS sees no NVIDIA GPU"):
        open_gpus(said)


@pytest.mark.parametrize("said", ["gpu", "cuda:", "cuda:-1", "cuda:x", ""])
def test_a_device_of_no_known_name_is_refused(said: str) -> None:
    with pytest.raises(GpuUnavailable, match="write auto, cpu, cuda or cuda:0"):
        open_gpus(said)


def test_without_a_gpu_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0)
    assert open_gpus("auto") is None
    assert open_gpus("cpu") is None
