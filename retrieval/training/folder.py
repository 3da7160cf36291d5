"""Where is a training kept while it is unfinished? In a folder of one command, for one process, to go on from."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from retrieval.encoder.checkpoint import CONFIG_FILE
from retrieval.errors import RetrievalError, TrainingError
from retrieval.training.config import TrainConfig
from retrieval.training.dataset import SPLIT_FILE
from retrieval.training.history import Phase
from retrieval.training.state import has_state

_CONFIG_FILE = "config.json"
_LOCK_FILE = "lock"
_FIRST_PHASE: Phase = "validation"
# What may differ between a run and its resumption: none of them changes what is computed, but for rounding.
_FREE_TO_CHANGE = ("threads", "device", "limits", "out")


@contextlib.contextmanager
def run_folder(config: TrainConfig, resume: bool) -> Iterator[Path]:
    """The folder of an unfinished run, for this process alone.

    What a run without a checkpoint has left is no obstacle to a new one; a run that fails before its pictures were read
    and split leaves nothing.

    Raises:
        TrainingError: the model exists already, another run is unfinished or at work there, there is none to resume,
            its settings were others, or the folder cannot be written.
    """
    out, folder = Path(config.out), config.run_dir
    if resume and not (folder / _CONFIG_FILE).is_file():
        raise TrainingError(f"there is no unfinished training at {folder}; run without --resume")
    is_model = (out / CONFIG_FILE).is_file()
    if out.exists() and not (resume and is_model):  # an interrupted run has left its best model there
        what = "a model" if is_model else "other files"
        raise TrainingError(f"{out} holds {what} already; choose another --out, or remove it")
    with _locked(folder):
        if resume:
            _check_same(config, folder)
        else:
            _begin(config, folder)
        try:
            yield folder
        except RetrievalError:
            if not (folder / SPLIT_FILE).is_file():
                shutil.rmtree(folder, ignore_errors=True)
            raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out, as long as this one lives."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrainingError(f"another process trains at {folder}; wait for it, or choose another --out") from None
        yield
    finally:
        os.close(lock)


def _begin(config: TrainConfig, folder: Path) -> None:
    """Write the settings down, over what a run without a checkpoint may have left."""
    if has_state(folder / _FIRST_PHASE):
        raise TrainingError(f"{folder} holds an unfinished training; go on with --resume, or delete it")
    try:
        (folder / SPLIT_FILE).unlink(missing_ok=True)
        (folder / _CONFIG_FILE).write_text(json.dumps(config.to_dict(), indent=1) + "\n", "utf-8")
    except OSError as error:
        raise _unwritable(folder, error) from error


def _check_same(config: TrainConfig, folder: Path) -> None:
    """Refuse to go on with other settings: the result would be neither run's."""
    try:
        former = json.loads((folder / _CONFIG_FILE).read_bytes())
        now = json.loads(json.dumps(config.to_dict()))
        changed = [name for name in now if name not in _FREE_TO_CHANGE and former.get(name) != now[name]]
    except (OSError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"{folder / _CONFIG_FILE} cannot be read ({error}); delete {folder} and train afresh"
        ) from error
    if changed:
        name = changed[0]
        raise TrainingError(
            f"the unfinished training at {folder} has {name} {former.get(name)!r}, this command {now[name]!r}; repeat "
            "the former settings, or delete the folder"
        )


def _unwritable(folder: Path, error: OSError) -> TrainingError:
    return TrainingError(
        f"{folder} cannot be written ({error.strerror or error}); free some space or choose another --out"
    )
