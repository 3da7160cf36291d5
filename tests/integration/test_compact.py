"""The files of an index become one, and it is searched as asked for: by library and command."""

from pathlib import Path

import pytest

import indexer.compaction
import indexer.sealing
from commands import retrieve, retrieve_json
from indexer.errors import RecipeError
from indexer.store import IndexStore
from retrieval.engine import SearchEngine

MODEL = "efficientnet_lite0"
APPLE = "apple/noto.png"


@pytest.fixture
def index(engine: SearchEngine, demo_gallery: Path) -> Path:
    """An index of a hundred pictures, none of them in a segment."""
    engine.sync(demo_gallery)
    return engine.index_dir


def keys(engine: SearchEngine, picture: Path) -> list[str]:
    return [hit.key for hit in engine.search(picture, k=5).hits]


def test_another_recipe_gives_the_same_answers(index: Path, engine: SearchEngine, demo_gallery: Path) -> None:
    before = keys(engine, demo_gallery / APPLE)
    for recipe in ("SQ8", "PCA32,IVF2,SQ8", "exact"):
        done = engine.compact(recipe=recipe, recall=0.9, memory="1GB")
        assert done is not None
        assert (done.recipe, done.images) == (recipe, 100)
        info = engine.info()
        assert (info.recipe, info.segments) == (recipe, 1)
        assert info.ann_recall_at_10 == done.ann_recall_at_10 >= 0.9
        assert keys(engine, demo_gallery / APPLE) == before
    assert engine.compact() is None


def test_what_is_asked_for_is_kept(engine: SearchEngine, demo_gallery: Path) -> None:
    engine.sync(demo_gallery)
    engine.compact(recipe="SQ8", recall=0.9)
    engine.remove([APPLE])
    done = engine.compact(memory=10**9)
    assert done is not None
    assert (done.recipe, done.dropped) == ("SQ8", 1)
    assert IndexStore(engine.index_dir).settings() == indexer.settings.SearchSettings("SQ8", 0.9, 10**9)


def test_wrong_recipes_leave_the_index_as_it_is(engine: SearchEngine, demo_gallery: Path) -> None:
    engine.sync(demo_gallery)
    before = keys(engine, demo_gallery / APPLE)
    for wrong in ({"recipe": "nonsense"}, {"recall": 1.5}, {"memory": "much"}, {"recipe": "IVF4096,SQ8"}):
        with pytest.raises(RecipeError):
            engine.compact(**wrong)  # type: ignore[arg-type]
    assert IndexStore(engine.index_dir).settings() == indexer.settings.SearchSettings()
    assert keys(engine, demo_gallery / APPLE) == before


def test_a_sync_compacts_where_it_is_worth_it(
    engine: SearchEngine, demo_gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.sealing, "SEAL_ROWS", 1)
    monkeypatch.setattr(indexer.compaction, "_DUE_SEGMENTS", 1)
    engine.sync(demo_gallery / "apple")
    assert engine.info().segments == 1
    for number, path in enumerate(sorted(demo_gallery.glob("[b-g]*/*.png"))):
        engine.upsert(f"new {number}", path)
    assert engine.info().segments > 10
    engine.sync(demo_gallery / "apple")
    assert engine.info().segments == 1


def test_the_commands(index: Path, demo_gallery: Path) -> None:
    def info() -> tuple[str, int]:
        said = retrieve_json("info", "--index", index)
        return said["recipe"], said["segments"]

    assert info() == ("exact", 0)
    said = retrieve_json("compact", "--index", index)["compacted"]
    assert (said["segments"], said["images"], said["recipe"]) == (0, 100, "exact")
    assert retrieve_json("compact", "--index", index) == {"compacted": None}
    assert info() == ("exact", 1)
    said = retrieve_json("rebuild", "--recipe", "SQ8", "--recall", "0.9", "--index", index)["compacted"]
    assert list(said) == [
        *("segments", "images", "dropped", "recipe", "reason", "ann_recall_at_10", "memory_bytes", "seconds"),
    ]
    assert info() == ("SQ8", 1)
    done = retrieve("rebuild", "--recipe", "IVF2,SQ8", "--index", index)
    assert done.stdout.startswith("100 pictures in one segment, before in 1, 0 removed ones dropped in ")
    assert retrieve("index", demo_gallery, "--recipe", "exact", "--index", index).returncode == 0
    assert info() == ("exact", 1)
    assert "nothing to do" in retrieve("compact", "--index", index).stdout
    assert "ok: 100 pictures" in retrieve("verify", "--index", index).stdout


def test_a_recipe_that_can_never_be_is_refused_before_a_picture_is_looked_at(gallery: Path, tmp_path: Path) -> None:
    index = tmp_path / "new"
    done = retrieve("index", gallery, "--model", MODEL, "--recipe", "nonsense", "--index", index)
    assert (done.returncode, "nonsense" in done.stderr) == (1, True), done.stderr
    assert retrieve_json("info", "--index", index)["images"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        ((), 2, "--recipe, --recall or --memory"),
        (("--recipe", "nonsense"), 1, "'nonsense' is none that FAISS takes for 1280 values"),
        (("--recipe", "IVF4096,SQ8"), 1, "learns from at least 159744 vectors, 100 are there"),
        (("--recall", "1.5"), 2, "--recall"),
        (("--memory", "lots"), 2, "memory 'lots' is no size"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_a_rebuild_refuses(index: Path, arguments: tuple[str, ...], code: int, why: str) -> None:
    done = retrieve("rebuild", *arguments, "--index", index)
    assert (done.returncode, why in done.stderr) == (code, True), done.stderr
    assert code == 2 or len(done.stderr.splitlines()) == 1
