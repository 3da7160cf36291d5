"""Where can an index lie? Not on a network, not in another's folder, and not twice in one."""

import os
from pathlib import Path

from indexer.catalog import CATALOG_FILE
from indexer.errors import IndexerError, IndexExists, IndexNotFound
from indexer.files import network_file_system, translated_os_errors
from indexer.locks import JOB_LOCK, SEAL_LOCK, SERVER_LOCK


def check_place(index_dir: str | os.PathLike[str]) -> None:
    """Raise where no index can be made, before anything costly is done for it.

    Raises:
        IndexExists: there is an index already, or the folder holds other things.
        IndexNotFound: it would lie in a file.
        IndexReadOnly: this user may not look there.
    """
    folder = Path(index_dir).absolute()
    with translated_os_errors(folder):
        refuse_second(folder)
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if not nearest.is_dir():
            raise IndexNotFound(
                f"no index can be made at {folder}: {nearest} is a file; choose another place with --index"
            )
        strangers = [name for name in os.listdir(folder) if not _may_be_there_before(name)] if nearest == folder else []
    if strangers:
        raise IndexExists(
            f"{folder} holds other files ({strangers[0]}); an index needs a folder of its own, choose another one"
        )


def refuse_network(folder: Path) -> None:
    """Raise where file locks and memory maps cannot be trusted.

    Raises:
        IndexerError
    """
    if kind := network_file_system(folder):
        raise IndexerError(
            f"{folder} lies on a network file system ({kind}), where file locks and memory maps cannot be trusted; "
            "keep the index on a local disk and copy it with `retrieve backup`"
        )


def refuse_second(folder: Path) -> None:
    """Raise where there is an index already.

    Raises:
        IndexExists
    """
    if (folder / CATALOG_FILE).exists():
        raise IndexExists(f"there is an index at {folder} already; open it, or choose another folder")


def _may_be_there_before(name: str) -> bool:
    return name in (JOB_LOCK, SEAL_LOCK, SERVER_LOCK) or name.startswith(f".{CATALOG_FILE}.tmp")
