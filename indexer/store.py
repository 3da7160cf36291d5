"""The index directory as one object: append, commit, search, locks, recovery, verify, backup."""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer import compaction, feedback, forgetting, kept, lookup, sealing, spaces
from indexer.catalog import CATALOG_FILE, Catalog
from indexer.changes import Changes, Committed, apply
from indexer.columns import Columns
from indexer.compaction import Compaction
from indexer.errors import DiskFull, IndexBusy, IndexDamaged, IndexerError, IndexReadOnly, RecipeError
from indexer.feedback import Judgement
from indexer.fields import FieldSummary, summarise_fields
from indexer.files import make_folder, total_bytes, translated_os_errors
from indexer.filters import Where, read_filter
from indexer.forgetting import Forgotten
from indexer.gpu import Gpus
from indexer.locks import job_lock, try_seal_lock
from indexer.place import check_place, refuse_network, refuse_second
from indexer.recipe import EXACT
from indexer.segments import SEGMENTS_FOLDER
from indexer.settings import SearchSettings, read_settings, write_settings
from indexer.snapshot import Opening, Snapshot, load_snapshot, next_snapshot
from indexer.spaces import Space, Switch
from indexer.vectors import Mask, Neighbors, Vectors, check_unit_rows

_log = logging.getLogger(__name__)
MOST_REST = 64  # pictures that a switch embeds while writers wait: a second or two

EmbedRest = Callable[[list[lookup.Picture]], Mapping[int, Vectors]]
"""Pictures to their vectors, (D,) unit float32 each, by id."""


@dataclass(frozen=True, slots=True)
class Source:
    """A gallery that has been synced into the index."""

    id: int
    path: str
    kind: str
    key_prefix: str


