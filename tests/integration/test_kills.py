"""An indexing run that is killed leaves a whole index, and the next run goes on where it was."""

import shutil
from pathlib import Path

import pytest

from indexer.integrity import verify
from kills import contents, kill_and_rerun
from retrieval.engine import SearchEngine

MODEL = "efficientnet_lite0"


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_killed_runs_end_as_an_uninterrupted_one(tmp_path: Path, demo_gallery: Path, kills: int) -> None:
    gallery = tmp_path / "gallery"
    for number in range(15):
        shutil.copytree(demo_gallery, gallery / str(number))
    with SearchEngine.create(tmp_path / "uninterrupted", model=MODEL) as engine:
        engine.sync(gallery)
    seen, index = kill_and_rerun(gallery, tmp_path, MODEL, kills, seed=kills)
    assert seen.problems == []
    assert seen.encoded_again == 0
    assert len(seen.committed) == kills
    assert min(seen.committed) > 0
    assert verify(index).is_whole
    assert contents(index) == contents(tmp_path / "uninterrupted")
