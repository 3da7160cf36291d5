"""An index in a bad state or a bad place: one line says what and what to do, and nothing that was in it is lost."""

import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from commands import RETRIEVE, assert_one_line, retrieve, retrieve_json, retrieve_unprivileged
from damage import flip_in_the_middle
from indexer import sealing
from indexer.errors import GpuUnavailable
from indexer.integrity import verify
from indexer.locks import JOB_LOCK
from retrieval.encoder.artifact import prepare_model
from retrieval.encoder.checkpoint import ModelConfig
from retrieval.encoder.preprocess import Preprocessing
from retrieval.encoder.twin import TwinEncoder
from retrieval.encoder.weights import build_backbone
from retrieval.engine import SearchEngine
from unprivileged import run_unprivileged
from vectors import query_catalog

MODEL = "efficientnet_lite0"
APPLE = "apple/noto.png"
THINGS = ("apple", "banana", "car")
IMAGES = 2 * len(THINGS)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Path:
    """Six pictures of three things; read them only."""
    folder = tmp_path_factory.mktemp("pictures")
    for thing in THINGS:
        shutil.copytree(demo_gallery / thing, folder / thing)
    return folder


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """Their index, to copy from; its vectors lie in a segment."""
    folder = tmp_path_factory.mktemp("pristine") / "index"
    with pytest.MonkeyPatch.context() as patch, SearchEngine.create(folder, model=MODEL) as engine:
        patch.setattr(sealing, "SEAL_ROWS", IMAGES)
        engine.sync(pictures)
    assert len(list((folder / "segments").iterdir())) == 1
    return folder


@pytest.fixture
def index(tmp_path: Path, pristine: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "index")


@pytest.fixture
def larger(tmp_path: Path, demo_gallery: Path) -> Path:
    """A gallery whose vectors take some 300 kB."""
    return shutil.copytree(demo_gallery, tmp_path / "larger")


@pytest.fixture
def segment(index: Path) -> Path:
    return next((index / "segments").iterdir())


def assert_refused(done: "subprocess.CompletedProcess[str]", *said: str) -> None:
    assert (done.returncode, done.stdout) == (1, ""), done.stdout
    assert_one_line(done.stderr)
    for part in said:
        assert part in done.stderr
    assert "unexpected" not in done.stderr


def assert_answers(index: Path, picture: Path) -> None:
    assert retrieve("query", picture, "-k", "1", "--index", index).stdout == f"1.000  {picture}\n"


# Written by another version, or by another model


@pytest.mark.parametrize("verb", ["query", "index", "verify --repair", "backup"])
def test_an_index_of_a_newer_format_is_left_alone(index: Path, pictures: Path, tmp_path: Path, verb: str) -> None:
    query_catalog(index, "PRAGMA user_version = 99")
    before = (index / "catalog.sqlite").read_bytes()
    arguments = {"query": [pictures / APPLE], "index": [pictures], "backup": [tmp_path / "copy"]}
    refused = retrieve(*verb.split(), *arguments.get(verb, []), "--index", index)
    assert_refused(refused, str(index), "format 99", "upgrade retrieval-engine")
    assert (index / "catalog.sqlite").read_bytes() == before


