"""Readers, writers and backups at once: small counts here, the full ones marked slow."""

from pathlib import Path

import pytest

from churn import Churn, run
from history import observe
from indexer.integrity import verify
from retrieval.engine import SearchEngine
from upserts import upsert_steadily

MODEL = "efficientnet_lite0"
FULL = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=FULL)])
def test_every_answer_belongs_to_one_generation(tmp_path: Path, demo_gallery: Path, seconds: float) -> None:
    pictures = sorted(tmp_path / path.parent.name for path in demo_gallery.glob("*/noto.png"))[:12]
    for path in pictures:  # each under a name of its own
        path.write_bytes((demo_gallery / path.name / "noto.png").read_bytes())
    work = tmp_path / "work"
    work.mkdir()
    seen = observe(work, pictures, MODEL, seconds)
    assert (seen.errors, seen.wrong) == ([], [])
    assert seen.answers > 10 * seconds
    assert seen.generations_seen > 2 * seconds


@pytest.mark.parametrize(("seconds", "base"), [(2, 2000), pytest.param(120, 100_000, marks=FULL)])
def test_thousands_of_rows_come_and_go_under_readers(tmp_path: Path, seconds: float, base: int) -> None:
    seen = run(tmp_path, Churn(base), seconds, readers=2 if seconds < 10 else 4, recipe="IVF16,SQ8")
    assert (seen.errors, seen.wrong) == ([], [])
    assert seen.answers > 20 * seconds
    assert seen.generations > 3 * seconds
    assert verify(tmp_path / "index").problems == []


@pytest.mark.parametrize(("seconds", "backups"), [(5, 2), pytest.param(300, 20, marks=FULL)])
def test_upserts_are_sustained_and_backups_whole(
    tmp_path: Path, demo_gallery: Path, seconds: float, backups: int
) -> None:
    with SearchEngine.create(tmp_path / "index", model=MODEL) as engine:
        engine.sync(demo_gallery)
    pictures = sorted(demo_gallery.glob("*/noto.png"))
    load = upsert_steadily(tmp_path / "index", pictures, tmp_path, rate=20, seconds=seconds, backups=backups)
    assert load.upserts == 20 * seconds
    assert (load.backups, load.bad_backups) == (backups, [])
    assert load.files_after <= load.files_before + 5  # logs and locks, and a segment for every 4,096 upserts
    with SearchEngine.open(tmp_path / "index") as engine:
        assert engine.info().images == 100 + load.upserts
