"""What people said of hits comes in from a backend or its logs, and the next refresh learns from it."""

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from commands import assert_one_line, retrieve
from indexer.store import IndexStore
from retrieval.engine import SearchEngine
from retrieval.errors import ManifestError, PictureError, UnknownKey
from retrieval.feedback import record_file
from retrieval.records import Box
from retrieval.refresh import RefreshConfig, refresh, run
from retrieval.results import FeedbackUse
from retrieval.training import train
from training_pictures import quick, things_of, write_views

THINGS = slice(10, 30)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Path:
    """An index of 20 things, six views each, and a folder of other views of them, which customers search with."""
    folder, things = tmp_path_factory.mktemp("made"), things_of(demo_gallery)
    source = write_views(demo_gallery, folder / "source", things[:8], views=4)
    train(quick(source, folder / "model", head_rate=1e-6, backbone_rate=1e-6, validation="none"))
    gallery = write_views(demo_gallery, folder / "gallery", things[THINGS], views=6)
    write_views(demo_gallery, folder / "customers", things[THINGS], views=2, seed=1)
    with SearchEngine.create(folder / "index", model=folder / "model") as engine:
        engine.sync(gallery)
    return folder


@pytest.fixture
def index(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "index", tmp_path / "index"))


@pytest.fixture
def things(demo_gallery: Path) -> list[str]:
    return things_of(demo_gallery)[THINGS]


def said(index: Path) -> list[tuple[str, str, bool, str, str]]:
    with closing(IndexStore(index)) as store:
        return [
            (one.query_path, one.key, one.is_relevant, one.source, one.query_box)
            for one in reversed(store.feedback()[0])
        ]


def test_a_backend_records_paths_and_bytes(index: Path, made: Path, things: list[str]) -> None:
    photo = made / "customers" / things[0] / "0.png"
    with SearchEngine.open(index) as engine:
        engine.record_feedback(photo, f"{things[0]}/1.png", True)
        engine.record_feedback(
            photo.read_bytes(), f"{things[1]}/1.png", False, source="customer 7", box=Box(0, 0, 40, 40)
        )
    (by_path, by_bytes) = said(index)
    assert by_path == (str(photo), f"{things[0]}/1.png", True, "", "")
    assert by_bytes[1:4] == (f"{things[1]}/1.png", False, "customer 7")
    assert json.loads(by_bytes[4]) == [0, 0, 40, 40, False]
    assert Path(by_bytes[0]).is_relative_to(index)
    assert Path(by_bytes[0]).read_bytes() == photo.read_bytes()


def test_unknown_keys_and_what_is_no_picture_are_refused(index: Path, made: Path, things: list[str]) -> None:
    photo = made / "customers" / things[0] / "0.png"
    with SearchEngine.open(index) as engine:
        with pytest.raises(UnknownKey, match="no picture 'nowhere'"):
            engine.record_feedback(photo, "nowhere", True)
        with pytest.raises(PictureError):
            engine.record_feedback(b"no picture", f"{things[0]}/1.png", True)
        with pytest.raises(PictureError, match=r"gone\.png"):
            engine.record_feedback("gone.png", f"{things[0]}/1.png", True)
    assert said(index) == []


def test_a_file_of_judgements_is_recorded_once_however_often(index: Path, made: Path, things: list[str]) -> None:
    log = made / "log.jsonl"
    rows = [
        {"query": f"customers/{things[0]}/0.png", "key": f"{things[0]}/1.png", "relevant": True, "source": 7},
        {"query": f"customers/{things[0]}/0.png", "key": f"{things[1]}/1.png", "relevant": 0, "box": [1, 2, 30, 40]},
        {"query": f"customers/{things[0]}/0.png", "key": "gone", "relevant": True},
        {"query": f"customers/{things[0]}/0.png", "key": "\ud800", "relevant": True},
        {"query": "vanished.png", "key": f"{things[0]}/1.png", "relevant": True},
    ]
    log.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for _ in range(2):
        done = retrieve("feedback", log, "--index", index)
        assert done.returncode == 3
        assert done.stdout == "2 judgements recorded, 3 set aside; `retrieve refresh` learns from them\n"
        skipped = {line.split(":")[0] for line in done.stderr.splitlines()}
        assert skipped == {"skipped gone", "skipped \\ud800", f"skipped {things[0]}/1.png"}
    photo = str(made / "customers" / things[0] / "0.png")
    assert said(index) == [
        (photo, f"{things[0]}/1.png", True, "7", ""),
        (photo, f"{things[1]}/1.png", False, "", "[1, 2, 30, 40, false]"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"query": "a.png", "key": "a"}, "line 2 lacks relevant"),
        ({"query": "a.png", "key": "a", "relevant": "perhaps"}, 'line 2: relevant is "perhaps"'),
        ({"query": "a.png", "key": "a", "relevant": True, "box": [1, 2]}, r"line 2: box is \[1, 2\]"),
        (
            {"query": "a.png", "key": "a", "relevant": True, "box": [0, 0, "1e999", 1]},
            r"line 2: box is \[0, 0, inf, 1\]",
        ),
        ({"query": "a.png", "key": "a", "relevant": True, "box": [0, 0, 10**400, 1]}, r"line 2: box is \[0, 0, 1000"),
        ({"query": "\ud800.png", "key": "a", "relevant": True}, r"line 2: query is .*\\ud800.png', which is not UTF-8"),
        (
            {"query": "a.png", "key": "a", "relevant": 1, "source": "\ud800"},
            r"line 2: source is '\\ud800', which",
        ),
    ],
)
def test_a_line_that_is_not_understood_is_named_and_nothing_is_recorded(
    index: Path, made: Path, things: list[str], row: dict[str, Any], reason: str
) -> None:
    photo = made / "customers" / things[0] / "0.png"
    good = {"query": str(photo), "key": f"{things[0]}/1.png", "relevant": True}
    log = index.parent / "log.jsonl"
    line = json.dumps(row).replace('"1e999"', "1e999")
    log.write_text(f"{json.dumps(good)}\n{line}\n")
    with pytest.raises(ManifestError, match=reason):
        record_file(index, log)
    assert said(index) == []


