"""SearchEngine: the one object that knows pictures and index alike, for the command line and for a backend."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack, overload

import numpy as np
import xxhash

from indexer.backup import Backup, backup
from indexer.changes import ANY_PICTURE, KEEP, Attributes, Changes, Put
from indexer.compaction import Compaction
from indexer.duplicates import find_duplicates
from indexer.errors import ModelMismatch
from indexer.fields import FieldSummary
from indexer.forgetting import Forgotten
from indexer.gpu import open_gpus
from indexer.place import check_place
from indexer.recipe import read_memory
from indexer.segments import use_threads
from indexer.settings import SearchSettings, check_recipe
from indexer.store import IndexStore
from indexer.vectors import Vectors, check_unit_rows
from retrieval.answer import Refinements, answer
from retrieval.calibration import compare, find_matcher
from retrieval.embedder import ImageLike, content_of, naming
from retrieval.encoder.backbones import DEFAULT_MODEL, resolve_model
from retrieval.encoder.runtime import describe_model
from retrieval.errors import EngineUnusable, QueryError, UnknownKey, and_more
from retrieval.feedback.recording import Word, record
from retrieval.gallery import read_gallery
from retrieval.images import DecodeLimits
from retrieval.index_model import IndexModel, ModelOptions, check_model, open_index_model
from retrieval.live import Live, LiveIndex
from retrieval.prepared import EmbeddedQuery, PreparedQuery, embed_together, in_groups
from retrieval.records import Box, box_of, box_text
from retrieval.results import Duplicate, IndexedPicture, IndexInfo, IndexReport, MatchResult, ModelInfo, SearchResult
from retrieval.sync import OnProgress, SyncOptions, sync
from retrieval.threads import thread_budget, usable_cores

LEAST_AGE = timedelta(hours=1)  # of what may be forgotten: readers hold a generation for a while


class SearchEngine:
    """A searchable catalogue of pictures on disk.

    Searches one generation of the index, whole: that of its opening, of its last `refresh` or of its own last
    write. Safe to use from several threads. Not to be used after a fork: open one in each process.

    Example:
        with SearchEngine.open(".retrieve") as engine:
            for hit in engine.search("photo.jpg", k=5).hits:
                print(hit.score, hit.key)
    """

    def __init__(self, store: IndexStore, model: IndexModel, options: ModelOptions) -> None:
        """Use `create` or `open`."""
        self._index = LiveIndex(store, model, options)
        self._store = store
        self._limits = options.limits
        self._threads = options.threads
        self._search_threads = thread_budget(options.threads).search
        self._pid = os.getpid()
        self._is_closed = False

    @classmethod
    def create(
        cls,
        index_dir: str | os.PathLike[str],
        *,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        device: str = "auto",
        threads: int | None = None,
        batch_size: int | None = None,
        limits: DecodeLimits = DecodeLimits(),
    ) -> Self:
        """Make an empty index for the pictures as `model` sees them.

        Args:
            index_dir: a new or empty folder.
            model: a name (see `retrieve models`) or a model directory.
            device: "auto", "cpu", "cuda" or "cuda:1".
            threads: cores to use; all that this process may where None.
            batch_size: pictures that the encoder takes at once; None: what is fastest on the device.
            limits: which pictures are too large, and whether truncated ones are taken.

        Raises:
            UnknownModel, WeightsUnavailable, ModelDamaged, DeviceUnavailable
            IndexExists, IndexReadOnly, DiskFull
        """
        check_place(index_dir)
        described = describe_model(model)
        store = IndexStore.create(
            index_dir,
            model_name=resolve_model(model).address,
            model_fingerprint=described.fingerprint,
            dim=described.dim,
        )
        options = ModelOptions(device, threads, batch_size, limits)
        return cls(store, open_index_model(store.index_dir, store.space, options), options)

    @classmethod
    def open(
        cls,
        index_dir: str | os.PathLike[str],
        *,
        model: str | os.PathLike[str] | None = None,
        device: str = "auto",
        search_device: str = "cpu",
        threads: int | None = None,
        batch_size: int | None = None,
        limits: DecodeLimits = DecodeLimits(),
    ) -> Self:
        """Open an index. The encoder is loaded when the first picture has to be embedded.

        Args:
            model: what the index must have been built by, where it is now; None: whatever it was built by.
            search_device: where vectors are compared: "cpu"; "cuda" or "cuda:1" for large segments, which the CPU
                searches until they are there; or "auto" for whatever there is.
            index_dir, device, threads, batch_size, limits: as in `create`.

        Raises:
            IndexNotFound, IndexTooNew, IndexDamaged, IndexReadOnly
            GpuUnavailable: a GPU is asked for to search on, and not there.
            ModelMismatch: the index was built by another model.
            UnknownModel, WeightsUnavailable, ModelDamaged
        """
        store = IndexStore(index_dir, gpus=open_gpus(search_device))
        try:
            if model is not None:
                described = describe_model(model)
                check_model(store.index_dir, store.space, described.name, described.fingerprint)
            options = ModelOptions(device, threads, batch_size, limits)
            return cls(store, open_index_model(store.index_dir, store.space, options, model), options)
        except BaseException:
            store.close()
            raise

    @property
    def index_dir(self) -> Path:
        """The folder of the index."""
        return self._store.index_dir

    @property
    def generation(self) -> int:
        """The generation that searches answer from."""
        return self._index.now.snapshot.generation

    @property
    def images(self) -> int:
        """The number of pictures in that generation."""
        return self._index.now.snapshot.images

    @property
    def limits(self) -> DecodeLimits:
        """Which pictures are too large, and whether truncated ones are taken."""
        return self._limits

    def load_model(self) -> None:
        """Load the encoder now, rather than at the first picture's cost.

        Raises:
            UnknownModel, WeightsUnavailable, ModelDamaged, DeviceUnavailable, ModelMismatch
        """
        self._check_usable()
        encoder = self._index.now.model.embedder.encoder
        side = encoder.preprocessing.input_px
        for count in (1, encoder.batch_size + 1):
            encoder.encode(np.zeros((count, 3, side, side), np.uint8))

    @property
    def model_fingerprint(self) -> str:
        """Of the model that this generation was embedded by."""
        return self._index.now.model.space.model_fingerprint

    def sync(
        self,
        gallery: str | os.PathLike[str],
        *,
        key_prefix: str | None = None,
        remove: bool = True,
        allow_removals: bool = False,
        on_progress: OnProgress | None = None,
    ) -> IndexReport:
        """Make the index hold what a gallery holds: add, replace, remove; leave alone what has not changed.

        Pictures that cannot be used are set aside and reported. Commits every few seconds: what is done when it
        stops, for whatever reason, is not done again.

        Args:
            gallery: a folder or a manifest.
            key_prefix: what this gallery's keys begin with; None: as at its first sync, "" then.
            remove: remove from the index what has vanished from this gallery.
            allow_removals: even if that is more than a fifth of it.
            on_progress: called after each picture.

        Raises:
            GalleryError, ManifestError: the gallery cannot be read.
            RemovalsRefused: too much has vanished; nothing was changed.
            IndexBusy: another job runs on this index.
            IndexReadOnly, DiskFull
        """
        self._check_usable()
        prefix = self.key_prefix(gallery) if key_prefix is None else key_prefix
        options = SyncOptions(self._limits, remove, allow_removals, self._threads)
        with self._store.job("index"):
            embedder = self._index.follow().model.embedder  # a job keeps the index at one model
            listing = read_gallery(gallery, key_prefix=prefix, exclude=[str(self.index_dir)])
            try:
                report = sync(self._store, embedder, listing, prefix, options, on_progress)
                use_threads(self._threads or usable_cores())
                self._store.compact_if_due()
                return report
            finally:
                self._index.follow()

    def key_prefix(self, gallery: str | os.PathLike[str]) -> str:
        """What the keys of a gallery began with when it was first synced; "" where it never was."""
        path = os.path.abspath(gallery)
        return next((source.key_prefix for source in self._store.sources() if source.path == path), "")

    def upsert(
        self,
        key: str,
        image: ImageLike,
        *,
        product_id: str | None = None,
        label: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        box: Box | None = None,
    ) -> int:
        """Add a picture, or put it in the place of what `key` holds; durable on return.

        A file is remembered by its path; bytes, images and arrays are kept in the index. No sync touches the key
        afterwards.

        Args:
            key: the caller's name for the picture.
            metadata: JSON-plain values.
            box: the part of the picture to embed.

        Returns:
            The generation in which the picture is searchable.

        Raises:
            PictureError: the picture cannot be used; the index is unchanged.
            UnstorableValue: a number in the metadata is not finite, or a text is not UTF-8; likewise. A ValueError.
            IndexReadOnly, DiskFull, IndexBusy
        """
        self._check_usable()
        with naming(image):
            content = content_of(image, self._limits)
            live = self._index.now
            vector = live.model.embedder.embed([content], box)[0]
        path = os.path.abspath(image) if isinstance(image, str | os.PathLike) else self._store.keep(content)
        put = Put(
            key,
            vector,
            content_hash=xxhash.xxh3_128_hexdigest(content),
            size_bytes=len(content),
            mtime_ns=0,
            scanned_ns=time.time_ns(),
            path=path,
            box=box_text(box),
            attributes=Attributes(product_id, label, dict(metadata or {})),
            expected_id=ANY_PICTURE,
        )
        while True:
            try:
                return self._index.commit(Changes(puts=[put]), "upsert", space_id=live.model.space.id).generation
            except ModelMismatch:  # another model has become the index's since the picture was embedded
                live = self._index.refresh()
                put = replace(put, vector=live.model.embedder.embed([content], box)[0])

    def update_metadata(
        self,
        key: str,
        *,
        product_id: str | None = KEEP,
        label: str | None = KEEP,
        metadata: Mapping[str, Any] = KEEP,
    ) -> int:
        """Replace what is given of a picture's attributes, without touching its vector; durable on return.

        What is not given stays what it is when the change is committed, whoever else writes meanwhile.

        Returns:
            The generation in which they are visible.

        Raises:
            UnknownKey: the index holds no such key.
            UnstorableValue: as for `upsert`.
            IndexReadOnly, DiskFull, IndexBusy
        """
        self._check_usable()
        attributes = Attributes(product_id, label, metadata if metadata is KEEP else dict(metadata))
        committed = self._index.commit(Changes(attributes={key: attributes}), "update metadata")
        if committed.outdated:
            raise UnknownKey(f"no picture {key!r} in index {self.index_dir}; add it with `upsert`")
        return committed.generation

    def remove(self, keys: str | Iterable[str]) -> int:
        """Remove pictures, all or none; durable on return. A sync brings back those whose files are still there.

        Returns:
            The generation from which they are gone.

        Raises:
            UnknownKey: the index does not hold one of the keys; nothing was removed.
            IndexReadOnly, DiskFull, IndexBusy
        """
        self._check_usable()
        wanted = list(dict.fromkeys([keys] if isinstance(keys, str) else keys))
        held = self._store.owners(wanted)
        missing = [key for key in wanted if key not in held]
        if missing:
            named = f"{missing[0]!r}{and_more(len(missing))}"
            raise UnknownKey(f"no picture {named} in index {self.index_dir}; nothing was removed")
        committed = self._index.commit(Changes(removes=dict.fromkeys(wanted, ANY_PICTURE)), "remove")
        if wanted and not committed.removed:
            raise UnknownKey(f"picture {wanted[0]!r} was removed from index {self.index_dir} meanwhile")
        return committed.generation

    @overload
    def search(
        self,
        images: ImageLike | None = None,
        k: int = 10,
        *,
        box: Box | None = None,
        crops: bool = False,
        **refined: Unpack[Refinements],
    ) -> SearchResult: ...

    @overload
    def search(
        self,
        images: list[ImageLike] | tuple[ImageLike, ...],
        k: int = 10,
        *,
        box: Box | None = None,
        crops: bool = False,
        **refined: Unpack[Refinements],
    ) -> list[SearchResult]: ...

    def search(
        self,
        images: ImageLike | list[ImageLike] | tuple[ImageLike, ...] | None = None,
        k: int = 10,
        *,
        box: Box | None = None,
        crops: bool = False,
        **refined: Unpack[Refinements],
    ) -> SearchResult | list[SearchResult]:
        """Find the pictures that look most like one picture, or like each of several.

        Args:
            images: one picture, or a list or tuple of them; None where `like` says what is looked for.
            k: hits at most, at least 1. So many are found wherever so many exist.
            box: the part of each picture to search with.
            crops: look at several parts of each picture, besides all of it; not together with a box.
            refined: `Refinements`: `where`, `group_by`, `offset`, `min_score`, `min_probability`, `exclude`, `like`,
                `unlike`, `dedup`, `expand`, `rerank`, in any combination.

        Returns:
            One result for one picture, a list of them for several.

        Raises:
            PictureError: a query cannot be used.
            ValueError: a number is out of its range.
            QueryError: there is nothing to look for.
            FilterError: `where` is not understood, or a field is one that no picture has.
            UnknownKey: the index does not hold a key of `like` or `unlike`.
            ModelError: `min_probability` is asked for, and the model is not calibrated.

        Example:
            engine.search(photo, 10, where="price < 50 and in_stock = true", group_by="product_id", min_score=0.5)
        """
        self._check_usable()
        live = self._index.now
        if images is None:
            if crops or box is not None:
                raise QueryError("a box or crops are of the picture that is searched with, and there is none")
            return self._answer(live, None, [None], k, refined)[0]
        several = list(images) if isinstance(images, list | tuple) else [images]
        if crops and box is not None:
            raise ValueError("crops and box exclude each other")
        embedder = live.model.embedder
        vectors = embedder.embed_crops(several) if crops else embedder.embed(several, box)
        results = self._answer(live, vectors, [_name_of(image) for image in several], k, refined)
        return results if isinstance(images, list | tuple) else results[0]

    def search_vectors(
        self, vectors: Vectors, k: int = 10, *, model_fingerprint: str | None = None, **refined: Unpack[Refinements]
    ) -> list[SearchResult]:
        """Find the pictures nearest to embeddings of the index's model.

        Args:
            vectors: (Q, D) unit rows.
            k, refined: as in `search`.
            model_fingerprint: of the model that embedded them; None trusts that it is the one the engine searches with.

        Raises:
            VectorError: wrong shape, or rows not of unit length.
            ModelMismatch: the engine has moved to another model since.
            ValueError, QueryError, FilterError, UnknownKey, ModelError: as for `search`.
        """
        self._check_usable()
        live = self._index.now
        space = live.model.space
        if model_fingerprint is not None:
            check_model(self.index_dir, space, "another model", model_fingerprint)
        checked = check_unit_rows(vectors, space.dim)
        return self._answer(live, checked, [None] * len(checked), k, refined)

    def prepare(self, image: ImageLike, box: Box | None = None) -> PreparedQuery:
        """Decode a query: the first of the three steps of `search`, for servers that embed several callers' together.

        Raises:
            PictureError: it cannot be used.
        """
        self._check_usable()
        live = self._index.now
        return PreparedQuery(live, live.model.embedder.pixels(image, box))

    def embed_prepared(self, queries: Sequence[PreparedQuery]) -> list[EmbeddedQuery]:
        """Embed queries at once: the second step."""
        self._check_usable()
        return embed_together(queries)

    def search_embedded(
        self, queries: Sequence[EmbeddedQuery], k: int = 10, **refined: Unpack[Refinements]
    ) -> list[SearchResult]:
        """Search for queries at once: the third step. In the newest generation, or the last one of their model.

        Args:
            k, refined: as in `search`.

        Raises:
            ValueError, QueryError, FilterError, UnknownKey, ModelError: as for `search`.
        """
        self._check_usable()
        now = self._index.now

        def live_for(query: EmbeddedQuery) -> Live:
            return now if now.model is query.live.model else query.live

        def searched(queries: list[EmbeddedQuery]) -> list[SearchResult]:
            vectors = np.concatenate([query.vector for query in queries])
            return self._answer(live_for(queries[0]), vectors, [None] * len(queries), k, refined, threads=1)

        return in_groups(queries, live_for, searched)

    def duplicates(self, score: float = 0.98) -> list[list[Duplicate]]:
        """Groups of indexed pictures that are nearly the same, each by ascending key.

        Args:
            score: two pictures are, if their cosine reaches this, or if others between them join them.
        """
        self._check_usable()
        snapshot = self._index.now.snapshot
        found = find_duplicates(snapshot, score, self._search_threads)
        pictures = self._store.pictures(snapshot, [id_ for group in found for id_ in group])
        groups = []
        for group in found:
            ids = sorted(group, key=lambda id_: pictures[id_].key)
            scores = snapshot.vectors_of(np.array(ids)) @ snapshot.vectors_of(np.array(ids[:1]))[0]
            groups.append(
                [
                    Duplicate(pictures[id_].key, pictures[id_].path, min(1.0, float(one)))
                    for id_, one in zip(ids, scores, strict=True)
                ]
            )
        return sorted(groups, key=lambda group: group[0].key)

    def record_feedback(
        self, query: ImageLike, key: str, relevant: bool, *, source: str | None = None, box: Box | None = None
    ) -> None:
        """Write down that somebody chose or rejected a hit, for the next refresh to learn from; durable on return.

        A query's file is remembered by its path; bytes, images and arrays are kept in the index.

        Args:
            query: the picture that was searched with.
            key: of the hit.
            relevant: it shows what the query shows.
            source: who says so, such as a customer's number. Of each the last word on a query and a key counts, and so
                many in all (see `RefreshConfig.most_per_source`); without one, it is the shop's own word.
            box: the part of the query that was searched with.

        Raises:
            UnknownKey: the index holds no such key.
            PictureError: the query cannot be used.
            IndexReadOnly, DiskFull, IndexBusy
        """
        self._check_usable()
        record(self._store, Word(query, key, relevant, source, box), self._limits)

    def match(self, a: ImageLike, b: ImageLike, *, false_accept_rate: float | None = None) -> MatchResult:
        """Say how alike two pictures are, neither of which needs to be in the index.

        Args:
            a, b: the pictures; their order does not count.
            false_accept_rate: decide, too, at the score that at most this share of different products reaches.

        Raises:
            PictureError: one of them cannot be used.
            ModelDamaged: the model's calibration cannot be read.
            ModelError: a decision is wanted, and the model is not calibrated, or on too few pairs for this rate.
        """
        self._check_usable()
        model = self._index.now.model
        vectors = model.embedder.embed([a, b])
        return _compared(model, vectors, (_name_of(a), _name_of(b)), false_accept_rate)

    def match_embedded(
        self, a: EmbeddedQuery, b: EmbeddedQuery, *, false_accept_rate: float | None = None
    ) -> MatchResult:
        """As `match`, of pictures that are embedded already.

        Raises:
            ModelMismatch: another model has become the index's between the two.
            ModelDamaged, ModelError: as for `match`.
        """
        self._check_usable()
        model = a.live.model
        check_model(self.index_dir, model.space, "another model", b.live.model.space.model_fingerprint)
        return _compared(model, np.concatenate([a.vector, b.vector]), (None, None), false_accept_rate)

    def embed(self, images: Sequence[ImageLike]) -> Vectors:
        """(N, D) unit embeddings of N pictures, as the index's model sees them.

        Raises:
            PictureError: one of them cannot be used.
        """
        self._check_usable()
        return self._index.now.model.embedder.embed(images)

    def info(self) -> IndexInfo:
        """What the index holds."""
        self._check_usable()
        snapshot = self._index.now.snapshot
        space = snapshot.space
        return IndexInfo(
            snapshot.images,
            self._store.products(),
            snapshot.generation,
            ModelInfo(space.model_name, space.model_fingerprint, space.dim),
            *self._store.recipe(),
            len(snapshot.segments),
            self._store.sizes(),
        )

    def compact(
        self, *, recipe: str | None = None, recall: float | None = None, memory: int | str | None = None
    ) -> Compaction | None:
        """Merge the files of vectors into one, without those of removed pictures; searches and writes go on.

        A sync does so by itself past a share. What is asked for here is kept for it.

        Args:
            recipe: how the vectors are searched from now on: "auto", as their number demands; "exact", one by one; or a
                FAISS factory string. None: as before.
            recall: of the true ten nearest, the share to find at least. None: as before, 0.95 at first.
            memory: what the first stage of a search may take, in bytes or as "4GB". None: as before, anything at first.

        Returns:
            What it came to, or None where there was nothing to do.

        Raises:
            RecipeError: FAISS does not know the recipe, it needs more vectors, finds too few, or does not fit; nothing
                has changed.
            IndexBusy: another job runs on this index.
            IndexReadOnly, DiskFull, IndexDamaged
        """
        self._check_usable()
        settings = self.search_settings(recipe=recipe, recall=recall, memory=memory)
        with self._store.job("compact"):
            use_threads(self._threads or usable_cores())
            try:
                return self._store.compact(settings)
            finally:
                self._index.follow()

    def forget_removed(self, older_than: timedelta) -> Forgotten:
        """Drop what was removed or replaced longer ago than that, so that an index that changes stops growing.

        What is in the index stays as it is; searches and writes go on. A process that has not refreshed for as long
        begins anew when it does.

        Args:
            older_than: an hour at least, for readers that hold on to a generation.

        Returns:
            What is gone. Rows stay that feedback names, or a vector of a former model that was set aside.

        Raises:
            ValueError: less than an hour.
            IndexBusy: another job runs on this index.
            IndexReadOnly, DiskFull, IndexDamaged
        """
        self._check_usable()
        if older_than < LEAST_AGE:
            raise ValueError(f"older_than is {older_than}; readers may hold a generation for {LEAST_AGE}, so not less")
        with self._store.job("prune"):
            use_threads(self._threads or usable_cores())
            try:
                return self._store.forget_removed(time.time_ns() - round(1e9 * older_than.total_seconds()))
            finally:
                self._index.follow()

    def search_settings(
        self, *, recipe: str | None = None, recall: float | None = None, memory: int | str | None = None
    ) -> SearchSettings:
        """What a compaction with these arguments would be asked for; changes nothing.

        Raises:
            RecipeError: vectors of this index can never be searched by that recipe, or a number is none.
        """
        before = self._store.settings()
        settings = SearchSettings(
            before.recipe if recipe is None else recipe,
            before.recall if recall is None else recall,
            before.memory_bytes if memory is None else read_memory(memory) if isinstance(memory, str) else memory,
        )
        check_recipe(settings.recipe, self._store.space.dim)
        return settings

    def picture(self, key: str) -> IndexedPicture:
        """What the index holds under a key, in the newest generation.

        Raises:
            UnknownKey: nothing.
        """
        self._check_usable()
        found = self._store.picture(key)
        if found is None:
            raise UnknownKey(f"no picture {key!r} in index {self.index_dir}")
        attributes = found.attributes
        return IndexedPicture(
            found.key,
            found.path,
            attributes.product_id,
            attributes.label,
            attributes.metadata,
            box_of(found.box),
            found.content_hash,
            found.source_id is None,
        )

    def fields(self) -> list[FieldSummary]:
        """What the metadata of the newest pictures holds: what conditions can be made of."""
        self._check_usable()
        return self._store.fields()

    def is_behind(self) -> bool:
        """Whether `refresh` would find something new; costs microseconds."""
        self._check_usable()
        return self._store.is_behind()

    @property
    def is_growing(self) -> bool:
        """Whether another `refresh` makes searches faster, though there is nothing new to find."""
        self._check_usable()
        return self._store.is_growing

    def refresh(self) -> int:
        """Move to the newest generation that anybody has committed, with its model, and return its number.

        Searches in other threads go on meanwhile, each with the generation and the model that it began with.

        Raises:
            UnknownModel, ModelDamaged, ModelMismatch: another model has become the index's and cannot be opened; the
                engine stays where it was.
        """
        self._check_usable()
        return self._index.refresh().snapshot.generation

    def backup(self, destination: str | os.PathLike[str]) -> Backup:
        """Copy the newest generation into a new folder, while readers and writers go on.

        Raises:
            IndexExists: there is something at `destination`.
            IndexReadOnly, DiskFull
        """
        self._check_usable()
        return backup(self.index_dir, Path(destination))

    def close(self) -> None:
        """Let go of the index and the encoder. May be called twice."""
        if not self._is_closed and self._pid == os.getpid():
            self._is_closed = True
            self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(
        self,
        live: Live,
        vectors: Vectors | None,
        names: Sequence[str | None],
        k: int,
        refined: Refinements,
        threads: int | None = None,
    ) -> list[SearchResult]:
        return answer(self._store, live, vectors, names, k, threads or self._search_threads, **refined)

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise EngineUnusable(
                f"the engine of {self.index_dir} was opened in process {self._pid} and inherited through a fork; "
                "open one in each process"
            )
        if self._is_closed:
            raise EngineUnusable(f"the engine of {self.index_dir} is closed; open it again")


def _compared(
    model: IndexModel, vectors: Vectors, names: tuple[str | None, str | None], false_accept_rate: float | None
) -> MatchResult:
    fingerprint = model.space.model_fingerprint
    return compare(vectors, names, find_matcher(model.address, fingerprint), fingerprint, false_accept_rate)


def _name_of(image: object) -> str | None:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else None
