"""Many threads may read something at once, or one may change it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Lets in any number of readers, or one writer; who comes after a writer waits behind it. Not to be nested."""

    def __init__(self) -> None:
        self._free = threading.Condition(threading.Lock())
        self._readers = 0
        self._is_writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Until it ends nobody writes."""
        with self._free:
            while self._is_writing:
                self._free.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._free:
                self._readers -= 1
                if not self._readers:
                    self._free.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Until it ends nobody else reads or writes."""
        is_mine = False
        try:
            with self._free:
                while self._is_writing:
                    self._free.wait()
                self._is_writing = is_mine = True
                while self._readers:
                    self._free.wait()  # can be interrupted, by Ctrl-C
            yield
        finally:
            if is_mine:
                with self._free:
                    self._is_writing = False
                    self._free.notify_all()