def test_a_file_that_is_not_there_is_one_line(index: Path) -> None:
    done = retrieve("feedback", index / "nowhere.jsonl", "--index", index)
    assert done.returncode == 1
    assert_one_line(done.stderr)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


class _Seen(Exception):
    """The training would begin now."""


def test_a_refresh_trains_on_what_was_chosen_and_keeps_apart_what_was_rejected(
    index: Path, made: Path, things: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every customer chooses a picture of the thing that was searched with and rejects one of the next."""

    def stop(settings: dict[str, Any], **named: Any) -> None:
        seen.update(settings)
        raise _Seen

    seen: dict[str, Any] = {}
    monkeypatch.setattr(run, "train_apart", stop)
    with SearchEngine.open(index) as engine:
        for thing, other in zip(things, things[1:] + things[:1], strict=True):
            photo = made / "customers" / thing / "0.png"
            engine.record_feedback(photo, f"{thing}/0.png", True)
            engine.record_feedback(photo, f"{other}/0.png", False)
            indexed = made / "gallery" / thing / "1.png"
            engine.record_feedback(indexed, f"{other}/1.png", False)
    with pytest.raises(_Seen):
        refresh(RefreshConfig(index))

    pictures = {part: rows_of(index / "refresh" / f"{part}.jsonl") for part in ("candidate", "refit")}
    photos = {part: [row for row in rows if "customers" in row["path"]] for part, rows in pictures.items()}
    assert {(row["path"], row["product_id"]) for row in photos["refit"]} == {
        (str(made / "customers" / thing / "0.png"), thing) for thing in things
    }
    known = {row["product_id"] for row in pictures["candidate"] if row not in photos["candidate"]}
    assert {row["product_id"] for row in photos["candidate"]} == known < set(things)

    apart = {part: rows_of(index / "refresh" / f"{part}-rejections.jsonl") for part in pictures}
    assert len(apart["refit"]) == 40
    held_out = {row["path"] for row in pictures["refit"]} - {row["path"] for row in pictures["candidate"]}
    queries = {row["path"] for row in apart["refit"]}
    assert queries & held_out
    assert {row["path"] for row in apart["candidate"]} == {
        path for path in queries if "customers" in path or path not in held_out
    }
    assert seen["source"] == str(index / "refresh" / "candidate.jsonl")
    assert seen["rejections"] == str(index / "refresh" / "candidate-rejections.jsonl")


@pytest.mark.slow
def test_a_refresh_says_what_it_learned(index: Path, made: Path, things: list[str]) -> None:
    photos = [made / "customers" / thing / "0.png" for thing in things]
    with SearchEngine.open(index) as engine:
        for thing, photo in zip(things, photos, strict=True):
            engine.record_feedback(photo, f"{thing}/0.png", True, source="eager")
        engine.record_feedback(photos[0], f"{things[1]}/0.png", True, source="mistaken")
        engine.record_feedback(photos[0], f"{things[2]}/0.png", False)
        engine.record_feedback(photos[0], f"{things[3]}/0.png", False)
        engine.remove(f"{things[3]}/0.png")
    options = ("--gate", "recall_at_1 >= 0", "--epochs", "2", "--batch", "8", "4", "--most-per-source", "10")
    done = retrieve("refresh", "--index", index, "--json", *options)
    assert done.returncode == 0, done.stderr
    use = json.loads(done.stdout)["feedback"]
    # Of things[3] both judgements are stale. The newest ten of "eager" count: those of the last ten things; what the
    # photo of the first shows, "mistaken" alone says.
    assert use == FeedbackUse(judgements=21, pictures=11, rejections=1, capped=9, stale=2).to_dict()


@pytest.mark.slow
def test_a_refresh_goes_on_with_the_feedback_that_it_began_with(
    index: Path, made: Path, things: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise _Seen

    settings = {"epochs": 1, "classes_per_batch": 8}
    config = RefreshConfig(index, gate="recall_at_1 >= 0", training=settings)
    with SearchEngine.open(index) as engine:
        engine.record_feedback(made / "customers" / things[0] / "0.png", f"{things[0]}/0.png", True)
        with monkeypatch.context() as patch:
            patch.setattr(run, "train_apart", stop)
            with pytest.raises(_Seen):
                refresh(config)
        engine.record_feedback(made / "customers" / things[1] / "0.png", f"{things[1]}/0.png", True)
    assert refresh(config).feedback == FeedbackUse(judgements=1, pictures=1)
