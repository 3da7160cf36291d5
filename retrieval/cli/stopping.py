"""How does Ctrl-C end a command? At once; an indexing run, where it is whole, and by the second there and then."""

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Self

INTERRUPTED = 130  # the shells' convention for Ctrl-C


class Interrupts:
    """Notes Ctrl-C, which goes on to raise KeyboardInterrupt; as a context manager, so does an error after it.

    A library that is interrupted while it is imported raises ImportError, or whatever else.
    """

    def __init__(self) -> None:
        self._is_noted = False

    def __enter__(self) -> Self:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as behind `nohup`
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_noted and isinstance(error, Exception):
            raise KeyboardInterrupt from error

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._is_noted = True
        raise KeyboardInterrupt


class StopRequest:
    """Listens for SIGINT and SIGTERM; as a context manager it gives both back if none came.

    The first signal raises KeyboardInterrupt: at once until the first `check`, at the next one from then on, so never
    in the midst of a commit. The second ends the process, which the index survives as it does any kill.
    """

    def __init__(self) -> None:
        self._is_asked = False
        self._is_checked = False

    def check(self) -> None:
        """Stop here if it was asked for.

        Raises:
            KeyboardInterrupt
        """
        self._is_checked = True
        if self._is_asked:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        self._former = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_asked:  # else the process is about to end, and a signal on the way there needs no traceback
            for number, handler in self._former.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._is_asked:
            # straight to the descriptor: the signal may have come in the midst of printing
            os.write(sys.__stderr__.fileno(), b"retrieve: ended at once; what was committed is safe\n")  # type: ignore[union-attr]
            os._exit(INTERRUPTED)
        self._is_asked = True
        if not self._is_checked:
            former = self._former[signal.SIGINT]
            if callable(former):
                former(number, frame)  # which notes it
            raise KeyboardInterrupt