class IndexStore:
    """An index directory, open for search and, where the folder allows it, for change.

    Every commit makes a new generation. A store searches one generation, the one of its opening, of its last
    `refresh` or of its own last commit, whatever others commit meanwhile. Safe to use from several threads.
    """

    def __init__(self, index_dir: str | os.PathLike[str], *, gpus: Gpus | None = None) -> None:
        """Open the index in `index_dir`.

        Args:
            gpus: to search large segments on; the store closes them with itself.

        Raises:
            IndexNotFound, IndexTooNew, IndexDamaged, IndexReadOnly
        """
        self.index_dir = Path(index_dir).absolute()
        self._gpus = gpus
        self._catalog = Catalog(self.index_dir)
        self._columns = Columns(self._catalog)
        self._refresh_lock = threading.Lock()
        self._is_disk_checked = False
        try:
            self._version, self._snapshot = self._loaded(partial(load_snapshot, index_dir=self.index_dir, gpus=gpus))
        except BaseException:
            self._catalog.close()
            raise

    @classmethod
    def create(
        cls, index_dir: str | os.PathLike[str], *, model_name: str, model_fingerprint: str, dim: int
    ) -> "IndexStore":
        """Make an empty index for the vectors of one model, and open it.

        Raises:
            IndexExists: there is an index in that folder, or the folder holds other things.
            IndexBusy: another process is making an index there.
            IndexReadOnly, DiskFull
            IndexerError: the folder lies on a network file system.
        """
        folder = Path(index_dir).absolute()
        check_place(folder)
        with translated_os_errors(folder):
            make_folder(folder)
        refuse_network(folder)
        with try_seal_lock(folder) as is_mine:
            if not is_mine:
                raise IndexBusy(f"another process is making an index at {folder}; wait a moment and open it")
            refuse_second(folder)
            Catalog.create(folder, model_name=model_name, model_fingerprint=model_fingerprint, dim=dim)
        return cls(folder)

    @property
    def snapshot(self) -> Snapshot:
        """The generation that this store searches now; hold on to it for several consistent calls."""
        return self._snapshot

    @property
    def space(self) -> Space:
        """The live embedding space: which model's vectors these are."""
        return self._snapshot.space

    def is_behind(self) -> bool:
        """Whether somebody has committed since this store's generation; costs microseconds."""
        return self._catalog.version() != self._version

    @property
    def is_growing(self) -> bool:
        """Whether another `refresh` makes searches faster, though nobody has committed."""
        return self._snapshot.is_growing

    def refresh(self) -> int:
        """Move to the newest generation and return its number; costs in proportion to what changed."""
        with self._refresh_lock:
            version = self._catalog.version()
            if version != self._version or self._snapshot.is_growing:
                self._version, self._snapshot = self._loaded(partial(next_snapshot, self._snapshot))
            return self._snapshot.generation

    def search(self, queries: Vectors, k: int, *, where: Where | None = None) -> Neighbors:
        """The k nearest pictures of each query in this store's generation.

        Args:
            queries: (Q, D) float32 unit rows.
            k: at least 1; may exceed the number of pictures.
            where: a condition that they must meet; k are found wherever k exist.

        Raises:
            VectorError: `queries` are not unit rows of this space.
            FilterError: the condition is not understood, or is of a field that no picture has.
        """
        snapshot = self._snapshot
        allowed = None if where is None else self.meeting(snapshot, where)
        return snapshot.search(check_unit_rows(queries, snapshot.space.dim), k, allowed=allowed)

    def meeting(self, snapshot: Snapshot, where: Where) -> Mask:
        """By picture id, whether it is in a snapshot's generation and meets a condition there. Not to be changed.

        Raises:
            FilterError: the condition is not understood, or is of a field that no picture has.
        """
        return self._columns.meeting(read_filter(where), snapshot.generation)

    def groups(self, snapshot: Snapshot, field: str) -> NDArray[np.int64]:
        """By picture id, a number that pictures share that have the same value in a field; -1 of those without one.

        Raises:
            FilterError: no picture has that field.
        """
        return self._columns.groups(field, snapshot.generation)

    def ids_of(self, snapshot: Snapshot, keys: Iterable[str]) -> dict[str, int]:
        """For those of `keys` that a snapshot's generation holds, the picture's id.

        Raises:
            GenerationForgotten: it was pruned meanwhile.
        """
        wanted = set(keys)
        with self._catalog.read() as connection:
            found = lookup.ids_of_keys(connection, snapshot.generation, wanted)
            if len(found) < len(wanted):
                forgetting.refuse_forgotten(connection, snapshot.generation)
        return found

    def commit(self, changes: Changes, note: str = "", *, space_id: int | None = None) -> Committed:
        """Make `changes` durable as one new generation, all or nothing, and move to it.

        Args:
            note: of the new generation.
            space_id: of the space that all vectors are of; None: the one that this store has open now.

        Raises:
            VectorError: a vector is not a unit row of this space.
            ModelMismatch: another space has become the live one since the vectors were computed.
            UnstorableValue: a number in the metadata is not finite, or a text is not UTF-8.
            IndexReadOnly, IndexBusy
            DiskFull: no space for the changes, or, these being safe, none for the segment that was due.
        """
        space = self.space
        if space_id is not None and changes.has_vectors:
            spaces.refuse_other_space(space_id, space.id)
        if changes.puts:
            keys = [put.key for put in changes.puts]
            check_unit_rows([put.vector for put in changes.puts], space.dim, keys)
        if changes.renewals:
            names = [f"picture {picture_id}" for picture_id in changes.renewals]
            check_unit_rows(list(changes.renewals.values()), space.dim, names)
        self._check_disk()
        with self._catalog.write() as connection:
            committed = apply(connection, changes, space.id, note)
            is_due = sealing.is_due(connection, space.id)
        self.refresh()
        if is_due:
            self._seal(space)
            self.refresh()
        return committed

    def _seal(self, space: Space) -> None:
        """Seal what has been committed. What hinders it is logged, but for a full disk: the next commit tries again.

        Raises:
            DiskFull
        """
        try:
            sealing.seal(self._catalog, self.index_dir, space)
        except DiskFull:
            raise
        except IndexerError as error:
            _log.warning("vectors stay in the catalog until the next commit: %s", error)

    def spaces(self) -> list[Space]:
        """Every embedding space of the index, oldest first; the live one is `space`."""
        with self._catalog.read() as connection:
            return spaces.all_spaces(connection)

    def switches(self) -> list[Switch]:
        """When each space became the live one, oldest first; the last is of the one that is."""
        with self._catalog.read() as connection:
            return spaces.switches(connection)

    def note_metrics(self, space: Space, metrics: Mapping[str, float]) -> None:
        """Write down what a judgement of a space's model came to, in place of an earlier one.

        Raises:
            IndexReadOnly, IndexBusy, DiskFull
        """
        self._check_disk()
        with self._catalog.write() as connection:
            spaces.note_metrics(connection, space.id, metrics)

    def open_space(self, *, model_name: str, model_fingerprint: str, dim: int) -> Space:
        """The space of a model beside the live one, made if there is none; nobody sees it until `make_live`.

        Raises:
            IndexReadOnly, IndexBusy, DiskFull
        """
        self._check_disk()
        with self._catalog.write() as connection:
            return spaces.open_space(connection, model_name=model_name, model_fingerprint=model_fingerprint, dim=dim)

    def fill(self, space: Space, vectors: Mapping[int, Vectors]) -> None:
        """Give pictures their vectors in a space that is not the live one; durable on return.

        Args:
            vectors: picture id -> (D,) unit float32. Pictures that were removed meanwhile are passed over.

        Raises:
            VectorError: a vector is not a unit row of that space.
            IndexReadOnly, IndexBusy, DiskFull
        """
        if not vectors:
            return
        check_unit_rows(list(vectors.values()), space.dim, [f"picture {picture_id}" for picture_id in vectors])
        self._check_disk()
        with self._catalog.write() as connection:
            spaces.fill(connection, space.id, vectors)
            is_due = sealing.is_due(connection, space.id)
        if is_due:
            self._seal(space)

    def leave_out(self, space: Space, picture_ids: Iterable[int]) -> None:
        """Note that pictures cannot be embedded by a model, so that its space can be made live without them.

        A sync looks at them again, and so does whoever fills the space after `forget_left_out`.

        Raises:
            IndexReadOnly, IndexBusy, DiskFull
        """
        self._check_disk()
        with self._catalog.write() as connection:
            spaces.leave_out(connection, space.id, picture_ids)

    def forget_left_out(self, space: Space) -> None:
        """Let pictures be embedded again that could not be before.

        Raises:
            IndexReadOnly, IndexBusy, DiskFull
        """
        self._check_disk()
        with self._catalog.write() as connection:
            spaces.forget_left_out(connection, space.id)

    def make_live(self, space: Space, note: str, embed_rest: EmbedRest, *, most_rest: int = MOST_REST) -> int | None:
        """Let a space take the live one's place, if it holds every picture; readers follow at their next `refresh`.

        Args:
            note: of the new generation.
            embed_rest: gives the vectors of pictures that came too late for `fill`. Nobody can write while it runs.
            most_rest: how many these may be.

        Returns:
            The new generation, or None where more pictures lack a vector: `fill` them and try again.

        Raises:
            VectorError: a vector is not a unit row of that space.
            IndexReadOnly, IndexBusy, DiskFull
        """
        self._check_disk()
        with self._catalog.write() as connection:
            number, _ = spaces.newest_generation(connection)
            rest = spaces.ids_to_fill(connection, space.id)
            if len(rest) > most_rest:
                return None
            if rest:
                pictures = lookup.pictures_by_id(connection, self.index_dir, number, rest)
                vectors = embed_rest(list(pictures.values()))
                check_unit_rows([vectors[id_] for id_ in rest], space.dim, [pictures[id_].key for id_ in rest])
                spaces.fill(connection, space.id, vectors)
            spaces.add_generation(connection, number + 1, space.id, note)
        self.refresh()
        return number + 1

    def empty_space(self, space: Space) -> None:
        """Drop every vector of a space that is not live; readers that still search it go on with the files they hold.

        Raises:
            ValueError: it is the live one.
            IndexReadOnly, IndexBusy, DiskFull
        """
        self._check_disk()
        with self._catalog.write() as connection:
            spaces.empty(connection, space.id)
        with try_seal_lock(self.index_dir) as is_mine:
            if is_mine:  # else the next job does it
                sealing.remove_orphan_segments(self._catalog, self.index_dir)

    def snapshot_of(self, space: Space) -> Snapshot:
        """The newest generation as a space that is not live sees it: the pictures that have a vector there."""
        return self._loaded(partial(load_snapshot, index_dir=self.index_dir, space=space))[1]

    @contextmanager
    def job(self, verb: str) -> Iterator[None]:
        """Hold the job lock for one long job; clears what killed jobs left, and ends with a checkpoint.

        Raises:
            IndexBusy: another job runs; names it.
            IndexReadOnly
        """
        self._check_disk()
        with job_lock(self.index_dir, verb):
            with try_seal_lock(self.index_dir) as is_mine:
                if is_mine:
                    sealing.remove_orphan_segments(self._catalog, self.index_dir, with_those_of_jobs=True)
            kept.remove_orphans(self._catalog, self.index_dir)
            self.refresh()
            try:
                yield
            finally:
                self._catalog.checkpoint()

    def source(self, path: str, kind: str, key_prefix: str) -> Source:
        """The source of that path, made known to the index if it is not yet.

        The prefix of a source that pictures came from stays as it is: their paths are made of it.
        """
        with self._catalog.write() as connection:
            connection.execute(
                "INSERT INTO sources (path, kind, key_prefix) VALUES (?, ?, ?)"
                " ON CONFLICT (path) DO UPDATE SET kind = excluded.kind",
                (path, kind, key_prefix),
            )
            connection.execute(
                "UPDATE sources SET key_prefix = ? WHERE path = ?"
                " AND NOT EXISTS (SELECT 1 FROM pictures WHERE source_id = sources.id)",
                (key_prefix, path),
            )
            row = connection.execute("SELECT * FROM sources WHERE path = ?", (path,)).fetchone()
        return Source(*row)

    def sources(self) -> list[Source]:
        """Every gallery that was ever synced into this index."""
        with self._catalog.read() as connection:
            return [Source(*row) for row in connection.execute("SELECT * FROM sources ORDER BY id")]

    def known_pictures(self, source: Source) -> dict[str, lookup.Known]:
        """What a sync compares: what the catalog remembers of each picture, under its key."""
        with self._catalog.read() as connection:
            return lookup.known_pictures(connection, source.id)

    def known_skips(self, source: Source) -> dict[str, lookup.KnownSkip]:
        """Why pictures of this source were set aside, and in which state of their files, under their keys."""
        with self._catalog.read() as connection:
            return lookup.known_skips(connection, source.id)

    def owners(self, keys: Iterable[str]) -> dict[str, str | None]:
        """For those of `keys` that the index holds: which gallery owns it, None for an upsert."""
        with self._catalog.read() as connection:
            return lookup.owners(connection, keys)

    def pictures(self, snapshot: Snapshot, ids: Sequence[int]) -> dict[int, lookup.Picture]:
        """The pictures of these ids as they were in `snapshot`'s generation.

        Raises:
            GenerationForgotten: it was pruned meanwhile.
        """
        with self._catalog.read() as connection:
            found = lookup.pictures_by_id(connection, self.index_dir, snapshot.generation, ids)
            if len(found) < len(ids):
                forgetting.refuse_forgotten(connection, snapshot.generation)
        return found

    def picture(self, key: str) -> lookup.Picture | None:
        """The picture under `key` in the newest generation, or None."""
        with self._catalog.read() as connection:
            return lookup.picture_by_key(connection, self.index_dir, key)

    def pictures_without_vector(
        self, space: Space | None = None, *, after_id: int = 0, most: int = -1
    ) -> list[lookup.Picture]:
        """Pictures of the newest generation that have no vector in a space, by ascending id.

        Args:
            space: None: the live one, where only damage leaves such pictures.
            after_id: leave out ids up to this one.
            most: the first so many; -1 for all.
        """
        with self._catalog.read() as connection:
            number, live = spaces.newest_generation(connection)
            ids = spaces.ids_to_fill(connection, (space or live).id, after_id, most)
            found = lookup.pictures_by_id(connection, self.index_dir, number, ids)
        return [found[id_] for id_ in ids]

    def count_without_vector(self, space: Space) -> int:
        """The number of pictures of the newest generation that have no vector in a space."""
        with self._catalog.read() as connection:
            return spaces.count_to_fill(connection, space.id)

    def record_feedback(self, judgements: Iterable[Judgement]) -> list[str]:
        """Write down what was said of pictures, durable on return; it changes no answer and makes no generation.

        Returns:
            Keys that the index does not hold; what was said of these is passed over.

        Raises:
            IndexReadOnly, IndexBusy, DiskFull
        """
        self._check_disk()
        with self._catalog.write() as connection:
            return feedback.record(connection, judgements)

    def feedback(self) -> tuple[list[Judgement], int]:
        """What was said of pictures that are still there, the newest first; of how many others something was said."""
        with self._catalog.read() as connection:
            return feedback.judgements(connection, self.index_dir), feedback.count_stale(connection)

    def fields(self) -> list[FieldSummary]:
        """What the metadata of the newest pictures holds."""
        with self._catalog.read_apart() as connection:
            return summarise_fields(connection)

    def products(self) -> int:
        """The number of different products in the newest generation."""
        with self._catalog.read() as connection:
            return lookup.product_count(connection)

    def recipe(self) -> tuple[str, float]:
        """How most pictures are searched: a FAISS factory string or "exact", and the share of the nearest it finds."""
        largest = max(self._snapshot.segments, key=lambda one: one.images, default=None)
        if largest is None or largest.approximation is None:
            return EXACT, 1.0
        return largest.approximation.file.recipe, largest.approximation.file.measured_recall

    def settings(self) -> SearchSettings:
        """How segments are to be searched: what was asked for last."""
        with self._catalog.read() as connection:
            return read_settings(connection)

    def compact(self, settings: SearchSettings | None = None) -> Compaction | None:
        """Bring all vectors of the live space into one segment, without removed ones, to be searched as settings say.

        The caller holds the `job`. Searches and commits go on.

        Args:
            settings: from now on; None: those that were asked for last.

        Returns:
            None where there was nothing to do.

        Raises:
            RecipeError: the recipe does not suit the vectors, or finds too few of the nearest; nothing has changed.
            IndexDamaged, IndexReadOnly, IndexBusy, DiskFull: likewise.
        """
        self._check_disk()
        is_first = not self._snapshot.segments
        sealing.seal(self._catalog, self.index_dir, self.space, least_rows=1)
        self.refresh()
        asked = settings or self.settings()
        done = compaction.compact(self._catalog, self.index_dir, self._snapshot, asked, is_first=is_first)
        if settings is not None:
            with self._catalog.write() as connection:
                write_settings(connection, settings)
        self.refresh()
        return done

    def compact_if_due(self, space: Space | None = None) -> None:
        """Compact a space where its searches pay for many small segments or for removed pictures, at the end of a job.

        What hinders it is logged: the job itself is done.

        Args:
            space: None: the live one.
        """
        self.refresh()
        snapshot = self._snapshot if space in (None, self.space) else self.snapshot_of(space)
        if compaction.is_due(snapshot):
            try:
                self._compact_if_it_can(snapshot)
            except IndexerError as error:
                _log.warning("segments were not merged: %s", error)
            self.refresh()

    def _compact_if_it_can(self, snapshot: Snapshot) -> None:
        """Merge segments, and let them be searched one by one where their recipe does not suit them (any more)."""
        try:
            compaction.compact(self._catalog, self.index_dir, snapshot, self.settings())
        except RecipeError as error:
            _log.warning("%s; until then all vectors are compared", error)
            compaction.compact(self._catalog, self.index_dir, snapshot, SearchSettings(EXACT))

    def forget_removed(self, before_ns: int) -> Forgotten:
        """Drop what was removed or replaced before a time: rows, vectors and kept pictures. The caller holds the `job`.

        Generations from before that time cannot be asked for any more; a reader that still has one begins anew at its
        next `refresh`. Searches and commits go on.

        Args:
            before_ns: since the epoch.

        Raises:
            IndexDamaged, IndexReadOnly, IndexBusy, DiskFull
        """
        self._check_disk()
        with self._catalog.read() as connection:
            oldest = forgetting.generation_at(connection, before_ns)
        for space in self.spaces():
            sealing.seal(self._catalog, self.index_dir, space)  # which drops vectors that were not sealed
            snapshot = self.snapshot_of(space)
            if any(one.removed.size for one in snapshot.segments):
                self._compact_if_it_can(snapshot)
        forgotten = forgetting.forget(self._catalog, oldest)
        kept.remove_orphans(self._catalog, self.index_dir)
        self.refresh()
        return forgotten

    def sizes(self) -> dict[str, int]:
        """Bytes on disk: of the catalog with its log, of the segments, of the kept pictures, and of all."""
        catalog = total_bytes(self.index_dir.glob(f"{CATALOG_FILE}*"))
        segments = total_bytes((self.index_dir / SEGMENTS_FOLDER).rglob("*"))
        pictures = total_bytes((self.index_dir / kept.KEPT_FOLDER).rglob("*"))
        return {
            "catalog": catalog,
            "segments": segments,
            "pictures": pictures,
            "total": catalog + segments + pictures,
        }

    def keep(self, content: bytes) -> str:
        """Keep a picture that exists nowhere else; returns the `path` to give to `Put`."""
        self._check_disk()
        return kept.keep(self.index_dir, content)

    def close(self) -> None:
        """Let go of the files. Searches must have ended."""
        self._catalog.close()
        if self._gpus is not None:
            self._gpus.close()

    def _loaded(self, load: Callable[[sqlite3.Connection], Opening]) -> tuple[int, Snapshot]:
        """What there is to search, and the catalog's version just before."""
        while True:
            version = self._catalog.version()
            try:
                with self._catalog.read() as connection:
                    opening = load(connection)
                return version, opening()  # outside: other threads read the catalog meanwhile
            except IndexDamaged:
                if version == self._catalog.version():
                    raise
                # A job has put other files in the place of those that were about to be opened.

    def _check_disk(self) -> None:
        if not self._is_disk_checked:
            if not self._catalog.is_writable:
                raise IndexReadOnly(
                    f"index {self.index_dir} cannot be written by this user; give it write permission on the folder"
                )
            refuse_network(self.index_dir)
            self._is_disk_checked = True
