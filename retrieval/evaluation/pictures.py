"""Which pictures are ranked for which, under which labels, and where do their embeddings come from?"""

import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from indexer.lookup import Picture
from indexer.snapshot import Snapshot
from indexer.store import IndexStore
from indexer.vectors import Vectors
from retrieval.encoder.runtime import Encoder
from retrieval.errors import GalleryError, LabelsMissing
from retrieval.gallery.datasets import detect_layout
from retrieval.gallery.labelled import LabelledPictures, label_of, number_classes
from retrieval.gallery.sources import read_labelled
from retrieval.images import DecodeLimits
from retrieval.pipeline import Embedded, embed
from retrieval.records import ImageRecord, Skipped, box_of


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """How far the embedding of one side is.

    Attributes:
        side: which one, "queries" or "gallery".
        done, total: pictures.
        skipped: of the done, those that were set aside.
        seconds: since the first was read.
    """

    side: str
    done: int
    total: int
    skipped: int
    seconds: float


OnProgress = Callable[[EvaluationProgress], None]


@dataclass(frozen=True)
class EmbeddedPictures:
    """N labelled pictures and their embeddings.

    Attributes:
        pictures: what they show; those that could not be used are under its `skipped`.
        vectors: (N, D) float32 unit rows.
        content_hashes: (N,) xxh3_128 of their bytes, which tells the same picture under another name.
    """

    pictures: LabelledPictures
    vectors: Vectors
    content_hashes: list[str]

    @property
    def keys(self) -> list[str]:
        """(N,) what the pictures are called."""
        return [record.key for record in self.pictures.records]

    def subset(self, rows: ArrayLike) -> "EmbeddedPictures":
        """Some of them, in the order of `rows`, (M,) numbers of pictures."""
        chosen = np.asarray(rows, np.int64)
        hashes = [self.content_hashes[row] for row in chosen]
        return EmbeddedPictures(self.pictures.subset(chosen), self.vectors[chosen], hashes)

    def only(self, keys: Collection[str]) -> "EmbeddedPictures":
        """Those whose keys are among `keys`; itself where these are all."""
        rows = [row for row, key in enumerate(self.keys) if key in keys]
        return self if len(rows) == len(self.keys) else self.subset(rows)


def read_side(source: str | os.PathLike[str], side: Literal["query", "gallery"]) -> LabelledPictures:
    """The labelled pictures of a folder of class folders, a manifest, or a published data set's test part.

    Pictures without a label are left out and counted.

    Raises:
        LabelsMissing: no picture has a label.
        GalleryError, ManifestError: as `read_labelled` says.
    """
    split = side if detect_layout(source) == "deepfashion_in_shop" else "test"
    return read_labelled(source, allow_unlabelled=True, layout_split=split)


def index_pictures(
    store: IndexStore, snapshot: Snapshot | None = None, labels: Mapping[str, str] | None = None
) -> EmbeddedPictures:
    """The labelled pictures of an index with its own vectors, as one generation has them.

    A picture's label is its product_id; where no picture of a manifest or an upsert has one, the label. In a synced
    folder a picture without either shows what its folder is named after.

    Args:
        store: the index.
        snapshot: of it, perhaps of another model's space; None takes the store's.
        labels: key -> what it shows, which goes before what the index says.

    Raises:
        LabelsMissing: no picture has a label.
        GalleryError: the index is empty.
    """
    snapshot = snapshot or store.snapshot
    ids, vectors = _read_vectors(snapshot)
    by_id = store.pictures(snapshot, ids)
    pictures = [by_id[id_] for id_ in ids]
    if not pictures:
        raise GalleryError(f"index {store.index_dir} is empty; run `retrieve index GALLERY` first")
    said = _index_labels(store, pictures)
    shown = [(labels or {}).get(picture.key, label) for picture, label in zip(pictures, said, strict=True)]
    rows = [row for row, label in enumerate(shown) if label is not None]
    if not rows:
        raise LabelsMissing(
            f"index {store.index_dir}: none of its {len(pictures)} pictures has a product_id or a label, or lies in a "
            "class folder; index a manifest that names products, or name a labelled folder with --gallery"
        )
    labelled = ((record_of(pictures[row]), label) for row in rows if (label := shown[row]) is not None)
    named = number_classes(labelled, unlabelled=len(pictures) - len(rows))
    kept = vectors if len(rows) == len(pictures) else vectors[rows]
    return EmbeddedPictures(named, kept, [pictures[row].content_hash for row in rows])


def embed_pictures(
    pictures: LabelledPictures,
    encoder: Encoder,
    *,
    side: str,
    limits: DecodeLimits,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> EmbeddedPictures:
    """Embed labelled pictures; those that cannot be used are set aside.

    Raises:
        GalleryError: that is all of them.
    """
    vectors = np.empty((len(pictures), encoder.dim), np.float32)
    rows: list[int] = []
    hashes: list[str] = []
    skipped: list[Skipped] = []
    started_s = time.perf_counter()
    for row, outcome in enumerate(embed(pictures.records, encoder, limits=limits, threads=threads)):
        if isinstance(outcome, Embedded):
            vectors[len(rows)] = outcome.vector
            rows.append(row)
            hashes.append(outcome.content_hash)
        elif isinstance(outcome, Skipped):
            skipped.append(outcome)
        if on_progress is not None:
            seconds = time.perf_counter() - started_s
            on_progress(EvaluationProgress(side, row + 1, len(pictures), len(skipped), seconds))
    if not rows:
        raise GalleryError(
            f"none of the {len(pictures)} pictures of the {side} can be used, the first is {skipped[0].key} "
            f"({skipped[0].reason}); check the path"
        )
    used = replace(pictures.subset(rows), skipped=[*pictures.skipped, *skipped])
    return EmbeddedPictures(used, vectors[: len(rows)], hashes)


def _read_vectors(snapshot: Snapshot) -> tuple[list[int], Vectors]:
    vectors = np.empty((snapshot.images, snapshot.space.dim), np.float32)
    ids: list[int] = []
    for block_ids, block in snapshot.blocks():
        vectors[len(ids) : len(ids) + len(block)] = block
        ids += block_ids.tolist()
    return ids, vectors


def _index_labels(store: IndexStore, pictures: list[Picture]) -> list[str | None]:
    """What each picture of the index shows; product_ids and labels of one source are never mixed, as in a manifest."""
    prefixes = {source.id: source.key_prefix for source in store.sources() if source.kind == "folder"}
    with_products = {picture.source_id for picture in pictures if picture.attributes.product_id}
    labels: list[str | None] = []
    for picture in pictures:
        attributes = picture.attributes
        if picture.source_id in prefixes:
            labels.append(label_of(record_of(picture, prefixes[picture.source_id])))
        elif picture.source_id in with_products:
            labels.append(attributes.product_id)
        else:
            labels.append(attributes.label)
    return labels


def record_of(picture: Picture, key_prefix: str = "") -> ImageRecord:
    """A picture of an index as the pipeline takes it, its key without the prefix of its gallery."""
    return ImageRecord(
        picture.key.removeprefix(key_prefix),
        str(picture.path),
        size_bytes=-1,
        mtime_ns=-1,
        product_id=picture.attributes.product_id,
        label=picture.attributes.label,
        box=box_of(picture.box),
    )
