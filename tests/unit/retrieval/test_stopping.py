"""The first Ctrl-C stops a run where it is whole, the second ends the process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from retrieval.cli.stopping import INTERRUPTED, StopRequest


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    """After a request to stop, the handlers stay, because the process is about to end; this one is not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_the_first_check_a_signal_stops_at_once(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest():
        os.kill(os.getpid(), number)


def test_after_it_a_signal_waits_for_the_next_check() -> None:
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGINT)  # in a commit, say; nothing is raised here
        with pytest.raises(KeyboardInterrupt):
            stop.check()


def test_the_former_handlers_come_back_when_nobody_asked() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        stop.check()
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_second_signal_ends_the_process_and_says_so() -> None:
    code = (
        "import os, signal; from retrieval.cli.stopping import StopRequest\n"
        "with StopRequest() as stop:\n"
        "    stop.check()\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (INTERRUPTED, b"")
    assert done.stderr == b"retrieve: ended at once; what was committed is safe\n"
