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
        "from retrieval.cli.stopping import Interrupts, StopRequest\n"
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


@pytest.mark.parametrize("listeners", ["Interrupts()", "Interrupts(), StopRequest()"])
def test_an_error_that_comes_of_a_signal_is_not_taken_for_one(listeners: str) -> None:
    done = run(f"""
        try:
            with {listeners}:
                try:
                    send("SIGINT")
                except KeyboardInterrupt:
                    raise ImportError("initialization failed")  # as libraries do
        except KeyboardInterrupt:
            print("stopped")
    """)
    assert (done.returncode, done.stdout) == (0, "stopped\n")


def test_an_error_without_a_signal_stays_one() -> None:
    done = run("""
        try:
            with Interrupts(), StopRequest():
                raise ImportError("no such library")
        except ImportError as error:
            print(error)
    """)
    assert done.stdout == "no such library\n"


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    done = run("""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with Interrupts():
            send("SIGINT")
            print("went on")
    """)
    assert done.stdout == "went on\n"


@pytest.mark.parametrize("module", ["click", "numpy", "faiss", "retrieval.engine"])
def test_an_interrupt_while_something_is_imported_is_130_and_one_line(module: str) -> None:
    done = run(f"""
        import sys
        class Interrupted:  # stands before the finders of modules, and says nothing of where they are
            def find_spec(self, name, path=None, target=None):
                if name == {module!r}:
                    try:
                        send("SIGINT")
                    except KeyboardInterrupt as error:
                        raise ImportError("initialization failed") from error
        sys.meta_path.insert(0, Interrupted())
        from retrieval.cli import main
        main(["query", "nothing.png", "--index", "nowhere"])
    """)
    assert (done.returncode, done.stderr.strip()) == (INTERRUPTED, "retrieve: interrupted")


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
