"""The first Ctrl-C stops a run where it is whole, the second ends the process.

Signals are sent to processes of their own: a test must not interrupt whatever native threads other tests have left.
"""

import signal
import subprocess
import sys
import textwrap

import pytest

from retrieval.cli.stopping import INTERRUPTED, StopRequest


def run(code: str) -> "subprocess.CompletedProcess[str]":
    """Run code that has `StopRequest` and may `send` itself signals by name."""
    prelude = (
        "import os, signal\n"
        "from retrieval.cli.stopping import StopRequest\n"
        "def send(name): os.kill(os.getpid(), getattr(signal, name))\n"
    )
    command = [sys.executable, "-c", prelude + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_before_the_first_check_a_signal_stops_at_once(name: str) -> None:
    done = run(f"""
        try:
            with StopRequest():
                send("{name}")
                print("went on")
        except KeyboardInterrupt:
            print("stopped")
    """)
    assert (done.returncode, done.stdout) == (0, "stopped\n")


def test_after_it_a_signal_waits_for_the_next_check() -> None:
    done = run("""
        try:
            with StopRequest() as stop:
                stop.check()
                send("SIGINT")
                print("the commit ended")
                stop.check()
                print("went on")
        except KeyboardInterrupt:
            print("stopped")
    """)
    assert (done.returncode, done.stdout) == (0, "the commit ended\nstopped\n")


def test_the_former_handlers_come_back_when_nobody_asked() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        stop.check()
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_second_signal_ends_the_process_and_says_so() -> None:
    done = run("""
        with StopRequest() as stop:
            stop.check()
            send("SIGINT")
            send("SIGTERM")
            print("still here")
    """)
    assert (done.returncode, done.stdout) == (INTERRUPTED, "")
    assert done.stderr == "retrieve: ended at once; what was committed is safe\n"
