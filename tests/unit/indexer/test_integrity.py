"""Damage is found and named, and a repair loses nothing that is intact."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import indexer.catalog
import indexer.integrity
import indexer.sealing
from damage import flip
from indexer.changes import Attributes, Changes
from indexer.errors import IndexDamaged, IndexNotFound
from indexer.files import sha256_of
from indexer.integrity import salvage, verify
from indexer.segments import SealedFile, Segment, read_raw_rows
from indexer.store import IndexStore
from vectors import new_store, own_scores, pictures_found, put, query_catalog, unit_rows

DIM = 8
SEALED, UNSEALED = 12, 3
ROWS = unit_rows(SEALED + UNSEALED, DIM, seed=0)
BY_KEY = {f"k{i}": row for i, row in enumerate(ROWS)}  # k0 has id 1
ALL_IDS = range(1, len(ROWS) + 1)


@pytest.fixture
def index_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with a sealed segment and some vectors in the catalog."""
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", SEALED)
    store = new_store(tmp_path / "index", DIM)
    puts = [put(key, row, product_id=key) for key, row in BY_KEY.items()]
    store.commit(Changes(puts=puts[:SEALED]))
    store.commit(Changes(puts=puts[SEALED:]))
    store.close()
    return store.index_dir


@pytest.fixture
def segment(index_dir: Path) -> Path:
    (path,) = (index_dir / "segments").iterdir()
    return path


def vectors_start(segment: Path) -> int:
    return segment.read_bytes().index(ROWS[0].astype("<f2").tobytes())


def flip_vector(segment: Path, row: int) -> None:
    flip(segment, vectors_start(segment) + row * 2 * DIM + 5)


def renew(store: IndexStore) -> list[str]:
    """Embed the lost pictures again."""
    lost = {picture.id: picture.key for picture in store.pictures_without_vector()}
    store.commit(Changes(renewals={id_: BY_KEY[key] for id_, key in lost.items()}))
    return sorted(lost.values())


def assert_whole_again(index_dir: Path) -> None:
    found = verify(index_dir)
    assert (found.problems, found.lost, found.images) == ([], [], len(ROWS))
    store = IndexStore(index_dir)
    assert min(own_scores(store, BY_KEY).values()) > 0.999
    assert all(picture.attributes.product_id == key for key, picture in pictures_found(store).items())
    store.close()


def test_a_healthy_index_is_whole(index_dir: Path) -> None:
    assert verify(index_dir).to_dict() == {
        "ok": True,
        "generation": 2,
        "images": len(ROWS),
        "problems": [],
        "orphans": [],
    }


def test_an_empty_index_is_whole(tmp_path: Path) -> None:
    new_store(tmp_path / "index").close()
    assert verify(tmp_path / "index").is_whole


def test_where_there_is_no_index_there_is_none_to_verify(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFound, match=f"no index at {tmp_path}; make one with"):
        verify(tmp_path)


def test_repairing_a_healthy_index_changes_nothing(index_dir: Path, segment: Path) -> None:
    before = segment.read_bytes(), query_catalog(index_dir, "SELECT * FROM embeddings")
    salvage(index_dir)
    assert (segment.read_bytes(), query_catalog(index_dir, "SELECT * FROM embeddings")) == before


def test_an_altered_vector_of_a_segment_is_named(index_dir: Path, segment: Path) -> None:
    flip_vector(segment, row=4)
    found = verify(index_dir)
    assert found.lost == [5]
    assert found.problems == [f"segments/{segment.name} differs from its checksum", "1 pictures have no intact vector"]


