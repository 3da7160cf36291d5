"""What every benchmark shares: where the data lie, how a child is measured, how a figure is kept.

Scripts are run as `python benchmarks/bench_x.py` and say `from common import ...`.
"""

import csv
import datetime
import json
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from photos import render_photos

__all__ = [
    "LabelledPicture",
    "Measured",
    "bench_data",
    "grocery_iconic",
    "grocery_split",
    "packed_bits",
    "peak_memory_bytes",
    "record",
    "render_photos",
    "run_measured",
    "unpacked_bits",
]

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
DATA_VARIABLE = "RETRIEVE_BENCH_DATA"
COMMIT_VARIABLE = "RETRIEVE_BENCH_COMMIT"  # for a copy of the sources without their repository

# A child's peak memory starts from what its parent held when it was started: Linux carries the maximum over exec.
# So a small process of its own starts the command and waits for it.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
try:
    child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL)
except OSError as error:
    sys.exit(f"cannot run {sys.argv[2]}: {error.strerror}")
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - start
with open(int(sys.argv[1]), "w") as pipe:
    json.dump([seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, os.waitstatus_to_exitcode(status)], pipe)
"""


class LabelledPicture(NamedTuple):
    """A picture of a labelled data set: its path, its product and the kind of product."""

    path: Path
    fine: int
    coarse: int


class Measured(NamedTuple):
    """What a command took: wall clock, processor time, and the most memory that one of its processes held."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def bench_data() -> Path:
    """The folder of benchmark data, from the environment.

    Raises:
        SystemExit: the variable is unset, or the data are not there; says in a line what is needed.
    """
    folder = os.environ.get(DATA_VARIABLE, "")
    if folder and (Path(folder) / "grocery" / "classes.csv").is_file():
        return Path(folder).resolve()
    sys.exit(
        f"{DATA_VARIABLE} {'has no grocery/classes.csv' if folder else 'is not set'}: it names a folder that holds, as "
        "grocery/, the folder `dataset` of the Grocery Store Dataset (Klasson et al. 2019, "
        "https://github.com/marcusklasson/GroceryStoreDataset)"
    )


def grocery_split(name: str) -> list[LabelledPicture]:
    """The photos of a published split: "train", "val" or "test"."""
    folder = bench_data() / "grocery"
    rows = csv.reader((folder / f"{name}.txt").read_text("utf-8").splitlines(), skipinitialspace=True)
    return [LabelledPicture(folder / path, int(fine), int(coarse)) for path, fine, coarse in rows]


def grocery_iconic() -> list[LabelledPicture]:
    """The 81 catalogue pictures, one for each product."""
    folder = bench_data() / "grocery"
    rows = csv.DictReader((folder / "classes.csv").read_text("utf-8").splitlines())
    return [
        LabelledPicture(
            folder / row["Iconic Image Path (str)"].lstrip("/"),
            int(row["Class ID (int)"]),
            int(row["Coarse Class ID (int)"]),
        )
        for row in rows
    ]


def packed_bits(bits: NDArray[np.bool_]) -> str:
    """(N,) answers to N questions as hexadecimal text, for a record that others are paired with."""
    return np.packbits(bits).tobytes().hex()


def unpacked_bits(text: str, count: int) -> NDArray[np.bool_]:
    """The (count,) bits that `packed_bits` wrote."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count).astype(np.bool_)


def run_measured(command: Sequence[str], *, env: dict[str, str] | None = None) -> Measured:
    """Run a command to its end; its output goes where ours goes.

    Args:
        command: program and arguments.
        env: the whole environment; None passes ours on.

    Returns:
        `Measured`. Processor time and memory include the children that the command waited for; memory is the largest
        of these processes, not their sum.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    reader, writer = os.pipe()
    launch = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(writer), *command]
    with subprocess.Popen(launch, pass_fds=[writer], env=env) as launcher:
        os.close(writer)
        with os.fdopen(reader) as pipe:
            text = pipe.read()
    if not text:
        raise subprocess.CalledProcessError(launcher.returncode, list(command))
    seconds, cpu_seconds, peak, code = json.loads(text)
    if code:
        raise subprocess.CalledProcessError(code, list(command))
    return Measured(seconds, cpu_seconds, peak * _MAXRSS_UNIT)


_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def peak_memory_bytes() -> int:
    """The most memory this process has held so far; on Linux without what its parent held before the exec."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line[:6] == "VmHWM:")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT


def record(
    name: str,
    *,
    dataset: str,
    protocol: str,
    model: str,
    values: dict[str, Any],
    seed: int | None = None,
    results: Path = RESULTS,
) -> Path:
    """Keep figures in results/<name>.json, with what is needed to measure them again, and print them.

    The file is a list of records; one of the same dataset, protocol and model is replaced.

    Args:
        name: the benchmark's name.
        dataset: the pictures, and how many.
        protocol: what was done with them.
        model: the encoder, or the tool that was measured.
        values: name -> plain value; recall in [0, 1], units in the names.
        seed: of what was drawn at random, if anything was.
        results: the folder.

    Returns:
        The file.
    """
    new = {
        "benchmark": name,
        "dataset": dataset,
        "protocol": protocol,
        "model": model,
        "values": values,
        "seed": seed,
        "commit": _commit(),
        "machine": _machine(),
        "command": _command(sys.argv),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    path = results / f"{name}.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() else []
    identity = (dataset, protocol, model)
    records = [one for one in kept if (one["dataset"], one["protocol"], one["model"]) != identity] + [new]
    results.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(records, indent=2, ensure_ascii=False) + "\n", "utf-8")
    aside.replace(path)
    print(f"{name}: {dataset} · {protocol} · {model}: {_readable(values.items())}")
    return path


def _readable(values: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values)


def _commit() -> str | None:
    """The commit measured, with "+" when the sources differ from it; outside a repository what the caller names."""
    git = ["git", "-C", str(REPOSITORY)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return os.environ.get(COMMIT_VARIABLE)
    is_clean = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "retrieval", "indexer", "benchmarks/*.py"])
    return head.stdout.strip() + ("+" if is_clean.returncode else "")


def _machine() -> dict[str, Any]:
    """What matters for speed, and nothing that names the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": cores,
        "cpu": found[1].strip() if found else platform.machine(),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "gpu": _gpu(),
        "python": platform.python_version(),
    }


def _gpu() -> str | None:
    """The first CUDA device, where torch is in use and finds one."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name(0) if torch is not None and torch.cuda.is_available() else None


def _command(argv: Sequence[str]) -> str:
    """The command line as it would be typed in the repository's root, without this machine's paths."""
    return " ".join(["python", *map(_portable, argv)])


def _portable(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return shlex.quote(argument)
    data = os.environ.get(DATA_VARIABLE)
    if data and path.resolve().is_relative_to(Path(data).resolve()):
        value = Path(f"${DATA_VARIABLE}", path.resolve().relative_to(Path(data).resolve())).as_posix()
        return f'{option}{equals}"{value}"'
    shown = path.resolve().relative_to(REPOSITORY) if path.resolve().is_relative_to(REPOSITORY) else Path(path.name)
    return shlex.quote(f"{option}{equals}{shown.as_posix()}")
