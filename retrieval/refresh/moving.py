"""An index that is in use moves to another model."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing

from indexer.changes import Changes
from indexer.lookup import Picture
from indexer.spaces import Space
from indexer.store import IndexStore
from indexer.vectors import Vectors
from retrieval.embedder import Embedder
from retrieval.errors import PictureError, RefreshError, and_more
from retrieval.index_model import IndexModel, ModelOptions, open_index_model
from retrieval.records import Skipped, box_of
from retrieval.refresh.features import apply_head, features_space
from retrieval.refresh.models import open_space
from retrieval.refresh.reembed import OnProgress, Reembedded, fill_space
from retrieval.results import ModelInfo, MoveReport

MOST_MISSING = 0.01  # of the pictures of an index, that a move leaves out without being told to

IndexPath = str | os.PathLike[str]


def move_to_model(
    index_dir: IndexPath,
    model: str | os.PathLike[str],
    *,
    allow_missing: bool = False,
    keep_features: bool = False,
    options: ModelOptions = ModelOptions(),
    on_progress: OnProgress | None = None,
) -> MoveReport:
    """Embed every picture of an index by another model, and make that the index's in one commit.

    Others search and change the index meanwhile; they follow at their next `refresh`. A run that is stopped, however,
    is gone on with by the next. A model directory is copied into the index.

    Args:
        index_dir: the index.
        model: a name or a model directory.
        allow_missing: move even if more than a hundredth of the pictures cannot be read any more. Those are not found
            from then on; their vectors stay with the former model, and a sync looks at them again.
        keep_features: keep what the model's head is given as well, for moves to models that differ in their head alone.
        options: how the model is opened.
        on_progress: called after each picture.

    Raises:
        RefreshError: pictures cannot be read any more; the index stays with its model.
        UnknownModel, WeightsUnavailable, ModelDamaged, DeviceUnavailable
        IndexBusy: another job runs on this index.
        IndexNotFound, IndexReadOnly, DiskFull
    """
    with closing(IndexStore(index_dir)) as store, store.job("refresh"):
        leave_out = share_left_out(allow_missing)
        space = open_space(store, model)
        return move(store, space, "refresh", options, on_progress, leave_out=leave_out, keep_features=keep_features)


def move(
    store: IndexStore,
    space: Space,
    note: str,
    options: ModelOptions,
    on_progress: OnProgress | None = None,
    *,
    leave_out: float = 0.0,
    drop_unreadable: bool = False,
    keep_features: bool = False,
) -> MoveReport:
    """Fill a space and make it the live one, under the job lock that the caller holds.

    Args:
        store: the index.
        space: of it.
        note: of the new generation.
        options: how its model is opened.
        on_progress: called after each picture.
        leave_out: the share of the pictures that may have become unreadable; they get no vector, and none is missed.
        drop_unreadable: take those out of the index altogether.
        keep_features: as for `move_to_model`.

    Raises:
        As `move_to_model`.
    """
    started_s, former, embedded, gone = time.perf_counter(), store.space, 0, dict[int, Skipped]()
    if space != former:
        store.forget_left_out(space)
    model = open_index_model(store.index_dir, space, options)
    with closing(model.embedder):
        generation = store.snapshot.generation if space == former else None
        while generation is None:
            done = _filled(store, model, options, on_progress, keep_features)
            embedded += done.embedded
            gone |= done.skipped
            if drop_unreadable and gone:
                store.commit(Changes(removes={skip.key: id_ for id_, skip in gone.items()}), note)
            elif (why := too_many_missing(list(gone.values()), store.snapshot.images, leave_out)) is not None:
                raise RefreshError(why)
            store.leave_out(space, done.skipped)
            store.compact_if_due(space)
            generation = store.make_live(space, note, lambda pictures: _embed(model.embedder, pictures))
    seconds = time.perf_counter() - started_s
    keys = [skip.key for skip in gone.values()]
    missing, dropped = ([], keys) if drop_unreadable else (keys, [])
    return MoveReport(named(former), named(space), embedded, missing, dropped, seconds, generation)


def fill(
    store: IndexStore,
    space: Space,
    options: ModelOptions,
    on_progress: OnProgress | None = None,
    *,
    keep_features: bool = False,
) -> list[Skipped]:
    """Embed what has no vector in a space that is not live; returns what cannot be read any more."""
    model = open_index_model(store.index_dir, space, options)
    with closing(model.embedder):
        return list(_filled(store, model, options, on_progress, keep_features).skipped.values())


def too_many_missing(skipped: Sequence[Skipped], pictures: int, share: float) -> str | None:
    """Why an index cannot move, if more of its pictures have become unreadable than may be left out.

    Args:
        skipped: those that have.
        pictures: of the index.
        share: of these, that may be left out.
    """
    if len(skipped) <= share * pictures:
        return None
    limit = f", and at most {share:.0%} may be left out" if share else ""
    return (
        f"picture {skipped[0].key}{and_more(len(skipped))} of {pictures} cannot be embedded by the other model "
        f"({skipped[0].reason}){limit}; the index stays with its model: put it back, or sync or `retrieve remove` it, "
        "and run again"
    )


def named(space: Space) -> ModelInfo:
    """A space's model in a report."""
    return ModelInfo(space.model_name, space.model_fingerprint, space.dim)


def _filled(
    store: IndexStore, model: IndexModel, options: ModelOptions, on_progress: OnProgress | None, keep_features: bool
) -> Reembedded:
    """Give every picture its vector by a model: from features that are kept, else by looking at it."""
    if not store.count_without_vector(model.space):
        return Reembedded()
    features = features_space(store, model.space, keep=keep_features)
    if features is None:
        return _embedded(store, model, options, on_progress)
    done = Reembedded()
    if store.count_without_vector(features):
        of_features = open_index_model(store.index_dir, features, options)
        with closing(of_features.embedder):
            done = _embedded(store, of_features, options, on_progress)
    done.embedded = apply_head(store, features, model.space)
    return done


def _embedded(
    store: IndexStore, model: IndexModel, options: ModelOptions, on_progress: OnProgress | None
) -> Reembedded:
    """Look at every picture that has no vector by a model."""
    encoder = model.embedder.encoder
    return fill_space(
        store, model.space, encoder, limits=options.limits, threads=options.threads, on_progress=on_progress
    )


def share_left_out(allow_missing: bool) -> float:
    """The share of an index's pictures that a move may leave out."""
    return 1.0 if allow_missing else MOST_MISSING


def _embed(embedder: Embedder, pictures: Sequence[Picture]) -> Mapping[int, Vectors]:
    """Vectors of pictures that have come while all others were being embedded."""
    try:
        return {picture.id: embedder.embed([picture.path], box_of(picture.box))[0] for picture in pictures}
    except PictureError as error:
        raise RefreshError(
            f"a picture that was added just now cannot be read any more ({error}); the index stays with its model: "
            "run again"
        ) from error