def test_a_model_whose_weights_have_changed_is_refused_with_both_fingerprints(index: Path, pictures: Path) -> None:
    query_catalog(index, "UPDATE spaces SET model_fingerprint = 'f00dbeef' || substr(model_fingerprint, 9)")
    assert_refused(retrieve("query", pictures / APPLE, "--index", index), f"{MODEL}@f00dbeef", "the query encoder is")


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A model directory as training leaves it, small and untrained."""
    torch.manual_seed(1)
    how = Preprocessing(input_px=160, resize_px=168, mean=(127.0,) * 3, std=(128.0,) * 3)
    config = ModelConfig("shop", "timm/test_efficientnet", "average", 256, 64, how)
    TwinEncoder(config, build_backbone(config.architecture, config.pooling)).save(tmp_path / "models/shop")
    return tmp_path / "models/shop"


def test_a_model_folder_is_found_from_anywhere_and_named_when_it_has_moved(
    model_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    index, query = tmp_path / "index", ("query", pictures / APPLE, "-k", "1", "--index", tmp_path / "index")
    assert retrieve("index", pictures, "--model", "models/shop", "--index", index, cwd=tmp_path).returncode == 0
    assert retrieve(*query, cwd=pictures).stdout == f"1.000  {pictures / APPLE}\n"
    moved = model_folder.rename(tmp_path / "moved")
    assert_refused(retrieve(*query), str(index), str(model_folder), "--model")
    assert retrieve(*query, "--model", moved).stdout == f"1.000  {pictures / APPLE}\n"


# Damaged


def test_a_flipped_byte_in_a_segment_is_found_and_repaired(index: Path, segment: Path, pictures: Path) -> None:
    flip_in_the_middle(segment)
    damaged = retrieve("verify", "--index", index)
    assert damaged.returncode == 1
    assert f"damaged: segments/{segment.name} differs from its checksum" in damaged.stdout
    mended = retrieve("verify", "--repair", "--index", index)
    assert mended.returncode == 0
    assert f"ok: {IMAGES} pictures" in mended.stdout
    assert "1 pictures embedded again, 0 dropped" in mended.stderr
    found = retrieve_json("query", pictures, "-k", "1", "--index", index)["queries"]
    assert [one["hits"][0]["path"] for one in found] == [one["query"] for one in found]


def test_a_missing_segment_is_named_and_its_pictures_are_embedded_again(
    index: Path, segment: Path, pictures: Path
) -> None:
    segment.unlink()
    assert_refused(
        retrieve("query", pictures / APPLE, "--index", index), segment.name, "missing", "retrieve verify --repair"
    )
    assert_refused(retrieve("index", pictures, "--index", index), segment.name, "retrieve verify --repair")
    assert not verify(index).is_whole
    mended = retrieve("verify", "--repair", "--index", index)
    assert mended.returncode == 0
    assert f"{IMAGES} pictures embedded again, 0 dropped" in mended.stderr
    assert_answers(index, pictures / APPLE)


# On a disk that is full


def fill(disk: Path, leave_bytes: int) -> Path:
    """Write a file that leaves so many bytes of room; deleting it makes room again."""
    free_bytes = shutil.disk_usage(disk).free
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, free_bytes - leave_bytes)))
    return ballast


def test_a_first_index_on_a_full_disk_is_refused_and_made_when_there_is_room(small_disk: Path, pictures: Path) -> None:
    ballast = fill(small_disk, 0)
    command = ("index", pictures, "--model", MODEL, "--index", small_disk / "index")
    assert_refused(retrieve(*command), str(small_disk / "index"), "free some space and run again")
    ballast.unlink()
    assert retrieve_json(*command)["added"] == IMAGES


def test_a_first_index_that_fills_the_disk_stops_whole_and_goes_on_when_there_is_room(
    small_disk: Path, larger: Path
) -> None:
    ballast = fill(small_disk, 300_000)
    command = ("index", larger, "--model", MODEL, "--index", small_disk / "index")
    assert_refused(retrieve(*command), str(small_disk / "index"), "everything committed before is safe")
    assert verify(small_disk / "index").is_whole
    ballast.unlink()
    assert retrieve_json("index", larger, "--index", small_disk / "index")["added"] == 100


def test_an_update_that_fills_the_disk_loses_nothing(
    small_disk: Path, pristine: Path, pictures: Path, larger: Path
) -> None:
    index = shutil.copytree(pristine, small_disk / "index")
    fill(small_disk, 200_000)
    update = retrieve("index", larger, "--key-prefix", "larger/", "--index", index)
    assert_refused(update, str(index), "everything committed before is safe")
    assert (verify(index).is_whole, verify(index).images) == (True, IMAGES)
    assert_answers(index, pictures / APPLE)


def test_a_full_disk_can_be_read(small_disk: Path, pristine: Path, pictures: Path) -> None:
    index = shutil.copytree(pristine, small_disk / "index")
    fill(small_disk, 0)
    assert_answers(index, pictures / APPLE)
    assert retrieve_json("info", "--index", index)["images"] == IMAGES
    assert retrieve("verify", "--index", index).returncode == 0


def test_a_full_disk_refuses_to_be_written_in_one_line(small_disk: Path, pristine: Path) -> None:
    index = shutil.copytree(pristine, small_disk / "index")
    fill(small_disk, 0)
    assert_refused(retrieve("remove", APPLE, "--index", index), str(index), "free some space")
    assert verify(index).images == IMAGES


def test_an_engine_opened_on_a_full_disk_follows_what_is_written_when_there_is_room(
    small_disk: Path, pristine: Path, pictures: Path
) -> None:
    index = shutil.copytree(pristine, small_disk / "index")
    ballast = fill(small_disk, 0)
    with SearchEngine.open(index) as reader, SearchEngine.open(index) as writer:
        ballast.unlink()
        writer.upsert("new", pictures / APPLE)
        assert writer.info().images == IMAGES + 1
        reader.refresh()
        assert reader.info().images == IMAGES + 1


def test_a_limit_on_file_sizes_is_met_like_a_full_disk(index: Path, pictures: Path, larger: Path) -> None:
    """What any user can be given: ulimit -f."""
    limit_bytes = (index / "catalog.sqlite").stat().st_size + 50_000
    update = retrieve(
        *("index", larger, "--key-prefix", "larger/", "--index", index),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
    )
    assert_refused(update, str(index), "safe", "free some space and run again")
    assert (verify(index).is_whole, verify(index).images) == (True, IMAGES)


def test_results_that_find_no_room_are_a_failure(index: Path, pictures: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*RETRIEVE, "query", pictures / APPLE, "--index", index], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode() == "retrieve: cannot write the results: No space left on device; send them elsewhere\n"


# In a place that this user may not use


@pytest.fixture
def read_only(index: Path) -> Iterator[Path]:
    for path in (index, *index.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    yield index
    for path in (index, *index.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.parametrize("verb", ["query", "info", "verify", "backup"])
def test_an_index_in_a_read_only_folder_can_be_read(read_only: Path, pictures: Path, tmp_path: Path, verb: str) -> None:
    arguments = {"query": [pictures / APPLE], "backup": [tmp_path / "copy"]}.get(verb, [])
    done = retrieve_unprivileged(verb, *arguments, "--index", read_only)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", ["index", "remove"])
def test_an_index_in_a_read_only_folder_refuses_to_be_written(read_only: Path, pictures: Path, verb: str) -> None:
    refused = retrieve_unprivileged(verb, pictures if verb == "index" else APPLE, "--index", read_only)
    assert_refused(refused, str(read_only), "write permission")
    assert verify(read_only).images == IMAGES


@pytest.mark.parametrize("verb", ["index", "query"])
@pytest.mark.parametrize("locked", ["folder", "catalog"])
def test_an_index_that_this_user_may_not_open_is_named(index: Path, pictures: Path, verb: str, locked: str) -> None:
    place = index if locked == "folder" else index / "catalog.sqlite"
    place.chmod(0)
    refused = retrieve_unprivileged(verb, pictures / APPLE if verb == "query" else pictures, "--index", index)
    place.chmod(0o755)
    assert_refused(refused, str(index), "permission")


def test_the_nearest_index_is_not_passed_over_because_it_cannot_be_opened(index: Path, tmp_path: Path) -> None:
    (tmp_path / ".retrieve").mkdir()
    (tmp_path / "inner").mkdir()
    index.rename(tmp_path / "inner/.retrieve")
    (tmp_path / "inner/.retrieve").chmod(0)
    refused = run_unprivileged(
        "import os; os.chdir(sys.argv[1]); from retrieval.cli import main; main(['info'])", tmp_path / "inner"
    )
    (tmp_path / "inner/.retrieve").chmod(0o755)
    assert_refused(refused, "inner/.retrieve", "permission")


@pytest.mark.parametrize("verb", ["index", "query"])
@pytest.mark.parametrize("place", ["notes.txt", "notes.txt/index"])
def test_a_file_in_place_of_the_index_is_named_and_kept(tmp_path: Path, pictures: Path, verb: str, place: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    refused = retrieve(verb, pictures / APPLE if verb == "query" else pictures, "--index", tmp_path / place)
    assert_refused(refused, str(tmp_path / place), "--index")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_cache_that_cannot_be_written_is_done_without(index: Path, pictures: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = prepare_model(MODEL).folder
    shutil.copytree(folder, cache / folder.relative_to(Path(os.environ["RETRIEVE_CACHE"])))
    cache.chmod(0o555)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRIEVE_CACHE", str(cache))
        asked = retrieve_unprivileged("query", pictures / APPLE, "-k", "1", "--index", index)
    cache.chmod(0o755)
    assert (asked.stdout, asked.stderr) == (f"1.000  {pictures / APPLE}\n", "")
    assert not (cache / "compiled").exists()


# In use by another process


@pytest.fixture
def another_job(index: Path) -> Iterator["subprocess.Popen[str]"]:
    code = (
        "import sys; from pathlib import Path; from indexer.locks import job_lock\n"
        "with job_lock(Path(sys.argv[1]), 'refresh'): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(index)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_an_index_that_another_process_works_on_names_it(
    index: Path, pictures: Path, another_job: "subprocess.Popen[str]"
) -> None:
    refused = retrieve("index", pictures, "--index", index)
    assert_refused(refused, "busy", f"`retrieve refresh` runs as process {another_job.pid}", "run again")
    assert_answers(index, pictures / APPLE)


# Odd callers


def with_shell(redirection: str, *arguments: str | Path) -> "subprocess.CompletedProcess[bytes]":
    command = shlex.join([*RETRIEVE, *map(str, arguments)])
    line = f"set -o pipefail; {command} {redirection}"
    return subprocess.run(["bash", "-c", line], capture_output=True, timeout=60, check=False)


def test_a_reader_that_has_left_before_the_first_hit_is_no_error(index: Path, pictures: Path) -> None:
    asked = with_shell("| true", "query", pictures, "--index", index)
    assert (asked.returncode, asked.stderr) == (0, b"")


def test_a_query_needs_no_standard_input(index: Path, pictures: Path) -> None:
    asked = with_shell("<&-", "query", pictures / APPLE, "-k", "1", "--index", index)
    assert (asked.returncode, asked.stdout.decode(), asked.stderr) == (0, f"1.000  {pictures / APPLE}\n", b"")


def test_a_query_from_a_closed_standard_input_is_named(index: Path) -> None:
    asked = with_shell("<&-", "query", "-", "--index", index)
    assert (asked.returncode, asked.stderr) == (1, b"retrieve: standard input: empty file\n")


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&- <&-"])
def test_closed_output_never_ends_up_in_the_index(tmp_path: Path, pictures: Path, redirection: str) -> None:
    indexed = with_shell(redirection, "index", pictures, "--model", MODEL, "--index", tmp_path / "index")
    assert indexed.returncode == 0
    assert indexed.stderr == b""
    assert verify(tmp_path / "index").images == IMAGES


def test_a_second_ctrl_c_ends_at_once_and_leaves_a_whole_index(tmp_path: Path, larger: Path) -> None:
    for number in range(6):
        shutil.copytree(larger, larger / f"again {number}", ignore=shutil.ignore_patterns("again*"))
    index = tmp_path / "index"
    command = [*RETRIEVE, "index", larger, "--model", MODEL, "--index", index]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: (index / JOB_LOCK).exists())
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        _, said = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT), said
    assert all(line.startswith("retrieve: ") for line in said.splitlines()), said
    assert verify(index).is_whole


def wait_until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.01)


def test_a_gpu_to_search_on_that_is_not_there_is_named(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0)
    with pytest.raises(GpuUnavailable, match="search device cuda is not available"):
        SearchEngine.open(index, search_device="cuda")
    with SearchEngine.open(index, search_device="auto") as engine:
        assert engine.info().images
