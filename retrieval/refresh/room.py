"""Is there room on the disk for what a refresh is going to write? Said before minutes or hours are spent on it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from indexer.errors import DiskFull

_BYTES_A_VALUE = 2  # float16
_TIMES_WRITTEN = 2  # into the catalog, then into a segment
# A checkpoint twice while it is replaced, the model twice, its conversion: 170 MB for Lite0, 240 for Lite2.
_MODEL_BYTES = 250_000_000


def check_room(index_dir: Path, pictures: int, dims: Sequence[int]) -> None:
    """Raise where the disk of an index has no room for more models and their vectors.

    Args:
        index_dir: the index.
        pictures: in it.
        dims: D of each model that is to be kept and embedded by.

    Raises:
        DiskFull: how much is wanted, and how much there is.
    """
    wanted = pictures * sum(dims) * _BYTES_A_VALUE * _TIMES_WRITTEN + len(dims) * _MODEL_BYTES
    free = shutil.disk_usage(index_dir).free
    if free < wanted:
        raise DiskFull(
            f"index {index_dir}: a refresh writes some {wanted / 1e9:.1f} GB, {free / 1e9:.1f} GB are free on that "
            "disk; free some space (`retrieve prune` drops former models), and run again"
        )
