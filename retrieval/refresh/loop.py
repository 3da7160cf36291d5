"""`refresh`: an index learns from its own labels, judges what it has learned, and moves to it if it is better."""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indexer.spaces import Space
from indexer.store import IndexStore
from retrieval.calibration import fit_match, save_matcher
from retrieval.errors import TrainingError
from retrieval.evaluation.pictures import index_pictures
from retrieval.evaluation.summary import Evaluated, compared
from retrieval.index_model import ModelOptions, model_address
from retrieval.refresh.gate import DEFAULT_GATE, parse_gate
from retrieval.refresh.holdout import hold_out
from retrieval.refresh.labels import check_keys, read_labels
from retrieval.refresh.models import set_stand_in, stand_in
from retrieval.refresh.moving import fill, move, named, open_space, share_left_out, too_many_missing
from retrieval.refresh.room import check_room
from retrieval.refresh.run import Run, begin
from retrieval.results import EvaluationReport, RefreshReport

OnProgress = Callable[[str, int, int], None]
"""Called often with what is being done, and how many pictures of it are done of how many."""


@dataclass(frozen=True)
class RefreshConfig:
    """The settings of a refresh.

    Attributes:
        index_dir: the index.
        labels: a file of keys and products, which goes before what the index says; see `read_labels`.
        gate: what the candidate must reach on the held-out pictures; see `parse_gate`.
        allow_missing: move even if more than a hundredth of the pictures cannot be read any more.
        refit: move to the candidate's settings trained on everything, once the candidate has passed.
        dry_run: judge, and move to nothing.
        training: settings of `TrainConfig`, but source, out, from_model and validation.
        options: how models are opened for embedding.
    """

    index_dir: Path
    labels: Path | None = None
    gate: str = DEFAULT_GATE
    allow_missing: bool = False
    refit: bool = True
    dry_run: bool = False
    training: Mapping[str, Any] = field(default_factory=dict)
    options: ModelOptions = ModelOptions()


def refresh(config: RefreshConfig, on_progress: OnProgress | None = None) -> RefreshReport:
    """Train on what an index is labelled with, judge that on pictures it did not see, and make it the index's model.

    Others search and change the index meanwhile. A run that is stopped, however, is gone on with by the next.

    A model that was refitted has seen the pictures that its successor is judged by. So each refreshed model has a
    stand-in, the candidate that passed the gate, which never saw them: the next candidate is trained from it and judged
    against it.

    Args:
        config: the settings.
        on_progress: may raise KeyboardInterrupt to stop.

    Raises:
        LabelsMissing: nothing says what the pictures show.
        GalleryError: the labels cannot be read, or are of pictures that are not there.
        TrainingError: there are too few of them, or training failed; the index stays with its model.
        RefreshError: the gate is not understood, or pictures cannot be read any more.
        IndexBusy: another job runs on this index.
        IndexNotFound, IndexReadOnly, DiskFull
    """
    started_s, gate, tell = time.perf_counter(), parse_gate(config.gate), on_progress or (lambda *_: None)
    training = {"schedule": "cosine", **config.training, "refit": False}
    with closing(IndexStore(config.index_dir)) as store, store.job("refresh"):
        check_room(store.index_dir, store.snapshot.images, store.space.dim, 2 if config.refit else 1)
        run, former = _begun(store, config, training), stand_in(store, store.space)

        def trained(part: str, start: Space) -> Path:
            address = model_address(store.index_dir, start)
            return run.train(part, address, training, lambda epoch, epochs, done, total: tell(
                f"{part}, epoch {epoch}/{epochs}", done, total
            ))  # fmt: skip

        candidate = trained("candidate", former)
        space = open_space(store, candidate)
        most_missing, unmet = share_left_out(config.allow_missing), list[str]()
        for one in {former.id: former, space.id: space}.values():
            if one.id != store.space.id:
                missing = fill(
                    store, one, config.options, lambda done, total: tell("embedding for the judgement", done, total)
                )
                if (why := too_many_missing(missing, store.snapshot.images, most_missing)) is not None:
                    unmet = [why]
        judged = _judged(store, run, former, space)
        assert judged.comparison is not None
        unmet += gate.unmet(_values(judged.comparison.figures), _values(judged.figures))
        moved = None
        if not unmet and not config.dry_run:
            live = open_space(store, trained("refit", store.space)) if config.refit else space
            _hand_over(store, run, space, live)
            moved = move(
                store,
                live,
                "refresh",
                config.options,
                lambda done, total: tell("embedding", done, total),
                leave_out=most_missing,
            )
        run.remove()
        return RefreshReport(named(space), judged, gate.text, unmet, moved, time.perf_counter() - started_s)


def _begun(store: IndexStore, config: RefreshConfig, training: Mapping[str, Any]) -> Run:
    """The run that is to be gone on with, or a new one with the labels of now."""
    labels = {} if config.labels is None else read_labels(config.labels)
    check_keys(labels, store.owners(labels), store.index_dir)
    pictures = index_pictures(store, labels=labels)
    rows = hold_out(pictures.pictures, pictures.content_hashes)
    if not len(rows):
        raise TrainingError(
            f"index {store.index_dir}: of {len(pictures.pictures)} labelled pictures none can be held out to judge a "
            "candidate by; that needs more products, or three pictures of some"
        )
    name = f"refreshed-{datetime.now(UTC):%Y-%m-%d}"
    return begin(store.index_dir, store.space, name, training, labels, pictures, rows)


def _judged(store: IndexStore, run: Run, former: Space, candidate: Space) -> EvaluationReport:
    """Each held-out picture is searched for among all others, by both models."""
    labels = run.labels()
    sides = [index_pictures(store, store.snapshot_of(space), labels) for space in (former, candidate)]
    common = set(sides[0].keys) & set(sides[1].keys)
    galleries = [side.only(common) for side in sides]
    first, second = (
        Evaluated(named(space), gallery.only(run.held_out), gallery)
        for space, gallery in zip((former, candidate), galleries, strict=True)
    )
    return compared(first, second)


def _hand_over(store: IndexStore, run: Run, candidate: Space, live: Space) -> None:
    """Give the model that is to be live what was learned of the candidate: who judged it, and what scores mean."""
    held_out = index_pictures(store, store.snapshot_of(candidate), run.labels()).only(run.held_out)
    matcher = fit_match(held_out.vectors, held_out.pictures.labels, seed=0)
    if matcher is not None:
        save_matcher(matcher, Path(model_address(store.index_dir, live)), live.model_fingerprint)
    set_stand_in(store, live, candidate)


def _values(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: figure.value for name, figure in figures.items()}
