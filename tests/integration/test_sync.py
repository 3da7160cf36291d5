"""A sync makes the index equal to the gallery, and never deletes a catalogue by mistake."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from commands import RETRIEVE
from indexer.errors import IndexBusy
from indexer.integrity import verify
from indexer.locks import job_lock
from retrieval.embedder import Embedder
from retrieval.engine import SearchEngine
from retrieval.errors import GalleryError, RemovalsRefused
from retrieval.sync import Progress
from retrieval.sync.plan import RACY_MTIME_NS

APPLE, BANANA = "apple/noto.png", "banana/noto.png"


def keys_in(engine: SearchEngine) -> set[str]:
    everything = engine.search_vectors(np.eye(1, engine.info().model.dim, dtype=np.float32), k=1000)[0]
    return {hit.key for hit in everything.hits}


def nearest_key(engine: SearchEngine, picture: Path) -> str:
    return engine.search(picture, k=1).hits[0].key


def set_age(path: Path, seconds: float) -> None:
    then_s = time.time() - seconds
    os.utime(path, (then_s, then_s))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for each time that a sync asks for an encoder, that is, has something to look into."""
    asked: list[bool] = []
    original = Embedder.encoder.fget
    assert original is not None

    def asking(embedder: Embedder) -> object:
        asked.append(True)
        return original(embedder)

    monkeypatch.setattr(Embedder, "encoder", property(asking))
    return asked


def test_a_first_sync_adds_every_picture(engine: SearchEngine, gallery: Path) -> None:
    report = engine.sync(gallery)
    assert (report.added, report.updated, report.removed, report.unchanged) == (12, 0, 0, 0)
    assert report.skipped == []
    assert engine.info().images == 12
    assert report.images_per_second > 0


