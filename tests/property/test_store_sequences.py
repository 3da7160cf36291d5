"""Whatever is done to an index in whatever order, every generation of it is what a plain dictionary says."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

import indexer.growth
import indexer.open_segment
import indexer.recipe
import indexer.sealing
from damage import flip
from indexer.backup import backup
from indexer.changes import NO_PICTURE, Attributes, Changes, Put
from indexer.errors import RecipeError
from indexer.integrity import salvage, verify
from indexer.lookup import Picture
from indexer.ranking import Wanted, rank
from indexer.settings import SearchSettings
from indexer.snapshot import Snapshot
from indexer.spaces import Space
from indexer.store import IndexStore
from vectors import exact_search, new_store, pictures_found, put, query_catalog, unit_rows

DIM = 4
SEAL_ROWS = 6
POOL = unit_rows(24, DIM, seed=0)
QUERIES = unit_rows(3, DIM, seed=1)
SHIFTS = {"f": 0, "g": 5, "h": 11}  # model -> how far its vectors are from those of the first, in rows of POOL

KEYS = st.sampled_from([f"k{i}" for i in range(12)])
ROWS = st.integers(0, len(POOL) - 1)
PRODUCTS = st.sampled_from(["p", "q", None])
MODELS = st.sampled_from(list(SHIFTS))
PUTS = st.lists(st.tuples(KEYS, ROWS, PRODUCTS), min_size=1, max_size=5)


class Held(NamedTuple):
    """What should be under a key."""

    row: int  # of POOL
    product_id: str | None


Content = dict[str, Held]


def vector(row: int, space: Space) -> NDArray[np.float32]:
    """What the model of a space says of a picture."""
    return POOL[(row + SHIFTS[space.model_fingerprint]) % len(POOL)]


class Pinned(NamedTuple):
    """A generation that a reader holds on to, and what it should be for ever."""

    store: IndexStore
    snapshot: Snapshot
    content: Content


def assert_is(store: IndexStore, snapshot: Snapshot, content: Content) -> None:
    """Every picture is there with its attributes, and searches equal those over a fresh exact index."""
    pictures = pictures_found(store, snapshot)
    assert {key: picture.attributes.product_id for key, picture in pictures.items()} == {
        key: held.product_id for key, held in content.items()
    }
    held_by_id = {pictures[key].id: vector(held.row, snapshot.space) for key, held in content.items()}
    for k in (3, 20):
        found, expected = snapshot.search(QUERIES, k), exact_search(held_by_id, QUERIES, k)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        for query, ids, scores in zip(QUERIES, found.ids, found.scores, strict=True):
            for id_, score in zip(ids.tolist(), scores.tolist(), strict=True):
                assert id_ == -1 or abs(float(query @ held_by_id[id_]) - score) < 2e-3
    product_of = {pictures[key].id: held.product_id for key, held in content.items()}
    some = {id_: row for id_, row in held_by_id.items() if product_of[id_] in ("p", "changed")}
    found = snapshot.search(QUERIES, 4, allowed=store.meeting(snapshot, {"product_id": ["p", "changed"]}))
    np.testing.assert_allclose(found.scores, exact_search(some, QUERIES, 4).scores, atol=1e-5)
    assert set(found.ids.flat) - {-1} <= set(some)
    found = rank(snapshot, QUERIES, Wanted(4, groups=store.groups(snapshot, "product_id")))
    for query, ids, scores in zip(QUERIES, found.ids, found.scores, strict=True):
        best: dict[str | int, float] = {}
        for id_, row in held_by_id.items():
            product = product_of[id_] or id_
            best[product] = max(best.get(product, -1.0), float(query @ row))
        np.testing.assert_allclose(scores[ids >= 0], sorted(best.values(), reverse=True)[:4], atol=2e-3)
        assert len({product_of[id_] or id_ for id_ in ids[ids >= 0].tolist()}) == min(4, len(best))


class StoreMachine(RuleBasedStateMachine):
    """A writer, a reader that refreshes when it likes, and generations that stay pinned."""

    @initialize()
    def make(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.writer = new_store(self.folder / "index", DIM)
        self.content: Content = {}
        self.reader = IndexStore(self.writer.index_dir)
        self.readers_content: Content = {}
        self.pinned: list[Pinned] = []
        self.used_ids: dict[int, str] = {}

    @rule(puts=PUTS)
    def put(self, puts: list[tuple[str, int, str | None]]) -> None:
        done = self.writer.commit(Changes(puts=self.puts_of(puts)))
        assert {*done.added, *done.updated} == {key for key, _, _ in puts}
        self.content |= {key: Held(row, p) for key, row, p in puts}

    @rule(key=KEYS, row=ROWS)
    def put_where_nothing_is(self, key: str, row: int) -> None:
        done = self.writer.commit(Changes(puts=[put(key, self.live(row), expected_id=NO_PICTURE)]))
        assert done.outdated == ([key] if key in self.content else [])
        self.content.setdefault(key, Held(row, None))

    @rule(keys=st.sets(KEYS, min_size=1, max_size=6))
    def remove(self, keys: set[str]) -> None:
        done = self.writer.commit(Changes(removes=dict.fromkeys(sorted(keys), -1)))
        assert set(done.removed) == keys & self.content.keys()
        self.content = {key: held for key, held in self.content.items() if key not in keys}

    @rule(keys=st.sets(KEYS, min_size=1, max_size=4), product_id=PRODUCTS)
    def set_attributes(self, keys: set[str], product_id: str | None) -> None:
        self.writer.commit(Changes(attributes={key: Attributes(product_id) for key in sorted(keys)}))
        self.content |= {key: self.content[key]._replace(product_id=product_id) for key in keys & self.content.keys()}

    @rule(puts=PUTS, removed=KEYS, changed=KEYS, renewed=KEYS, row=ROWS)
    def all_at_once(
        self, puts: list[tuple[str, int, str | None]], removed: str, changed: str, renewed: str, row: int
    ) -> None:
        ids = {key: picture.id for key, picture in pictures_found(self.writer).items()}
        is_renewed = renewed in ids and renewed not in {removed, *(key for key, _, _ in puts)}
        self.writer.commit(
            Changes(
                puts=self.puts_of(puts),
                removes={removed: -1},
                attributes={changed: Attributes("changed")},
                renewals={ids[renewed]: self.live(row)} if renewed in ids else {},
            )
        )
        self.content |= {key: Held(row, p) for key, row, p in puts}
        self.content.pop(removed, None)
        if changed in self.content:
            self.content[changed] = self.content[changed]._replace(product_id="changed")
        if is_renewed:
            self.content[renewed] = self.content[renewed]._replace(row=row)

    @rule(model=MODELS, most=st.integers(0, 8))
    def fill_a_space(self, model: str, most: int) -> None:
        space = self.writer.open_space(model_name=model, model_fingerprint=model, dim=DIM)
        self.writer.fill(space, self.embedded(space, self.writer.pictures_without_vector(space)[:most]))

    @rule(model=MODELS)
    def move_to_a_space(self, model: str) -> None:
        space = self.writer.open_space(model_name=model, model_fingerprint=model, dim=DIM)
        self.writer.make_live(space, "refresh", lambda rest: self.embedded(space, rest))

    def embedded(self, space: Space, pictures: list[Picture]) -> dict[int, NDArray[np.float32]]:
        return {picture.id: vector(self.content[picture.key].row, space) for picture in pictures}

    def live(self, row: int) -> NDArray[np.float32]:
        return vector(row, self.writer.space)

    def puts_of(self, puts: list[tuple[str, int, str | None]]) -> list[Put]:
        return [put(key, self.live(row), product_id=product_id) for key, row, product_id in puts]

    @rule()
    def refresh_the_reader(self) -> None:
        self.reader.refresh()
        self.readers_content = dict(self.content)

    @rule(of_reader=st.booleans())
    def pin(self, of_reader: bool) -> None:
        store = self.reader if of_reader else self.writer
        content = self.readers_content if of_reader else self.content
        self.pinned = [*self.pinned[-3:], Pinned(store, store.snapshot, dict(content))]

    @rule()
    def seal(self) -> None:
        indexer.sealing.seal(self.writer._catalog, self.writer.index_dir, self.writer.space)

    @rule(number=st.integers(0, 4), row=st.integers(0, 5))
    def damage_and_repair(self, number: int, row: int) -> None:
        """A segment goes back into the catalog, without one of its vectors, which is embedded again."""
        segments = [one.segment for one in self.writer.snapshot.segments]
        if not segments:
            return
        damaged = segments[number % len(segments)]
        behind = 8 * (1 + len(damaged.ids))  # bytes, of the ids and their number
        copy = damaged.path.with_name("copy")
        shutil.copy(damaged.path, copy)
        flip(copy, -behind - 1 - 2 * DIM * (row % len(damaged.ids)))
        copy.replace(damaged.path)  # who has the file open still sees it whole
        salvage(self.writer.index_dir)
        self.writer.refresh()
        lost = self.writer.pictures_without_vector()
        self.writer.commit(Changes(renewals=self.embedded(self.writer.space, lost)))
        self.run_a_job()  # which removes the damaged file

    @rule(recipe=st.sampled_from(["exact", "SQ8", "IVF1,SQ8"]))
    def compact(self, recipe: str) -> None:
        with self.writer.job("compact"), suppress(RecipeError):  # too few to learn from
            self.writer.compact(SearchSettings(recipe))

    @rule()
    def run_a_job(self) -> None:
        with self.writer.job("index"):
            pass

    @rule(back=st.integers(0, 3))
    def forget(self, back: int) -> None:
        """What only generations before the newest few show; who holds one of these begins anew."""
        oldest = max(0, self.writer.snapshot.generation - back)
        made_ns = dict(query_catalog(self.writer.index_dir, "SELECT number, created_ns FROM generations"))
        if oldest not in made_ns:
            return
        with self.writer.job("prune"):
            self.writer.forget_removed(made_ns[oldest])
        self.pinned = [one for one in self.pinned if one.snapshot.generation >= oldest]
        if self.reader.snapshot.generation < oldest:
            self.refresh_the_reader()

    @rule()
    def reopen(self) -> None:
        self.pinned = [one for one in self.pinned if one.store is not self.writer]
        self.writer.close()
        self.writer = IndexStore(self.writer.index_dir)

    @invariant()
    def the_newest_generation_is_right(self) -> None:
        assert_is(self.writer, self.writer.snapshot, self.content)

    @invariant()
    def the_reader_is_where_it_last_refreshed(self) -> None:
        assert_is(self.reader, self.reader.snapshot, self.readers_content)

    @invariant()
    def pinned_generations_never_change(self) -> None:
        for one in self.pinned:
            assert_is(one.store, one.snapshot, one.content)

    @invariant()
    def no_id_is_used_twice(self) -> None:
        for key, picture in pictures_found(self.writer).items():
            assert self.used_ids.setdefault(picture.id, key) == key

    def teardown(self) -> None:
        assert (verify(self.writer.index_dir).problems, verify(self.writer.index_dir).orphans) == ([], [])
        backup(self.writer.index_dir, self.folder / "copy")
        copy = IndexStore(self.folder / "copy")
        assert_is(copy, copy.snapshot, self.content)
        for store in (copy, self.writer, self.reader):
            store.close()
        shutil.rmtree(self.folder)


class GrownStoreMachine(StoreMachine):
    """The same, where a segment with lists is there from the start, and what comes later goes into these."""

    @initialize()
    def make(self) -> None:
        super().make()
        held = {f"b{i}": Held(i, None) for i in range(16)}
        self.writer.commit(Changes(puts=[put(key, self.live(one.row)) for key, one in held.items()]))
        self.content |= held
        with self.writer.job("compact"):
            self.writer.compact(SearchSettings("IVF1,SQ8"))
        self.refresh_the_reader()


@pytest.fixture(autouse=True)
def _seal_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", SEAL_ROWS)
    monkeypatch.setattr(indexer.recipe, "_POINTS_PER_CENTROID", 2)
    monkeypatch.setattr(indexer.open_segment, "_MOST_POOLED", 100)
    for limit, so_few in (("_LEAST_TO_BEGIN", 1), ("_MOST_AT_ONCE", 4), ("_ROWS_A_TURN", 2), ("_LEAST_ROOM", 1)):
        monkeypatch.setattr(indexer.growth, limit, so_few)


for machine, examples in ((StoreMachine, 60), (GrownStoreMachine, 40)):
    machine.TestCase.settings = settings(settings.get_profile("seeded"), max_examples=examples, stateful_step_count=25)
TestStoreSequences = StoreMachine.TestCase
TestGrownStoreSequences = GrownStoreMachine.TestCase
