"""The command line as a user meets it: results, notices, exit codes, one line for each thing that goes wrong."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import PIL.Image
import pytest
from click.testing import CliRunner

from commands import RETRIEVE, retrieve, retrieve_json
from reading_html import Tags
from retrieval.cli import app
from retrieval.engine import SearchEngine

MODEL = "efficientnet_lite0"
APPLE = "apple/noto.png"


@pytest.fixture
def index(tmp_path: Path, gallery: Path) -> Path:
    """An index of the small gallery."""
    with SearchEngine.create(tmp_path / "index", model=MODEL) as engine:
        engine.sync(gallery)
    return tmp_path / "index"


def assert_one_line(message: str) -> None:
    assert len(message.strip().splitlines()) == 1, message
    assert "Traceback" not in message


def test_index_then_query_from_a_folder_below(tmp_path: Path, gallery: Path) -> None:
    """The two commands of the README, with nothing but defaults; the index is found upward, as git does."""
    indexed = retrieve("index", "gallery", "--model", MODEL, cwd=tmp_path)
    assert indexed.returncode == 0, indexed.stderr
    assert indexed.stdout.startswith("12 added, 0 updated, 0 removed, 0 unchanged in ")
    assert (tmp_path / ".retrieve" / "catalog.sqlite").exists()
    asked = retrieve("query", "noto.png", "-k", "2", cwd=gallery / "apple")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.splitlines()[0] == f"1.000  {gallery / APPLE}"
    assert len(asked.stdout.splitlines()) == 2


def test_the_index_can_be_named_by_the_environment(index: Path, gallery: Path, tmp_path: Path) -> None:
    named = {**os.environ, "RETRIEVE_INDEX": str(index)}
    assert retrieve_json("info", cwd=tmp_path, env=named)["images"] == 12


def test_no_index_is_one_line_with_the_remedy(tmp_path: Path, gallery: Path) -> None:
    asked = retrieve("query", gallery / APPLE, cwd=tmp_path)
    assert asked.returncode == 1
    assert_one_line(asked.stderr)
    assert "retrieve index GALLERY" in asked.stderr


def test_a_mistyped_gallery_makes_no_index(tmp_path: Path) -> None:
    indexed = retrieve("index", "galery", cwd=tmp_path)
    assert indexed.returncode == 1
    assert_one_line(indexed.stderr)
    assert "galery" in indexed.stderr
    assert not (tmp_path / ".retrieve").exists()


def test_several_queries_are_told_apart(index: Path, gallery: Path) -> None:
    asked = retrieve("query", gallery / APPLE, gallery / "car/noto.png", "-k", "1", "--index", index)
    assert asked.stdout == (
        f"{gallery / APPLE}:\n1.000  {gallery / APPLE}\n\n"
        f"{gallery / 'car/noto.png'}:\n1.000  {gallery / 'car/noto.png'}\n"
    )


def test_a_folder_of_queries_is_each_picture_in_it(index: Path, gallery: Path) -> None:
    asked = retrieve_json("query", gallery / "apple", "-k", "1", "--index", index)
    assert [Path(one["query"]).name for one in asked["queries"]] == ["fluent.webp", "noto.png"]


def test_a_query_may_come_from_standard_input(index: Path, gallery: Path) -> None:
    asked = retrieve("query", "-", "-k", "1", "--index", index, stdin=(gallery / APPLE).read_bytes())
    assert asked.stdout == f"1.000  {gallery / APPLE}\n"


def test_paths_alone_can_be_piped_on(index: Path, gallery: Path) -> None:
    asked = retrieve("query", gallery / APPLE, "-k", "3", "--paths", "-0", "--index", index)
    paths = asked.stdout.split("\0")
    assert paths[0] == str(gallery / APPLE)
    assert [len(paths), paths[-1]] == [4, ""]


def test_a_pipe_that_closes_early_is_no_error(index: Path, gallery: Path) -> None:
    command = " ".join([*RETRIEVE, "query", str(gallery), "-k", "12", "--index", str(index), "| head -1"])
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_nothing_above_the_minimum_score_is_exit_4(index: Path, demo_gallery: Path) -> None:
    asked = retrieve("query", demo_gallery / "pizza/noto.png", "--min-score", "0.999", "--index", index)
    assert (asked.returncode, asked.stdout) == (4, "")
    assert retrieve("query", demo_gallery / "pizza/noto.png", "--min-score", "0", "--index", index).returncode == 0


def test_a_bad_query_among_good_ones_is_named_and_the_rest_answered(index: Path, gallery: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    asked = retrieve("query", tmp_path / "bad.jpg", gallery / APPLE, "-k", "1", "--index", index)
    assert asked.returncode == 1
    assert f"{tmp_path / 'bad.jpg'}: " in asked.stderr
    assert f"1.000  {gallery / APPLE}" in asked.stdout


def test_a_page_holds_queries_and_hits(index: Path, gallery: Path, tmp_path: Path) -> None:
    page = tmp_path / "hits.html"
    assert retrieve("query", gallery / "apple", "-k", "3", "--html", page, "--index", index).returncode == 0
    tags = Tags()
    tags.feed(page.read_text("utf-8"))
    assert tags.open == []
    assert len(tags.sources) == 2 * (1 + 3)  # each query and its hits
    assert all(source.startswith("data:image/jpeg;base64,") for source in tags.sources)
    assert "1. 1.000" in tags.texts


def test_a_sheet_shows_queries_and_hits(index: Path, gallery: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "hits.png"
    assert retrieve("query", gallery / "apple", "-k", "3", "--sheet", sheet, "--index", index).returncode == 0
    with PIL.Image.open(sheet) as drawn:
        assert drawn.width > 3 * 100


def test_standard_input_is_drawn_as_what_it_held(index: Path, gallery: Path, tmp_path: Path) -> None:
    sheet, page, held = tmp_path / "hits.png", tmp_path / "hits.html", (gallery / APPLE).read_bytes()
    drawn = ("-k", "1", "--index", index, "--sheet", sheet, "--html", page)
    assert retrieve("query", "-", *drawn, stdin=held).returncode == 0
    tags = Tags()
    tags.feed(page.read_text("utf-8"))
    assert len(tags.sources) == 2
    assert "standard input" in tags.texts
    with PIL.Image.open(sheet) as alone:
        height_px = alone.height
    assert retrieve("query", "-", gallery / APPLE, *drawn, stdin=held).returncode == 0
    with PIL.Image.open(sheet) as both:
        assert both.height > 1.5 * height_px


def test_a_heading_stands_where_several_were_asked_for(index: Path, gallery: Path, tmp_path: Path) -> None:
    asked = retrieve("query", tmp_path / "gone.png", gallery / APPLE, "-k", "1", "--index", index)
    assert asked.stdout == f"{gallery / APPLE}:\n1.000  {gallery / APPLE}\n"


def test_an_index_of_the_environment_stands_back(index: Path, gallery: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "RETRIEVE_INDEX": str(index)}
    listed = retrieve("dedup", gallery, "--model", MODEL, env=environment, cwd=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    asked = retrieve("query", gallery / APPLE, "--url", "nowhere", env=environment)
    assert "nowhere has not answered" in asked.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("query", ""), "the name is empty"),
        (("query", "x.png", "--url", ""), "--url is empty"),
        (("query", "x.png", "--api-key", "k"), "name it with --url"),
        (("query", "x.png", "--url", "u", "--device", "cpu"), "--url excludes"),
        (("query", "x.png", "--url", "u", "--max-megapixels", "9"), "--url excludes"),
        (("query", "x.png", "--url", "u", "--allow-truncated"), "--url excludes"),
        (("query", "x.png", "--url", "u", "--index", "i"), "--url excludes"),
        (("query", "--like", "k", "--box", "1,1,9,9"), "name an IMAGE"),
        (("query", "--like", "k", "--crops"), "name an IMAGE"),
        (("query", "x.png", "--sheet", "s.txt"), "use one of .jpeg"),
        (("query", "x.png", "--sheet", "gone/s.png"), "there is no folder"),
        (("query", "x.png", "--html", "gone/h.html"), "there is no folder"),
        (("query", "x.png", "--min-score", "nan"), "'nan' is not a number"),
        (("query", "x.png", "--min-probability", "nan"), "'nan' is not a number"),
        (("query", "x.png", "--dedup", "nan"), "'nan' is not a number"),
        (("query", "x.png", "--max-megapixels", "nan"), "'nan' is not a number"),
        (("query", "x.png", "--max-megapixels", "inf"), "'inf' is not a number"),
        (("match", "a.png", "b.png", "--threshold", "nan"), "'nan' is not a number"),
        (("dedup", "--score", "nan"), "'nan' is not a number"),
        (("dedup", ""), "the name is empty"),
        (("index", ""), "the name is empty"),
        (("index", "x", "--index", ""), "the name is empty"),
        (("index", "x", "--recall", "nan"), "'nan' is not a number"),
        (("index", "x", "--memory", "foo"), "memory 'foo' is no size"),
        (("index", "x", "--batch-size", "100000000"), "--batch-size"),
        (("train", "", "--out", "m"), "the name is empty"),
        (("refresh", "--index", "x", "--augment", "flip=nan"), "flip is nan"),
        (("evaluate", "--queries", "", "--index", "i"), "the name is empty"),
        (("evaluate", "--queries", "q", "--index", "i", "--report", "gone/r.html"), "there is no folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_meant_is_wrong_usage(
    arguments: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app.retrieve, arguments)
    assert (done.exit_code, why in done.output) == (2, True), done.output


def test_new_skips_are_exit_3_once(tmp_path: Path, gallery: Path) -> None:
    (gallery / "bad.jpg").write_text("no picture")
    command = ("index", gallery, "--model", MODEL, "--index", tmp_path / "index")
    first = retrieve(*command, "--json")
    assert first.returncode == 3
    assert json.loads(first.stdout)["skipped"][0]["key"] == "bad.jpg"
    assert "skipped bad.jpg: " in first.stderr
    second = retrieve(*command[:2], *command[4:], "--json")
    assert second.returncode == 0
    assert json.loads(second.stdout)["skipped"][0]["known"] is True


def test_refused_removals_are_one_line_and_allowed_by_name(index: Path, gallery: Path) -> None:
    for thing in ("apple", "banana"):
        shutil.rmtree(gallery / thing)
    refused = retrieve("index", gallery, "--index", index)
    assert refused.returncode == 1
    assert_one_line(refused.stderr)
    assert retrieve_json("info", "--index", index)["images"] == 12
    kept = retrieve_json("index", gallery, "--no-remove", "--index", index)
    assert (kept["removed"], kept["unchanged"]) == (0, 8)
    assert retrieve_json("index", gallery, "--allow-removals", "--index", index)["removed"] == 4


def test_another_model_is_refused_with_both_names(index: Path, gallery: Path) -> None:
    refused = retrieve("index", gallery, "--model", "efficientnet_lite2", "--index", index)
    assert refused.returncode == 1
    assert_one_line(refused.stderr)
    assert "efficientnet_lite0@" in refused.stderr
    assert "efficientnet_lite2@" in refused.stderr


@pytest.mark.parametrize(
    "asked",
    [["remove", "\udcff.png"], ["query", "--like", "\udcff"], ["query", "IMAGE", "--unlike", "\udcff"]],
    ids=["remove", "like", "unlike"],
)
def test_a_key_that_is_not_utf8_is_unknown(index: Path, gallery: Path, asked: list[str]) -> None:
    done = retrieve(*(str(gallery / APPLE) if word == "IMAGE" else word for word in asked), "--index", index)
    assert done.returncode == 1
    assert_one_line(done.stderr)
    assert "no picture '\\udcff" in done.stderr


def test_excluding_a_key_that_is_not_utf8_changes_nothing(index: Path, gallery: Path) -> None:
    done = retrieve("query", gallery / APPLE, "-k", "1", "--exclude", "\udcff", "--index", index)
    assert (done.returncode, done.stdout) == (0, f"1.000  {gallery / APPLE}\n")


def test_remove_takes_keys_and_names_the_unknown(index: Path) -> None:
    assert retrieve("remove", APPLE, "car/noto.png", "--index", index).stdout.startswith("2 removed")
    assert retrieve_json("info", "--index", index)["images"] == 10
    assert retrieve_json("remove", "car/fluent.webp", "--index", index) == {"removed": 1, "generation": 3}
    unknown = retrieve("remove", "nobody", "--index", index)
    assert unknown.returncode == 1
    assert_one_line(unknown.stderr)


def test_verify_tells_whole_from_damaged_and_repairs(index: Path) -> None:
    whole = retrieve("verify", "--index", index)
    assert (whole.returncode, whole.stdout) == (0, "ok: 12 pictures, generation 1\n")
    (index / "segments").mkdir()
    (index / "segments" / "left.faiss").write_bytes(b"by a killed run")
    with_orphan = retrieve("verify", "--index", index)
    assert with_orphan.returncode == 0
    assert "left over: segments/left.faiss" in with_orphan.stdout


def test_repair_embeds_lost_vectors_again(index: Path, gallery: Path) -> None:
    import sqlite3

    with sqlite3.connect(index / "catalog.sqlite") as catalog:
        catalog.execute("UPDATE embeddings SET vector = zeroblob(2560) WHERE picture_id IN (1, 2)")
    catalog.close()
    (gallery / APPLE).unlink()  # of the two lost ones, this cannot be embedded again
    damaged = retrieve("verify", "--index", index)
    assert damaged.returncode == 1
    assert "2 pictures have no intact vector" in damaged.stdout
    mended = retrieve("verify", "--repair", "--index", index)
    assert mended.returncode == 0, mended.stderr
    assert f"dropped {APPLE}" in mended.stderr
    assert mended.stdout.startswith("ok: 11 pictures")
    other = gallery / "apple/fluent.webp"
    assert retrieve_json("query", other, "--index", index)["queries"][0]["hits"][0]["score"] > 0.999


def test_backup_makes_an_index_that_answers(index: Path, gallery: Path, tmp_path: Path) -> None:
    assert retrieve_json("backup", tmp_path / "copy", "--index", index)["images"] == 12
    asked = retrieve("query", gallery / APPLE, "-k", "1", "--index", tmp_path / "copy")
    assert asked.stdout == f"1.000  {gallery / APPLE}\n"
    again = retrieve("backup", tmp_path / "copy", "--index", index)
    assert again.returncode == 1
    assert_one_line(again.stderr)


def test_models_names_what_works_offline() -> None:
    models = {model["name"]: model for model in retrieve_json("models")["models"]}
    assert models["efficientnet_lite2"]["is_at_hand"]
    assert models["efficientnet_lite0"]["is_at_hand"]


@pytest.mark.parametrize("verb", ["index", "query", "info", "remove", "verify", "backup", "models"])
def test_every_verbs_help_has_an_example(verb: str) -> None:
    shown = retrieve(verb, "--help")
    assert shown.returncode == 0
    assert "Example:" in shown.stdout
    assert f"retrieve {verb}" in shown.stdout.split("Example:")[1]


@pytest.mark.parametrize(
    "arguments",
    [("query",), ("query", "x.jpg", "-k", "0"), ("query", "x.jpg", "--min-score", "2"), ("index",), ("no-such-verb",)],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2(arguments: tuple[str, ...]) -> None:
    assert retrieve(*arguments).returncode == 2


def test_names_with_line_breaks_stay_on_their_line(tmp_path: Path, gallery: Path) -> None:
    shutil.copy(gallery / APPLE, gallery / "two\nlines é 林.png")
    assert retrieve("index", gallery, "--model", MODEL, "--index", tmp_path / "index").returncode == 0
    asked = retrieve("query", gallery / "two\nlines é 林.png", "-k", "2", "--index", tmp_path / "index")
    assert len(asked.stdout.splitlines()) == 2
    assert "two\\nlines é 林.png" in asked.stdout


def test_a_query_on_a_cpu_loads_neither_torch_nor_timm(index: Path, gallery: Path) -> None:
    code = (
        "import sys; from retrieval.cli.app import run; from retrieval.cli.stopping import Interrupts;"
        f"code = run(['query', {str(gallery / APPLE)!r}, '--index', {str(index)!r}], Interrupts());"
        "print(code, sorted({'torch', 'torchvision', 'timm', 'pyarrow'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_an_interrupted_run_says_how_to_go_on_and_keeps_what_is_done(tmp_path: Path, demo_gallery: Path) -> None:
    gallery = tmp_path / "many"
    for number in range(12):
        shutil.copytree(demo_gallery, gallery / str(number))
    command = [*RETRIEVE, "index", str(gallery), "--model", MODEL, "--index", str(tmp_path / "index")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until_images_are_in(tmp_path / "index", process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Run the same command again to go on" in said
    done = retrieve_json("info", "--index", tmp_path / "index")["images"]
    report = retrieve_json("index", gallery, "--index", tmp_path / "index")
    assert (report["added"], report["unchanged"]) == (1200 - done, done)


def wait_until_images_are_in(index: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        if (index / "catalog.sqlite").exists():
            with SearchEngine.open(index) as engine:
                if engine.info().images > 0:
                    return
        time.sleep(0.05)
    raise AssertionError(process.communicate())


def test_a_terminal_sees_a_progress_bar(tmp_path: Path, gallery: Path) -> None:
    here, there = pty.openpty()
    command = [*RETRIEVE, "index", str(gallery), "--model", MODEL, "--index", str(tmp_path / "index")]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=there, env=environment)
    os.close(there)
    shown = b""
    try:
        while chunk := os.read(here, 4096):
            shown += chunk
    except OSError:  # the other side of the terminal has closed
        pass
    process.communicate(timeout=60)
    os.close(here)
    assert b"images/s" in shown
    assert b"skipped" in shown
