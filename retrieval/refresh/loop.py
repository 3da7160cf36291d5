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
from retrieval.evaluation.pictures import EmbeddedPictures, index_pictures
from retrieval.evaluation.summary import Evaluated, compared
from retrieval.feedback import MOST_PER_SOURCE, weigh
from retrieval.feedback.weighing import Query
from retrieval.index_model import ModelOptions, model_address
from retrieval.refresh.features import features_dim
from retrieval.refresh.gate import DEFAULT_GATE, parse_gate
from retrieval.refresh.holdout import hold_out
from retrieval.refresh.labels import check_keys, read_labels
from retrieval.refresh.manifests import query_of
from retrieval.refresh.models import open_space, set_stand_in, stand_in
from retrieval.refresh.moving import fill, move, named, share_left_out, too_many_missing
from retrieval.refresh.room import check_room
from retrieval.refresh.run import Run, begin, wishes_of
from retrieval.results import EvaluationReport, Figure, MoveReport, RefreshReport

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
        most_per_source: judgements of one source of feedback that count, the newest.
        keep_features: keep what the models' heads are given, so that a refresh that trains the head alone
            (`freeze_backbone`) reads no picture again; 2 bytes a value.
        refit: move to the candidate's settings trained on everything, once the candidate has passed.
        dry_run: judge, and move to nothing.
        training: settings of `TrainConfig`, but source, out, from_model and validation.
        options: how models are opened for embedding.
    """

    index_dir: Path
    labels: Path | None = None
    gate: str = DEFAULT_GATE
    allow_missing: bool = False
    most_per_source: int = MOST_PER_SOURCE
    keep_features: bool = False
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
    started_s, gate = time.perf_counter(), parse_gate(config.gate)
    with closing(IndexStore(config.index_dir)) as store, store.job("refresh"):
        check_room(store.index_dir, store.snapshot.images, _dims(store, config))
        work = _Refresh(store, config, on_progress or (lambda *_: None))
        former = stand_in(store, store.space)
        candidate = work.train("candidate", former)
        unmet = work.fill(former, candidate)
        judged, held_out = work.judge(former, candidate)
        assert judged.comparison is not None
        before, after = _values(judged.figures), _values(judged.comparison.figures)
        unmet += gate.unmet(after, before)
        work.note(former, before, judged.queries)
        work.note(candidate, after, judged.queries)
        moved = None
        if not unmet and not config.dry_run:
            live = work.train("refit", store.space) if config.refit else candidate
            work.hand_over(candidate, held_out, live)
            work.note(live, after, judged.queries)
            moved = work.move(live)
        work.run.remove()
        seconds = time.perf_counter() - started_s
        return RefreshReport(named(candidate), judged, gate.text, unmet, moved, work.run.feedback, seconds)


class _Refresh:
    """The steps of a refresh, each of which is done once, however often it is stopped between."""

    def __init__(self, store: IndexStore, config: RefreshConfig, tell: OnProgress) -> None:
        self._store, self._config, self._tell = store, config, tell
        self._training = {"schedule": "cosine", **config.training, "refit": False}
        self._most_missing = share_left_out(config.allow_missing)
        self.run = self._begin()

    def _begin(self) -> Run:
        """Go on with the run that was stopped, or begin one with the labels of now."""
        store, config = self._store, self._config
        labels = {} if config.labels is None else read_labels(config.labels)
        check_keys(labels, store.owners(labels), store.index_dir)
        pictures = index_pictures(store, labels=labels)
        rows = hold_out(pictures.pictures, pictures.content_hashes)
        if not len(rows):
            raise TrainingError(
                f"index {store.index_dir}: of {len(pictures.pictures)} labelled pictures none can be held out to judge "
                "a candidate by; that needs more products, or three pictures of some"
            )
        judgements, stale = store.feedback()
        lessons = weigh(judgements, *_said(pictures), most_per_source=config.most_per_source)
        wishes = wishes_of(store.space, self._training, labels, config.most_per_source)
        name = f"refreshed-{datetime.now(UTC):%Y-%m-%d}"
        return begin(store.index_dir, name, wishes, pictures, rows, lessons, lessons.use(stale))

    def train(self, part: str, start: Space) -> Space:
        """The space of a model that was trained from another's."""

        def tell(epoch: int, epochs: int, done: int, total: int) -> None:
            self._tell(f"{part}, epoch {epoch}/{epochs}", done, total)

        address = model_address(self._store.index_dir, start)
        return open_space(self._store, self.run.train(part, address, self._training, tell))

    def fill(self, *sides: Space) -> list[str]:
        """Embed by the models that are to be compared; returns why the index could not move, if it could not."""
        why: list[str] = []
        for space in dict.fromkeys(sides):
            if space.id != self._store.space.id:
                told = self._embedding("embedding for the judgement")
                options, keep = self._config.options, self._config.keep_features
                missing = fill(self._store, space, options, told, keep_features=keep)
                too_many = too_many_missing(missing, self._store.snapshot.images, self._most_missing)
                why = why or ([too_many] if too_many else [])
        return why

    def judge(self, former: Space, candidate: Space) -> tuple[EvaluationReport, EmbeddedPictures]:
        """Search for each held-out picture among all others, by both models; with these as the candidate sees them."""
        store, labels = self._store, self.run.labels()
        held = [index_pictures(store, store.snapshot_of(space), labels) for space in (former, candidate)]
        common = set(held[0].keys) & set(held[1].keys)
        first, second = (
            Evaluated(named(space), gallery.only(self.run.held_out), gallery)
            for space, gallery in zip((former, candidate), (side.only(common) for side in held), strict=True)
        )
        return compared(first, second), second.queries

    def note(self, space: Space, figures: Mapping[str, float], queries: int) -> None:
        """Write down for `history` what a model came to."""
        self._store.note_metrics(space, {**figures, "queries": queries})

    def hand_over(self, candidate: Space, held_out: EmbeddedPictures, live: Space) -> None:
        """Give the model that is to be live what was learned of the candidate: who was judged, and what scores mean."""
        matcher = fit_match(held_out.vectors, held_out.pictures.labels, seed=0)
        if matcher is not None:
            save_matcher(matcher, Path(model_address(self._store.index_dir, live)), live.model_fingerprint)
        set_stand_in(self._store, live, candidate)

    def move(self, live: Space) -> MoveReport:
        """Make a space the live one."""
        told, options, keep = self._embedding("embedding"), self._config.options, self._config.keep_features
        share = self._most_missing
        return move(self._store, live, "refresh", options, told, leave_out=share, keep_features=keep)

    def _embedding(self, title: str) -> Callable[[int, int], None]:
        return lambda done, total: self._tell(title, done, total)


def _dims(store: IndexStore, config: RefreshConfig) -> list[int]:
    """D of each set of vectors that a refresh may write."""
    models = [store.space.dim] * (2 if config.refit else 1)
    return [*models, features_dim(model_address(store.index_dir, store.space))] if config.keep_features else models


def _said(pictures: EmbeddedPictures) -> tuple[dict[str, str], dict[Query, str]]:
    """What pictures of an index show: by their keys, and by what they would be if they were searched with."""
    shown = [pictures.pictures.label(row) for row in range(len(pictures.keys))]
    queries = [query_of(pictures, row) for row in range(len(pictures.keys))]
    return dict(zip(pictures.keys, shown, strict=True)), dict(zip(queries, shown, strict=True))


def _values(figures: Mapping[str, Figure]) -> dict[str, float]:
    return {name: figure.value for name, figure in figures.items()}
