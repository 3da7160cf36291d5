"""The models that an index has had: the way back to the last one, the list of them, and letting go of them."""

from contextlib import closing
from datetime import UTC, datetime

from indexer.store import IndexStore
from retrieval.errors import RefreshError
from retrieval.index_model import ModelOptions
from retrieval.refresh.features import features_space
from retrieval.refresh.models import drop_model, is_there, stand_in
from retrieval.refresh.moving import IndexPath, move, named
from retrieval.refresh.reembed import OnProgress
from retrieval.results import ModelInfo, MoveReport, Reign


def rollback(
    index_dir: IndexPath,
    *,
    drop_newer: bool = False,
    options: ModelOptions = ModelOptions(),
    on_progress: OnProgress | None = None,
) -> MoveReport:
    """Go back to the model that an index had before its present one; once more, and it is the present one again.

    Its vectors are still there, so that this takes a moment. Pictures that have come since are embedded by it first.

    Args:
        index_dir: the index.
        drop_newer: take pictures out of the index that have come since and cannot be read any more.
        options, on_progress: as for `move_to_model`.

    Raises:
        RefreshError: the index has no former model, or pictures that have come since cannot be read any more.
        UnknownModel, ModelDamaged, DeviceUnavailable: pictures have come since and the model cannot be opened.
        IndexBusy, IndexNotFound, IndexReadOnly, DiskFull
    """
    with closing(IndexStore(index_dir)) as store, store.job("rollback"):
        formers = (one.space for one in reversed(store.switches()) if one.space.id != store.space.id)
        former = next((space for space in formers if is_there(store.index_dir, space)), None)
        if former is None:
            raise RefreshError(
                f"index {store.index_dir} has had one model only, or its former ones were pruned; there is nothing to "
                "go back to"
            )
        return move(store, former, "rollback", options, on_progress, drop_unreadable=drop_newer)


def history(index_dir: IndexPath) -> list[Reign]:
    """Which models an index was searched by, and since when; the newest last.

    Raises:
        IndexNotFound, IndexDamaged
    """
    with closing(IndexStore(index_dir)) as store:
        return [
            Reign(
                one.generation,
                named(one.space),
                datetime.fromtimestamp(one.created_ns / 1e9, UTC),
                one.note,
                one.vectors,
                one.metrics,
            )
            for one in store.switches()
        ]


def prune(index_dir: IndexPath, keep: int) -> list[ModelInfo]:
    """Drop the vectors and the kept models of all but the last few models of an index.

    Args:
        index_dir: the index.
        keep: models, the live one counted; at least 1. With 1 there is no way back.

    Returns:
        Those that were dropped.

    Raises:
        ValueError: `keep` is below 1.
        IndexBusy, IndexNotFound, IndexReadOnly
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}; the live model always stays, so it must be at least 1")
    with closing(IndexStore(index_dir)) as store, store.job("prune"):
        switches = store.switches()
        newest_first = list({one.space.id: one.space for one in reversed(switches)}.values())
        needed = [one for space in newest_first[:keep] for one in (space, stand_in(store, space))]
        features = [features_space(store, space) for space in needed]
        kept = {space.id for space in (*needed, *features) if space is not None}
        dropped = [space for space in store.spaces() if space.id not in kept]
        held = {space.id: store.snapshot_of(space).images for space in dropped}
        for space in dropped:
            store.empty_space(space)
            drop_model(store.index_dir, space)
        return [named(space) for space in dropped if held[space.id]]
