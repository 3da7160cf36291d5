"""Training in a process of its own: its memory goes when it is done, and torch and OpenVINO need not share one."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from retrieval.errors import RetrievalError, TrainingError

OnEpochs = Callable[[int, int, int, int], None]
"""Called after every step: epoch and how many there are, pictures of this epoch and how many there are."""


def train_apart(settings: dict[str, Any], *, resume: bool, on_progress: OnEpochs) -> None:
    """`train(TrainConfig(**settings))`, which ends, wherever it is, when this process does.

    Args:
        settings: of `TrainConfig`.
        resume: as for `train`.
        on_progress: may raise KeyboardInterrupt, which ends the training; it can be resumed.

    Raises:
        As `train`.
        TrainingError: the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_train, args=(theirs, settings, resume), name="train")
    child.start()
    theirs.close()
    try:
        while True:
            said = ours.recv()
            if said is None:
                return
            if isinstance(said, BaseException):
                raise said
            on_progress(*said)
    except EOFError:
        child.join()
        raise TrainingError(
            f"the training process ended with exit code {child.exitcode}, perhaps for want of memory; run again, it "
            "goes on at the last epoch"
        ) from None
    finally:
        ours.close()  # where it still trains, this ends it
        child.join()


def _train(connection: Connection, settings: dict[str, Any], resume: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the parent decides
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    from retrieval.training import TrainConfig, TrainProgress, train

    def tell(state: TrainProgress) -> None:
        connection.send((state.epoch, state.epochs, state.done, state.total))

    try:
        train(TrainConfig(**settings), resume=resume, on_progress=tell)
        connection.send(None)
    except RetrievalError as error:
        connection.send(error)
    except ValueError as error:  # a setting is none
        connection.send(TrainingError(str(error)))


def _end_with_parent(connection: Connection) -> None:
    """Wait for the other end to close; checkpoints are whole at every moment."""
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(1)
