"""How an index is made equal to a gallery: embed what is new, commit every few seconds, remove last."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from indexer.changes import NO_PICTURE, Changes, Put, Skip, Touch
from indexer.errors import IndexerError
from indexer.store import IndexStore, Source
from retrieval.embedder import Embedder
from retrieval.encoder.runtime import Encoder
from retrieval.errors import GalleryError
from retrieval.images import DecodeLimits
from retrieval.pipeline import Embedded, Unchanged, embed
from retrieval.records import ImageRecord, Listing, Skipped, box_text
from retrieval.results import IndexReport
from retrieval.sync.plan import Plan, attributes_before, attributes_of, make_plan, refuse_suspicious_removals

COMMIT_EVERY_S = 2.0  # what a killed run has to do again at most; a commit costs some 20 ms
COMMIT_ROWS = 2048

log = logging.getLogger("retrieval")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sync has come.

    Attributes:
        done, total: pictures that are new or changed.
        skipped: of the done, those that were set aside.
        seconds: since the first was read.
    """

    done: int
    total: int
    skipped: int
    seconds: float


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """How a sync goes about it."""

    limits: DecodeLimits = DecodeLimits()
    remove: bool = True  # remove what has vanished from the gallery
    allow_removals: bool = False  # even if it is all of it
    threads: int | None = None  # None: every core this process may use


def sync(
    store: IndexStore,
    embedder: Embedder,
    listing: Listing,
    key_prefix: str,
    options: SyncOptions,
    on_progress: OnProgress | None = None,
) -> IndexReport:
    """Make the index hold what `listing` lists, under the job lock that the caller holds.

    Stopping it, by Ctrl-C or a failure, commits what is done; the next sync goes on from there.

    Args:
        embedder: its encoder is opened only if there is something to embed.

    Raises:
        GalleryError: the gallery is empty, and so is the index's part of it.
        RemovalsRefused: too much has vanished; nothing was changed.
        DiskFull, IndexReadOnly, IndexBusy, ModelError
    """
    started_s = time.perf_counter()
    source = store.source(listing.source, listing.kind, key_prefix)
    if source.key_prefix != key_prefix:
        raise GalleryError(
            f"the keys of {listing.source} begin with {source.key_prefix!r} in this index, not with {key_prefix!r}; "
            "leave --key-prefix out, or use another index"
        )
    plan = make_plan(store, source, listing, options.limits)
    if options.remove and not options.allow_removals:
        refuse_suspicious_removals(plan, listing)
    run = _Run(store, source, listing, plan, on_progress or (lambda progress: None))
    if plan.to_embed:
        run.embed(embedder.encoder, options)
    run.finish(plan.vanished if options.remove else {})
    run.report.seconds = time.perf_counter() - started_s
    return run.report


class _Run:
    """Embeds and commits what the plan says, and counts."""

    def __init__(
        self, store: IndexStore, source: Source, listing: Listing, plan: Plan, on_progress: OnProgress
    ) -> None:
        self._store = store
        self._source = source
        self._listing = listing
        self._plan = plan
        self._on_progress = on_progress
        self._changes = Changes(
            skips=plan.skips, unskips=plan.unskips, attributes=plan.attributes, expected=plan.described
        )
        self.report = IndexReport(
            unchanged=plan.unchanged, skipped=list(plan.set_aside), stale=list(plan.stale), generation=-1
        )

    def embed(self, encoder: Encoder, options: SyncOptions) -> None:
        records = self._plan.to_embed
        started_s = committed_s = time.perf_counter()
        embedded = 0
        results = embed(records, encoder, limits=options.limits, threads=options.threads, known_hash=self._known_hash)
        try:
            for done, result in enumerate(results, 1):
                embedded += isinstance(result, Embedded)
                self._take(result)
                now_s = time.perf_counter()
                if now_s - committed_s >= COMMIT_EVERY_S or len(self._changes.puts) >= COMMIT_ROWS:
                    self._commit()
                    committed_s = now_s
                self._on_progress(
                    Progress(
                        done, len(records), len(self.report.skipped) - len(self._plan.set_aside), now_s - started_s
                    )
                )
        except BaseException:
            results.close()
            with suppress(IndexerError):  # where committing is what failed, that is already on its way to the caller
                self._commit()
            raise
        self.report.images_per_second = embedded / (time.perf_counter() - started_s)

    def finish(self, vanished: dict[str, int]) -> None:
        """Remove what has vanished: last, so that a run that is stopped never leaves less than there was."""
        self._changes.removes = vanished
        self._commit()
        self.report.generation = self._store.refresh()

    def _take(self, result: Embedded | Unchanged | Skipped) -> None:
        if isinstance(result, Embedded):
            self._changes.puts.append(self._put(result))
            self._changes.unskips.append((self._source.id, result.record.key))
            if result.note is not None:
                self.report.notes.append((result.record.key, result.note))
        elif isinstance(result, Unchanged):
            self._take_unchanged(result)
        else:
            self._take_skipped(result)

    def _put(self, result: Embedded) -> Put:
        record = result.record
        before = self._plan.before.get(record.key)
        return Put(
            record.key,
            result.vector,
            result.content_hash,
            result.size_bytes,
            result.mtime_ns,
            self._listing.scanned_ns,
            source_id=self._source.id,
            path=record.path if self._listing.kind == "manifest" else None,
            box=box_text(record.box),
            attributes=attributes_of(record),
            expected_id=NO_PICTURE if before is None else before.id,
        )

    def _take_unchanged(self, result: Unchanged) -> None:
        record = result.record
        before = self._plan.before[record.key]
        touch = Touch(before.id, result.size_bytes, result.mtime_ns, self._listing.scanned_ns)
        self._changes.touches.append(touch)
        self._changes.unskips.append((self._source.id, record.key))
        if self._listing.kind == "manifest" and attributes_of(record) != attributes_before(before):
            self._changes.attributes[record.key] = attributes_of(record)
            self._changes.expected[record.key] = before.id
        else:
            self.report.unchanged += 1

    def _take_skipped(self, skip: Skipped) -> None:
        self.report.skipped.append(skip)
        if skip.key in self._plan.before:
            self.report.stale.append(skip.key)
        if skip.cause == "decode":
            self._changes.skips.append(Skip(self._source.id, skip.key, skip.reason, skip.size_bytes, skip.mtime_ns))

    def _known_hash(self, record: ImageRecord) -> str | None:
        before = self._plan.before.get(record.key)
        is_same_place = before is not None and before.path in (None, record.path)
        return before.content_hash if before and is_same_place and before.box == box_text(record.box) else None

    def _commit(self) -> None:
        if not self._changes:
            return
        changes, self._changes = self._changes, Changes()  # an interrupt may come when they are committed: never twice
        committed = self._store.commit(changes, f"index {self._listing.source}")
        self.report.added += len(committed.added)
        self.report.updated += len(committed.updated)
        self.report.removed += len(committed.removed)
        if committed.outdated:
            log.info("%d pictures were changed by somebody else meanwhile; theirs stand", len(committed.outdated))
