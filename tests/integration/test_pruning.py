"""`retrieve prune --removed-for`: an index that is changed for long does not grow for ever."""

import os
import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from commands import assert_one_line, retrieve, retrieve_json
from retrieval.engine import SearchEngine

MODEL = "efficientnet_lite0"
WEEK_NS = 7 * 24 * 3600 * 10**9


@pytest.fixture
def index(tmp_path: Path, demo_gallery: Path) -> Path:
    """A picture that was replaced six times and one that was removed, as it seems two weeks ago; and one of today."""
    pictures = sorted(demo_gallery.glob("*/noto.png"))
    with SearchEngine.create(tmp_path / "index", model=MODEL) as engine:
        for turn in range(7):
            engine.upsert("shoe", pictures[turn].read_bytes(), metadata={"turn": turn})
        engine.upsert("gone", pictures[8].read_bytes())
        engine.remove("gone")
    with closing(sqlite3.connect(tmp_path / "index" / "catalog.sqlite")) as catalog:
        catalog.execute("UPDATE generations SET created_ns = created_ns - ?", (2 * WEEK_NS,))
        catalog.commit()
    for path in (tmp_path / "index" / "pictures").glob("*/*"):
        long_ago_s = time.time() - 2 * WEEK_NS / 1e9
        os.utime(path, (long_ago_s, long_ago_s))
    with SearchEngine.open(tmp_path / "index") as engine:
        engine.upsert("hat", pictures[9].read_bytes())
        engine.remove("hat")
    return tmp_path / "index"


def kept(index: Path) -> int:
    return len([path for path in (index / "pictures").glob("*/*") if path.is_file()])


def test_what_was_removed_long_ago_is_forgotten(index: Path, demo_gallery: Path) -> None:
    assert kept(index) == 9
    before = retrieve_json("query", demo_gallery / "apple" / "noto.png", "--index", index)
    said = retrieve_json("prune", "--removed-for", "1w", "--index", index)
    assert said == {"dropped": [], "forgotten": {"pictures": 7, "versions": 7, "generations": 8}}
    assert kept(index) == 2  # the shoe, and the hat that was taken off a moment ago
    assert retrieve_json("query", demo_gallery / "apple" / "noto.png", "--index", index) == before
    assert retrieve_json("verify", "--index", index)["ok"]
    told = retrieve("prune", "--keep", "1", "--removed-for", "1h", "--index", index)
    assert told.stdout.splitlines() == [
        "no former model to drop",
        "forgot 0 removed pictures, 0 former versions of what was said of pictures, 0 generations",
    ]


def test_from_python_while_a_reader_searches(index: Path, demo_gallery: Path) -> None:
    photo = demo_gallery / "apple" / "noto.png"
    with SearchEngine.open(index) as reader, SearchEngine.open(index) as engine:
        before = reader.search(photo).to_dict()
        assert engine.forget_removed(timedelta(days=7)).pictures == 7
        assert reader.search(photo).to_dict() == before
        reader.refresh()
        assert reader.search(photo).to_dict() == before
        with pytest.raises(ValueError, match=r"^older_than is 0:30:00"):
            engine.forget_removed(timedelta(minutes=30))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to let go of: --keep N, --removed-for AGE, or both"),
        (["--removed-for", "0d"], "'0d' is no age of an hour or more, such as 12h, 30d or 4w"),
        (["--removed-for", "30"], "'30' is no age of an hour or more, such as 12h, 30d or 4w"),
    ],
)
def test_what_is_no_age_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = retrieve("prune", *arguments, "--index", tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    missing = retrieve("prune", "--removed-for", "1d", "--index", tmp_path / "none")
    assert missing.returncode == 1
    assert_one_line(missing.stderr)
