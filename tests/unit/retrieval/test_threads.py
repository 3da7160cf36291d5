"""How many threads, and who gets them."""

import os
from pathlib import Path

import pytest

from retrieval.threads import cgroup_quota, thread_budget, usable_cores


@pytest.fixture
def one_core():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no CPU affinity")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_affinity_limits_the_cores(one_core: None) -> None:
    assert usable_cores() == 1


@pytest.mark.parametrize(
    ("content", "cores"),
    [("200000 100000\n", 2.0), ("150000 100000\n", 1.5), ("max 100000\n", None), ("", None), ("nonsense here\n", None)],
)
def test_quota_of_a_version_2_group_is_cores_worth_of_time(tmp_path: Path, content: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(content)

    assert cgroup_quota(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("300000", 3.0), ("-1", None)])
def test_quota_of_a_version_1_group_is_read_where_there_is_no_version_2(
    tmp_path: Path, quota: str, cores: float | None
) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")

    assert cgroup_quota(tmp_path) == cores


def test_a_machine_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None


def test_all_cores_go_to_decoding_and_to_inference_alike() -> None:
    budget = thread_budget()

    assert (budget.total, budget.decoding, budget.inference, budget.search) == (usable_cores(),) * 4


@pytest.mark.parametrize(("threads", "decoding", "inference"), [(1, 1, 1), (2, 1, 1), (5, 2, 3), (8, 8, 8), (9, 9, 9)])
def test_fewer_threads_than_cores_are_shared(
    monkeypatch: pytest.MonkeyPatch, threads: int, decoding: int, inference: int
) -> None:
    monkeypatch.setattr("retrieval.threads.usable_cores", lambda: 8)

    budget = thread_budget(threads)

    assert (budget.decoding, budget.inference, budget.search) == (decoding, inference, threads)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="threads is 0, at least 1"):
        thread_budget(0)