def test_an_altered_vector_of_the_catalog_is_named(index_dir: Path) -> None:
    query_catalog(index_dir, "UPDATE embeddings SET vector = zeroblob(16) WHERE picture_id = ?", SEALED + 2)
    found = verify(index_dir)
    assert (found.lost, found.problems) == ([SEALED + 2], ["1 pictures have no intact vector"])


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_vector_beside_the_live_space_is_dropped_by_a_repair_and_embedded_when_it_is_needed(
    index_dir: Path, is_sealed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", len(ROWS) if is_sealed else 1000)
    store = IndexStore(index_dir)
    space = store.open_space(model_name="other", model_fingerprint="g", dim=DIM)
    store.fill(space, {each.id: BY_KEY[each.key] for each in store.pictures_without_vector(space)})
    if is_sealed:
        query = "SELECT file FROM segments WHERE space_id = ?"
        flip_vector(index_dir / "segments" / query_catalog(index_dir, query, space.id)[0][0], 3)
    else:
        altered = "UPDATE embeddings SET vector = zeroblob(2 * ?) WHERE picture_id = 4 AND space_id = ?"
        query_catalog(index_dir, altered, DIM, space.id)

    found = verify(index_dir)
    assert found.lost == []
    assert "1 vectors of models that are not the live one are altered" in found.problems

    salvage(index_dir)
    assert_whole_again(index_dir)
    assert [each.id for each in store.pictures_without_vector(space)] == [4]
    store.close()


def test_the_altered_vector_of_a_removed_picture_is_no_loss(index_dir: Path) -> None:
    store = IndexStore(index_dir)
    store.commit(Changes(removes={f"k{SEALED}": -1}))
    store.close()
    query_catalog(index_dir, "UPDATE embeddings SET vector = zeroblob(16) WHERE picture_id = ?", SEALED + 1)
    assert verify(index_dir).is_whole


def flip_two_vectors(segment: Path) -> None:
    flip_vector(segment, row=11)
    flip_vector(segment, row=0)


def cut_in_the_tenth_vector(segment: Path) -> None:
    os.truncate(segment, vectors_start(segment) + 10 * 2 * DIM + 1)


DAMAGES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "one vector": (lambda segment: flip_vector(segment, row=4), ["k4"]),
    "two vectors": (flip_two_vectors, ["k0", "k11"]),
    "header": (lambda segment: flip(segment, 4), []),
    "ids": (lambda segment: flip(segment, -3), []),
    "cut": (cut_in_the_tenth_vector, ["k10", "k11"]),
    "empty": (lambda segment: os.truncate(segment, 0), [f"k{i}" for i in range(SEALED)]),
    "missing": (Path.unlink, [f"k{i}" for i in range(SEALED)]),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "lost"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_repair_keeps_every_intact_vector_and_names_the_others(
    index_dir: Path, segment: Path, damage: Callable[[Path], None], lost: list[str]
) -> None:
    damage(segment)
    assert [f"k{id_ - 1}" for id_ in verify(index_dir).lost] == sorted(lost, key=lambda key: int(key[1:]))
    salvage(index_dir)
    store = IndexStore(index_dir)
    assert pictures_found(store).keys() == BY_KEY.keys() - set(lost)
    assert renew(store) == sorted(lost)
    with store.job("verify --repair"):
        pass
    store.close()
    assert_whole_again(index_dir)


@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_an_index_without_all_of_a_segment_is_not_opened(index_dir: Path, segment: Path, damage: str) -> None:
    DAMAGES[damage][0](segment)
    with pytest.raises(IndexDamaged, match=rf"segment {segment} .*; run `retrieve verify --repair`"):
        IndexStore(index_dir)


def test_a_wrong_byte_anywhere_around_the_vectors_is_met_at_opening(index_dir: Path, segment: Path) -> None:
    ((*row,),) = query_catalog(index_dir, "SELECT file, rows, size_bytes, sha256, frame_checksum FROM segments")
    whole, start = segment.read_bytes(), vectors_start(segment)
    for at in (*range(start), *range(start + SEALED * 2 * DIM, len(whole))):
        segment.write_bytes(whole)
        flip(segment, at, mask=1)
        with pytest.raises(IndexDamaged, match="differs from its checksum; run `retrieve verify --repair`"):
            Segment(index_dir, 1, SealedFile(*row))


def test_raw_rows_are_the_vectors_that_were_written(index_dir: Path, segment: Path) -> None:
    raw = read_raw_rows(index_dir, segment.name, DIM)[:SEALED]
    assert raw == [row.astype("<f2").tobytes() for row in ROWS[:SEALED]]


@pytest.mark.parametrize("column", ["rows", "size_bytes"])
def test_a_segment_that_is_not_as_the_catalog_says_is_repaired(index_dir: Path, column: str) -> None:
    query_catalog(index_dir, f"UPDATE segments SET {column} = {column} + 1")
    with pytest.raises(IndexDamaged, match="--repair"):
        IndexStore(index_dir)
    assert "differs from what the catalog says of it" in verify(index_dir).problems[0]
    salvage(index_dir)
    assert_whole_again(index_dir)


@pytest.mark.parametrize("vector", ["zeroblob(16)", "zeroblob(3)", "NULL"], ids=["altered", "cut", "gone"])
def test_a_damaged_vector_in_the_catalog_is_embedded_again(index_dir: Path, vector: str) -> None:
    query_catalog(index_dir, f"UPDATE embeddings SET vector = {vector} WHERE picture_id = ?", SEALED + 1)
    assert verify(index_dir).lost == [SEALED + 1]
    salvage(index_dir)
    store = IndexStore(index_dir)
    assert renew(store) == [f"k{SEALED}"]
    store.close()
    assert_whole_again(index_dir)


@pytest.mark.parametrize("vector", ["zeroblob(3)", "NULL"], ids=["cut", "gone"])
def test_an_index_with_a_cut_vector_in_the_catalog_is_not_opened(index_dir: Path, vector: str) -> None:
    query_catalog(index_dir, f"UPDATE embeddings SET vector = {vector} WHERE picture_id = ?", SEALED + 1)
    with pytest.raises(IndexDamaged, match=r"1 pictures .* cut short; run `retrieve verify --repair`"):
        IndexStore(index_dir)


def test_until_they_are_embedded_again_lost_pictures_are_named(index_dir: Path, segment: Path) -> None:
    flip_vector(segment, row=4)
    salvage(index_dir)
    found = verify(index_dir)
    assert (found.lost, found.problems) == ([5], ["1 pictures have no intact vector"])


def test_lost_pictures_that_are_removed_leave_a_whole_index(index_dir: Path, segment: Path) -> None:
    segment.unlink()
    salvage(index_dir)
    store = IndexStore(index_dir)
    store.commit(Changes(removes={picture.key: picture.id for picture in store.pictures_without_vector()}))
    store.close()
    found = verify(index_dir)
    assert (found.problems, found.images) == ([], UNSEALED)


def test_a_reader_across_a_repair_and_a_sealing_finds_each_picture_once(index_dir: Path, segment: Path) -> None:
    reader = IndexStore(index_dir)
    assert len(reader.snapshot.segments) == 1
    flip(segment, -3)
    salvage(index_dir)
    writer = IndexStore(index_dir)
    writer.commit(Changes(removes={"k0": -1}))  # seals what the repair has put back into the catalog
    assert len(writer.snapshot.segments) == 1
    reader.refresh()
    assert pictures_found(reader).keys() == pictures_found(writer).keys() == BY_KEY.keys() - {"k0"}
    reader.close()
    writer.close()


def test_orphans_are_reported_and_are_no_damage(index_dir: Path) -> None:
    (index_dir / "segments" / "stray.faiss").write_bytes(b"x")
    (index_dir / "pictures" / "ab").mkdir(parents=True)
    (index_dir / "pictures" / "ab" / "stray").write_bytes(b"x")
    found = verify(index_dir)
    assert found.is_whole
    assert found.orphans == ["segments/stray.faiss", "pictures/ab/stray"]


@pytest.fixture
def kept_picture(index_dir: Path) -> Path:
    store = IndexStore(index_dir)
    path = store.keep(b"bytes of a picture")
    store.commit(Changes(puts=[put("mine", ROWS[0], path=path)]))
    store.close()
    return index_dir / path


def test_a_kept_picture_that_is_whole_is_no_problem(index_dir: Path, kept_picture: Path) -> None:
    found = verify(index_dir)
    assert (found.problems, found.orphans) == ([], [])


@pytest.mark.parametrize(
    ("damage", "says"),
    [(Path.unlink, "is missing"), (lambda path: flip(path, 3), "differs from its checksum")],
    ids=["missing", "altered"],
)
def test_a_damaged_kept_picture_is_named_with_its_key(
    index_dir: Path, kept_picture: Path, damage: Callable[[Path], None], says: str
) -> None:
    damage(kept_picture)
    name = kept_picture.relative_to(index_dir)
    remedy = "upsert the picture again, or remove the key"
    assert verify(index_dir).problems == [f"{name}, the kept picture of 'mine', {says}; {remedy}"]


PAGE_BYTES = 4096


def overwrite_page(index_dir: Path, table: str) -> None:
    """Overwrite the first page of one table."""
    ((number,),) = query_catalog(index_dir, "SELECT rootpage FROM sqlite_master WHERE name = ?", table)
    with (index_dir / "catalog.sqlite").open("rb+") as file:
        file.seek(PAGE_BYTES * (number - 1))
        file.write(b"\xa5" * PAGE_BYTES)


def test_damage_to_the_catalog_that_opening_does_not_meet_is_found(index_dir: Path) -> None:
    overwrite_page(index_dir, "attributes")
    IndexStore(index_dir).close()
    found = verify(index_dir)
    assert not found.is_whole
    assert all(problem.startswith("catalog: ") and "\n" not in problem for problem in found.problems)


@pytest.mark.parametrize("use", [IndexStore, verify, salvage])
def test_a_catalog_damaged_throughout_is_refused_with_the_remedy(
    index_dir: Path, use: Callable[[Path], object]
) -> None:
    catalog = index_dir / "catalog.sqlite"
    content = catalog.read_bytes()
    catalog.write_bytes(content[:PAGE_BYTES] + b"\xa5" * (len(content) - PAGE_BYTES))
    with pytest.raises(IndexDamaged, match=r"its catalog cannot be read .* restore it from a `retrieve backup`"):
        use(index_dir)


def test_a_damaged_catalog_is_not_written_to_by_a_repair(index_dir: Path) -> None:
    overwrite_page(index_dir, "attributes")
    before = (index_dir / "catalog.sqlite").read_bytes()
    with pytest.raises(IndexDamaged, match="restore it from a `retrieve backup`"):
        salvage(index_dir)
    assert (index_dir / "catalog.sqlite").read_bytes() == before


def test_a_catalog_whose_header_is_overwritten_is_damaged(index_dir: Path) -> None:
    flip(index_dir / "catalog.sqlite", 0)
    with pytest.raises(IndexDamaged, match="file is not a database"):
        verify(index_dir)


def test_a_row_that_names_what_is_not_there_is_a_problem(index_dir: Path) -> None:
    query_catalog(index_dir, "UPDATE pictures SET source_id = 99 WHERE id = 1")
    assert verify(index_dir).problems == ["catalog: pictures: a row names what is not there"]


def test_a_catalog_without_a_generation_is_damaged(index_dir: Path) -> None:
    query_catalog(index_dir, "DELETE FROM generations")
    for use in (IndexStore, verify):
        with pytest.raises(IndexDamaged, match="names no generation; restore"):
            use(index_dir)


def test_writers_go_on_while_a_repair_reads_the_files(
    index_dir: Path, segment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.catalog, "BUSY_TIMEOUT_S", 0.1)
    store = IndexStore(index_dir)
    flip_vector(segment, row=4)

    def hashed(path: Path) -> str:
        store.commit(Changes(attributes={"k0": Attributes("k0")}))
        return sha256_of(path)

    monkeypatch.setattr(indexer.integrity, "sha256_of", hashed)
    salvage(index_dir)
    monkeypatch.undo()
    assert renew(store) == ["k4"]
    store.close()
    assert_whole_again(index_dir)


def test_a_segment_with_vectors_that_the_catalog_lacks_is_damaged_and_goes(index_dir: Path, segment: Path) -> None:
    columns = "space_id, file, rows, size_bytes, sha256, frame_checksum"
    query_catalog(index_dir, f"INSERT INTO segments ({columns}) SELECT {columns} FROM segments")
    assert verify(index_dir).problems == [f"segments/{segment.name} has {SEALED} vectors, 0 in the catalog"]
    salvage(index_dir)
    assert_whole_again(index_dir)


def test_readers_and_writers_go_on_during_a_verification(index_dir: Path) -> None:
    store = IndexStore(index_dir)
    store.commit(Changes(puts=[put("new", ROWS[0])]))
    assert verify(index_dir).generation == 3
    store.commit(Changes(removes={"new": -1}))
    assert verify(index_dir).generation == 4
    store.close()