def test_an_indexed_picture_is_found_with_score_one(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    hit = engine.search(gallery / APPLE, k=1).hits[0]
    assert (hit.key, hit.path) == (APPLE, gallery / APPLE)
    assert hit.score == pytest.approx(1.0, abs=5e-4)


def test_an_unchanged_gallery_is_not_looked_into(engine: SearchEngine, gallery: Path, encoded: list[bool]) -> None:
    engine.sync(gallery)
    encoded.clear()
    report = engine.sync(gallery)
    assert report.unchanged == 12
    assert encoded == []


def test_an_unchanged_gallery_makes_no_generation(engine: SearchEngine, gallery: Path) -> None:
    before = engine.sync(gallery).generation
    assert engine.sync(gallery).generation == before


def test_new_changed_and_vanished_pictures_are_followed(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    shutil.copy(gallery / "car/noto.png", gallery / "a new car.png")
    shutil.copy(gallery / "camera/noto.png", gallery / APPLE)
    (gallery / BANANA).unlink()
    report = engine.sync(gallery)
    assert (report.added, report.updated, report.removed, report.unchanged) == (1, 1, 1, 10)
    assert BANANA not in keys_in(engine)
    assert nearest_key(engine, gallery / "camera/noto.png") in (APPLE, "camera/noto.png")


def test_a_touched_picture_with_the_same_bytes_keeps_its_vector(engine: SearchEngine, gallery: Path) -> None:
    before = engine.sync(gallery).generation
    set_age(gallery / APPLE, 50)
    report = engine.sync(gallery)
    assert (report.updated, report.unchanged, report.generation) == (0, 12, before)


def test_a_touched_picture_is_read_once_and_then_known(
    engine: SearchEngine, gallery: Path, encoded: list[bool]
) -> None:
    engine.sync(gallery)
    set_age(gallery / APPLE, 50)
    engine.sync(gallery)
    encoded.clear()
    engine.sync(gallery)
    assert encoded == []


def test_a_change_within_the_clocks_grain_of_the_scan_is_seen(engine: SearchEngine, gallery: Path) -> None:
    """Same size, same mtime, other bytes: only a recent mtime makes the sync read the file again."""
    swapped = (gallery / APPLE).read_bytes()
    set_age(gallery / APPLE, RACY_MTIME_NS / 1e9 / 2)
    times = (gallery / APPLE).stat()
    engine.sync(gallery)
    (gallery / APPLE).write_bytes(bytes(reversed(swapped)))  # no picture any more
    os.utime(gallery / APPLE, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert engine.sync(gallery).stale == [APPLE]


def test_several_galleries_live_in_one_index(engine: SearchEngine, gallery: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.move(gallery / "car", other / "car")
    engine.sync(gallery)
    engine.sync(other)
    assert engine.info().images == 12
    assert engine.sync(gallery).removed == 0
    assert engine.search(other / "car/noto.png", k=1).hits[0].path == other / "car/noto.png"


def test_a_key_of_another_gallery_is_set_aside_with_the_remedy(
    engine: SearchEngine, gallery: Path, tmp_path: Path
) -> None:
    engine.sync(gallery)
    other = tmp_path / "other"
    shutil.copytree(gallery, other)
    report = engine.sync(other)
    assert report.added == 0
    assert len(report.skipped) == 12
    assert "--key-prefix" in report.skipped[0].reason
    assert not engine.sync(other).has_new_skips
    prefixed = engine.sync(other, key_prefix="other/")
    assert prefixed.added == 12
    hits = engine.search(other / APPLE, k=2).hits
    assert {(hit.key, hit.path) for hit in hits} == {(APPLE, gallery / APPLE), (f"other/{APPLE}", other / APPLE)}


def test_the_key_prefix_of_a_gallery_is_remembered(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery, key_prefix="fruit/")
    report = engine.sync(gallery)
    assert (report.unchanged, report.removed) == (12, 0)


def test_the_key_prefix_of_indexed_pictures_cannot_change(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery, key_prefix="fruit/")
    with pytest.raises(GalleryError, match=r"begin with 'fruit/'"):
        engine.sync(gallery, key_prefix="other/")


def test_an_upserted_picture_is_never_touched_by_a_sync(engine: SearchEngine, gallery: Path) -> None:
    engine.upsert("extra", gallery / APPLE)
    engine.upsert(APPLE, gallery / "car/noto.png")
    report = engine.sync(gallery)
    assert report.removed == 0
    assert [skip.key for skip in report.skipped] == [APPLE]
    assert keys_in(engine) >= {"extra", APPLE}
    assert engine.search(gallery / "car/noto.png", k=2).hits[1].key in (APPLE, "car/noto.png")


def test_a_gallery_that_lost_more_than_a_fifth_is_refused_with_the_counts(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    before = engine.generation
    for thing in ("apple", "banana"):
        shutil.rmtree(gallery / thing)
    with pytest.raises(RemovalsRefused, match=r"4 of the 12 .*--allow-removals"):
        engine.sync(gallery)
    assert (engine.generation, engine.info().images) == (before, 12)
    assert engine.sync(gallery, allow_removals=True).removed == 4


def test_up_to_a_fifth_vanishes_without_a_question(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    shutil.rmtree(gallery / "apple")
    assert engine.sync(gallery).removed == 2


def test_an_emptied_gallery_is_refused(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    shutil.rmtree(gallery)
    gallery.mkdir()
    with pytest.raises(RemovalsRefused, match="12 of the 12"):
        engine.sync(gallery)
    assert engine.info().images == 12


def test_an_empty_new_gallery_is_refused(engine: SearchEngine, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(GalleryError, match="no pictures"):
        engine.sync(tmp_path / "nothing")


def test_a_mistyped_gallery_is_refused(engine: SearchEngine, tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="galery"):
        engine.sync(tmp_path / "galery")


def test_no_remove_keeps_what_vanished(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    (gallery / APPLE).unlink()
    assert engine.sync(gallery, remove=False).removed == 0
    assert APPLE in keys_in(engine)


def test_an_undecodable_picture_is_remembered_until_it_changes(engine: SearchEngine, gallery: Path) -> None:
    (gallery / "bad.jpg").write_text("no picture")
    set_age(gallery / "bad.jpg", 50)
    first = engine.sync(gallery)
    assert [(skip.key, skip.known) for skip in first.skipped] == [("bad.jpg", False)]
    assert first.added == 12
    second = engine.sync(gallery)
    assert [(skip.key, skip.known, skip.reason) for skip in second.skipped] == [
        ("bad.jpg", True, first.skipped[0].reason)
    ]
    shutil.copy(gallery / APPLE, gallery / "bad.jpg")
    third = engine.sync(gallery)
    assert (third.added, third.skipped) == (1, [])


def test_a_known_bad_picture_that_vanishes_is_forgotten(engine: SearchEngine, gallery: Path) -> None:
    (gallery / "bad.jpg").write_text("no picture")
    engine.sync(gallery)
    (gallery / "bad.jpg").unlink()
    assert engine.sync(gallery).skipped == []


def test_a_replaced_picture_that_no_longer_decodes_keeps_its_vector(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    original = gallery.parent / "original.png"
    shutil.move(gallery / APPLE, original)
    (gallery / APPLE).write_bytes(original.read_bytes()[:200])
    first, second = engine.sync(gallery), engine.sync(gallery)
    assert first.stale == second.stale == [APPLE]
    assert first.has_new_skips
    assert not second.has_new_skips
    assert nearest_key(engine, original) == APPLE
    shutil.move(original, gallery / APPLE)
    assert engine.sync(gallery).stale == []


def test_a_broken_link_is_tried_again_at_every_run(engine: SearchEngine, gallery: Path) -> None:
    (gallery / "link.png").symlink_to(gallery.parent / "later.png")
    assert engine.sync(gallery).has_new_skips
    assert engine.sync(gallery).has_new_skips
    shutil.copy(gallery / APPLE, gallery.parent / "later.png")
    assert engine.sync(gallery).added == 1


def test_an_indexed_picture_that_becomes_a_broken_link_is_stale_not_vanished(
    engine: SearchEngine, gallery: Path
) -> None:
    engine.sync(gallery)
    (gallery / APPLE).unlink()
    (gallery / APPLE).symlink_to(gallery / "nowhere.png")
    report = engine.sync(gallery)
    assert (report.stale, report.removed) == ([APPLE], 0)


def test_a_manifest_brings_attributes_and_follows_their_changes(
    engine: SearchEngine, gallery: Path, encoded: list[bool]
) -> None:
    manifest = gallery / "shop.csv"
    manifest.write_text(f"path,key,product_id,price\n{APPLE},one,A,1.5\n{BANANA},two,B,2\n")
    assert engine.sync(manifest).added == 2
    hit = engine.search(gallery / APPLE, k=1).hits[0]
    assert (hit.key, hit.product_id, hit.metadata, hit.path) == ("one", "A", {"price": 1.5}, gallery / APPLE)
    assert engine.info().products == 2
    encoded.clear()
    manifest.write_text(f"path,key,product_id,price\n{APPLE},one,A,9\n{BANANA},two,B,2\n")
    report = engine.sync(manifest)
    assert (report.updated, report.unchanged, encoded) == (1, 1, [])
    assert engine.search(gallery / APPLE, k=1).hits[0].metadata == {"price": 9}


def test_a_changed_box_is_embedded_anew(engine: SearchEngine, gallery: Path) -> None:
    manifest = gallery / "shop.csv"
    manifest.write_text(f'path,box\n{APPLE},"0,0,20,20"\n')
    engine.sync(manifest)
    whole = engine.search(gallery / APPLE, k=1).hits[0].score
    manifest.write_text(f"path,box\n{APPLE},\n")
    assert engine.sync(manifest).updated == 1
    assert engine.search(gallery / APPLE, k=1).hits[0].score > whole


def test_the_same_picture_under_two_keys_is_two_pictures(engine: SearchEngine, gallery: Path) -> None:
    shutil.copy(gallery / APPLE, gallery / "twin.png")
    engine.sync(gallery)
    hits = engine.search(gallery / APPLE, k=2).hits
    assert {hit.key for hit in hits} == {APPLE, "twin.png"}
    assert hits[0].score == pytest.approx(hits[1].score, abs=1e-4)


def test_a_second_job_is_refused_by_name_and_upserts_go_on(engine: SearchEngine, gallery: Path) -> None:
    with job_lock(engine.index_dir, "refresh"):
        with pytest.raises(IndexBusy, match="`retrieve refresh` runs as process"):
            engine.sync(gallery)
        engine.upsert("meanwhile", gallery / APPLE)
    assert keys_in(engine) == {"meanwhile"}


def test_an_upsert_during_a_sync_wins(engine: SearchEngine, gallery: Path) -> None:
    """The sync has planned to add the key; before it commits, somebody upserts it."""

    def upsert_once(progress: Progress) -> None:
        if progress.done == 1:
            engine.upsert(APPLE, gallery / "car/noto.png", product_id="mine")

    report = engine.sync(gallery, on_progress=upsert_once)
    assert report.added == 11
    by_key = {hit.key: hit for hit in engine.search(gallery / "car/noto.png", k=12).hits}
    assert by_key[APPLE].product_id == "mine"
    assert by_key[APPLE].score == pytest.approx(1.0, abs=5e-4)


def test_an_upsert_wins_over_what_a_manifest_says_anew(engine: SearchEngine, gallery: Path) -> None:
    """The sync has planned to describe the key anew; before it commits, somebody upserts it."""
    manifest = gallery / "shop.csv"
    manifest.write_text(f"path,key,product_id\n{APPLE},one,A\n")
    engine.sync(manifest)
    manifest.write_text(f"path,key,product_id\n{APPLE},one,B\n{BANANA},two,C\n")

    def upsert(progress: Progress) -> None:
        engine.upsert("one", gallery / BANANA, product_id="mine")

    engine.sync(manifest, on_progress=upsert)
    assert (engine.picture("one").product_id, engine.picture("two").product_id) == ("mine", "C")


def test_a_picture_removed_during_a_sync_stays_removed_until_the_next(engine: SearchEngine, gallery: Path) -> None:
    engine.sync(gallery)
    shutil.copy(gallery / "car/noto.png", gallery / APPLE)

    report = engine.sync(gallery, on_progress=lambda progress: engine.remove(APPLE) and None)
    assert (report.updated, APPLE in keys_in(engine)) == (0, False)
    assert engine.sync(gallery).added == 1


def test_ctrl_c_commits_what_is_done_and_the_next_run_goes_on(engine: SearchEngine, demo_gallery: Path) -> None:
    def stop_halfway(progress: Progress) -> None:
        if progress.done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.sync(demo_gallery, on_progress=stop_halfway)
    assert engine.info().images == 40
    assert verify(engine.index_dir).is_whole
    assert engine.sync(demo_gallery).added == 60


def test_a_failure_in_the_middle_commits_what_is_done(engine: SearchEngine, demo_gallery: Path) -> None:
    def fail_halfway(progress: Progress) -> None:
        if progress.done == 40:
            raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        engine.sync(demo_gallery, on_progress=fail_halfway)
    assert engine.info().images == 40


def test_the_index_itself_is_never_taken_for_a_gallery(tmp_path: Path, gallery: Path) -> None:
    with SearchEngine.create(gallery / "the index", model="efficientnet_lite0") as engine:
        engine.upsert("kept", (gallery / APPLE).read_bytes())
        engine.sync(gallery)
        assert engine.sync(gallery).unchanged == 12


def test_a_folder_that_is_synced_through_a_relative_path_is_the_same_source(
    engine: SearchEngine, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.sync(gallery)
    monkeypatch.chdir(gallery.parent)
    assert engine.sync("gallery").unchanged == 12


def test_two_syncs_at_once_leave_one_whole_index(tmp_path: Path, gallery: Path) -> None:
    SearchEngine.create(tmp_path / "index", model="efficientnet_lite0").close()
    command = [*RETRIEVE, "index", str(gallery), "--index", str(tmp_path / "index")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=120)[1].decode() for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 0], [0, 1]), said
    assert codes == [0, 0] or "is busy" in "".join(said)
    with SearchEngine.open(tmp_path / "index") as engine:
        assert engine.info().images == 12
