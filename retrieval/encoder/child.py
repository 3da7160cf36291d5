"""How does a process without torch get something done by one that has it?

torch takes 0.8 GB and seconds to import; indexing and querying on a CPU do without it. What needs it runs as
`python -m MODULE ARGUMENTS...`, prints one line of JSON, {"result": ...} or {"error": class name, "message": text} of
an exception in `retrieval.errors`, and ends.
"""

import contextlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import retrieval.errors
from retrieval.errors import ModelError, RetrievalError

# Nothing that a child downloads or imports may report home or draw on the user's terminal.
_QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def call_child(module: str, *arguments: str) -> Any:
    """Run a module that ends in `answer_parent` and return its result.

    Raises:
        RetrievalError: the one that the child raised.
        ModelError: the child failed in another way; its last words are in the message.
    """
    own_parent = str(Path(retrieval.errors.__file__).parents[1])
    search_path = os.pathsep.join(filter(None, [own_parent, os.environ.get("PYTHONPATH")]))
    child = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **_QUIET, "PYTHONPATH": search_path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    try:
        report = json.loads(child.stdout)
    except ValueError:
        cause = next((line for line in reversed(child.stderr.splitlines()) if line.strip()), "no message")
        if child.returncode < 0:
            cause = f"killed by signal {-child.returncode}; it needs about 1.2 GB of memory"
        raise ModelError(f"{module} failed for {arguments[0] if arguments else 'all models'}: {cause}") from None
    if "error" in report:
        raise getattr(retrieval.errors, report["error"])(report["message"])
    return report["result"]


def answer_parent(work: Callable[..., Any]) -> int:
    """Call `work` with the command line's arguments and report to the parent process.

    Returns:
        The exit status.
    """
    warnings.simplefilter("ignore")
    with _own_standard_output() as report:
        try:
            json.dump({"result": work(*sys.argv[1:])}, report)
        except RetrievalError as error:
            json.dump({"error": type(error).__name__, "message": str(error)}, report)
            return 1
    return 0


@contextlib.contextmanager
def _own_standard_output() -> Iterator[IO[str]]:
    """Keep standard output for the report alone: what libraries print there is sent to standard error."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as report:
        os.dup2(2, 1)
        yield report
