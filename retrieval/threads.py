"""How many threads may this process use, and who gets them?"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ThreadBudget:
    """One budget, split between the parts that work at the same time.

    Attributes:
        total: the cores the process may keep busy.
        decoding: threads that read, decode and resize pictures.
        inference: threads of OpenVINO.
        search: threads of FAISS; a search never overlaps an encoding of the same query.
    """

    total: int
    decoding: int
    inference: int
    search: int


def thread_budget(threads: int | None = None) -> ThreadBudget:
    """Split the cores between decoding, inference and search.

    With every core at hand, decoding and inference each get as many threads as there are cores and the kernel
    divides the time: which of the two is the slower depends on the pictures, and a fixed split would idle. With fewer
    threads than cores the two share them instead, so that the total is kept; one thread still means one of each.

    Args:
        threads: cores to keep busy; None means all this process may use.

    Raises:
        ValueError: `threads` is less than 1.
    """
    available = usable_cores()
    total = available if threads is None else threads
    if total < 1:
        raise ValueError(f"threads is {total}, at least 1 is needed")
    if total >= available:
        return ThreadBudget(total, decoding=total, inference=total, search=total)
    decoding = max(1, total // 2)
    return ThreadBudget(total, decoding=decoding, inference=max(1, total - decoding), search=total)


def usable_cores() -> int:
    """Count the CPUs this process may use: its CPU affinity, cut to the quota of its control group (at least 1)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(_CGROUP)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cgroup_quota(root: Path) -> float | None:
    """Read how many cores' worth of time a control group grants, or None where it sets no limit.

    Args:
        root: the mount point of the control groups; inside a container its own group is the root.
    """
    try:
        quota, period = (root / "cpu.max").read_text().split()  # version 2: "200000 100000" or "max 100000"
    except (OSError, ValueError):
        try:  # version 1: -1 means no limit
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None
