"""Nobody is shut out for good by a writer that was interrupted."""

import threading

import pytest

from indexer.gate import Gate


def test_readers_come_in_after_a_writer_that_was_interrupted_while_it_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with gate.reading(), monkeypatch.context() as patched:
        patched.setattr(gate._free, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt), gate.writing():
            pass
    is_in = threading.Event()

    def read() -> None:
        with gate.reading():
            is_in.set()

    threading.Thread(target=read, daemon=True).start()
    assert is_in.wait(60)
    with gate.writing():
        pass
