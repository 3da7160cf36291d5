"""Mending a damaged index: keep every intact vector, embed the others again from their pictures."""

import os
from dataclasses import dataclass
from pathlib import Path

from indexer.changes import Changes
from indexer.integrity import salvage
from indexer.locks import job_lock
from indexer.store import IndexStore
from retrieval.embedder import Embedder
from retrieval.errors import PictureError
from retrieval.index_model import open_index_model
from retrieval.records import box_of


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done.

    Attributes:
        embedded: keys whose vector was lost and has been made again from the picture.
        dropped: keys whose picture cannot be read either; they are no longer in the index.
    """

    embedded: list[str]
    dropped: list[str]


def repair(index_dir: str | os.PathLike[str]) -> Repair:
    """Make a damaged index whole again.

    Raises:
        IndexDamaged: the catalog itself is damaged; only a backup helps.
        IndexBusy: another job runs on this index.
        IndexReadOnly, DiskFull, ModelError
    """
    folder = Path(index_dir).absolute()
    with job_lock(folder, "verify --repair"):
        salvage(folder)
        store = IndexStore(folder)
        embedder = open_index_model(folder, store.space).embedder
        try:
            return _embed_again(store, embedder)
        finally:
            embedder.close()
            store.close()


def _embed_again(store: IndexStore, embedder: Embedder) -> Repair:
    done = Repair([], [])
    changes = Changes()
    for picture in store.pictures_without_vector():
        try:
            changes.renewals[picture.id] = embedder.embed([picture.path], box_of(picture.box))[0]
            done.embedded.append(picture.key)
        except PictureError:
            changes.removes[picture.key] = picture.id
            done.dropped.append(picture.key)
    if changes:
        store.commit(changes, "verify --repair")
    return done
