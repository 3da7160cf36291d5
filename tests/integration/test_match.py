"""`retrieve match` and the probabilities of hits, with a calibration fitted to the demo gallery's fifty things."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from commands import assert_one_line, retrieve, retrieve_json
from retrieval.calibration import Matcher, fit_match, save_matcher
from retrieval.calibration.stored import CALIBRATION_FILE
from retrieval.encoder.artifact import prepare_model
from retrieval.engine import SearchEngine
from retrieval.errors import ModelDamaged, ModelError, PictureError

MODEL = "efficientnet_lite0"
NOTICE = "retrieve: no probability: this model is not calibrated; `retrieve train` makes one that is\n"


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> tuple[Path, Matcher]:
    """A model directory with a packaged model's weights, and the calibration in it. Read it, do not write to it."""
    from retrieval.encoder.checkpoint import save_checkpoint
    from retrieval.encoder.weights import load_twin

    root = tmp_path_factory.mktemp("calibrated")
    twin = load_twin(MODEL)
    fingerprint = save_checkpoint(root / "model", twin.config, twin.weights())
    shutil.copytree(prepare_model(MODEL).folder, root / "model" / "openvino")  # the same weights: the same conversion
    paths = sorted(path for path in demo_gallery.glob("*/*") if path.is_file())
    with SearchEngine.create(root / "index", model=root / "model") as engine:
        matcher = fit_match(engine.embed(paths), [path.parent.name for path in paths], seed=0)
    assert matcher is not None
    save_matcher(matcher, root / "model", fingerprint)
    return root / "model", matcher


@pytest.fixture
def model(calibrated: tuple[Path, Matcher], tmp_path: Path) -> Path:
    """A copy of the calibrated model, to damage as a test likes."""
    return Path(shutil.copytree(calibrated[0], tmp_path / "model"))


@pytest.fixture
def index(model: Path, tmp_path: Path, gallery: Path) -> Path:
    """An index of the small gallery by that copy."""
    with SearchEngine.create(tmp_path / ".retrieve", model=model) as engine:
        engine.sync(gallery)
    return tmp_path / ".retrieve"


def two(gallery: Path, first: str = "apple", second: str = "apple") -> tuple[Path, Path]:
    return gallery / first / "noto.png", gallery / second / "fluent.webp"


def test_a_model_without_a_calibration_gives_score_and_distance_and_a_notice(gallery: Path) -> None:
    done = retrieve("match", *two(gallery), "--model", MODEL, "--json")
    assert (done.returncode, done.stderr) == (0, NOTICE)
    result = json.loads(done.stdout)
    assert list(result) == ["a", "b", "score", "distance", "match_probability", "threshold", "is_match", "model"]
    with SearchEngine.create(gallery.parent / "index", model=MODEL) as engine:
        first, second = engine.embed(two(gallery)).astype(np.float64)
        assert result["model"] == engine.model_fingerprint
    assert result["score"] == pytest.approx(first @ second, abs=1e-3)
    assert result["distance"] == pytest.approx(np.sqrt(((first - second) ** 2).sum()), abs=1e-3)
    assert [result[name] for name in ("match_probability", "threshold", "is_match")] == [None, None, None]
    assert [result["a"], result["b"]] == [str(path) for path in two(gallery)]


def test_a_calibrated_model_says_all_it_knows(calibrated: tuple[Path, Matcher], gallery: Path) -> None:
    folder, matcher = calibrated
    done = retrieve("match", *two(gallery), "--model", folder, "--threshold", "0.05")
    assert (done.returncode, done.stderr) == (0, "")
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    threshold = matcher.threshold(0.05)
    assert threshold is not None
    assert list(said) == ["score", "distance", "probability", "decision"]
    decision = "same" if float(said["score"]) >= threshold.score else "different"
    assert said["decision"] == f"{decision} (from {threshold.score:.3f} on: same)"


def test_the_model_is_by_default_that_of_the_index_above(index: Path, gallery: Path) -> None:
    result = retrieve_json("match", *two(gallery), cwd=gallery / "apple")
    assert result["match_probability"] is not None


def test_a_model_and_an_index_exclude_each_other(gallery: Path, tmp_path: Path) -> None:
    done = retrieve("match", *two(gallery), "--model", MODEL, "--index", tmp_path)
    assert done.returncode == 2
    assert "--model and --index exclude each other" in done.stderr


@pytest.mark.parametrize("content", [None, b"no picture"], ids=["missing", "no picture"])
def test_a_picture_that_cannot_be_used_is_named(gallery: Path, tmp_path: Path, content: bytes | None) -> None:
    bad = tmp_path / "bad.jpg"
    if content is not None:
        bad.write_bytes(content)
    done = retrieve("match", two(gallery)[0], bad, "--model", MODEL)
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_line(done.stderr)
    assert done.stderr.startswith(f"retrieve: {bad}: ")


@pytest.mark.parametrize("content", ['{"format": 1', '{"format": 99}'], ids=["damaged", "of a newer version"])
def test_a_calibration_that_cannot_be_read_is_one_line(model: Path, gallery: Path, content: str) -> None:
    (model / CALIBRATION_FILE).write_text(content)
    done = retrieve("match", *two(gallery), "--model", model)
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_line(done.stderr)
    assert CALIBRATION_FILE in done.stderr


def test_a_query_answers_without_a_damaged_calibration(model: Path, index: Path, gallery: Path) -> None:
    (model / CALIBRATION_FILE).write_text("{")
    done = retrieve("query", two(gallery)[0], "-k", "3", "--index", index, "--json")
    assert done.returncode == 0
    assert_one_line(done.stderr)
    assert CALIBRATION_FILE in done.stderr
    assert [hit["match_probability"] for hit in json.loads(done.stdout)["queries"][0]["hits"]] == [None] * 3


def test_hits_carry_the_probability_of_their_score(
    calibrated: tuple[Path, Matcher], index: Path, gallery: Path
) -> None:
    with SearchEngine.open(index) as engine:
        hits = engine.search(two(gallery)[0], k=50).hits  # more than there are: empty slots have no score
    probabilities = [hit.match_probability for hit in hits]
    assert len(hits) == 12
    assert probabilities == pytest.approx(calibrated[1].calibration.probability([hit.score for hit in hits]).tolist())
    assert probabilities == sorted(probabilities, reverse=True)  # type: ignore[type-var]


def test_the_same_thing_is_more_probably_a_match_than_another(index: Path, gallery: Path) -> None:
    with SearchEngine.open(index) as engine:
        same = engine.match(*two(gallery)).match_probability
        other = engine.match(*two(gallery, "apple", "bicycle")).match_probability
    assert same is not None
    assert other is not None
    assert same > 2 * other


def test_a_picture_matches_itself_at_every_rate(index: Path, gallery: Path) -> None:
    path = two(gallery)[0]
    with SearchEngine.open(index) as engine:
        result = engine.match(path, path.read_bytes(), false_accept_rate=0.02)
    assert (result.score, result.distance) == pytest.approx((1.0, 0.0), abs=1e-3)
    assert result.is_match is True
    assert (result.a, result.b) == (str(path), None)


def test_different_things_do_not_match(index: Path, gallery: Path) -> None:
    with SearchEngine.open(index) as engine:
        assert engine.match(*two(gallery, "apple", "bicycle"), false_accept_rate=0.05).is_match is False


def test_the_order_of_the_pictures_does_not_count(index: Path, gallery: Path) -> None:
    first, second = two(gallery)
    with SearchEngine.open(index) as engine:
        there, back = engine.match(first, second), engine.match(second, first)
    assert there.match_probability == pytest.approx(back.match_probability, abs=1e-6)
    assert there.score == pytest.approx(back.score, abs=1e-6)


def test_a_decision_needs_a_calibration(tmp_path: Path, gallery: Path) -> None:
    with (
        SearchEngine.create(tmp_path / "index", model=MODEL) as engine,
        pytest.raises(ModelError, match=r"is not calibrated: no score stands for a false-accept rate of 0\.01"),
    ):
        engine.match(*two(gallery), false_accept_rate=0.01)


def test_a_rate_that_was_not_measured_is_refused_with_those_that_were(index: Path, gallery: Path) -> None:
    with SearchEngine.open(index) as engine, pytest.raises(ModelError, match=r"0\.0001: .* choose such a rate"):
        engine.match(*two(gallery), false_accept_rate=0.0001)


def test_a_calibration_of_other_weights_counts_as_none(
    calibrated: tuple[Path, Matcher], model: Path, index: Path, gallery: Path
) -> None:
    save_matcher(calibrated[1], model, "f" * 64)
    with SearchEngine.open(index) as engine:
        assert engine.match(*two(gallery)).match_probability is None
        assert engine.search(two(gallery)[0], k=1).hits[0].match_probability is None


def test_a_moved_model_brings_its_calibration(model: Path, index: Path, gallery: Path, tmp_path: Path) -> None:
    moved = model.rename(tmp_path / "moved")
    with SearchEngine.open(index, model=moved) as engine:
        assert engine.search(two(gallery)[0], k=1).hits[0].match_probability is not None


def test_vectors_are_searched_without_the_models_folder(model: Path, index: Path, tmp_path: Path) -> None:
    model.rename(tmp_path / "gone")
    with SearchEngine.open(index) as engine:
        hit = engine.search_vectors(np.eye(1280, dtype=np.float32)[:1], k=1)[0].hits[0]
    assert hit.match_probability is None


def test_what_is_wrong_reaches_a_python_caller_as_our_error(model: Path, index: Path, gallery: Path) -> None:
    (model / CALIBRATION_FILE).write_text("{")
    with SearchEngine.open(index) as engine:
        with pytest.raises(ModelDamaged, match="delete the file to go without"):
            engine.match(*two(gallery))
        with pytest.raises(PictureError, match="no such file"):
            engine.match(two(gallery)[0], gallery / "nothing.png")


@pytest.mark.parametrize("rerank", [False, True])
def test_hits_below_a_probability_are_left_out(index: Path, gallery: Path, rerank: bool) -> None:
    with SearchEngine.open(index) as engine:
        every = engine.search(gallery / "apple/noto.png", k=12).hits
        bar = every[3].match_probability
        assert bar is not None
        found = engine.search(gallery / "apple/noto.png", k=12, min_probability=bar - 1e-9, rerank=rerank).hits
        assert {hit.key for hit in found} == {hit.key for hit in every[:4]}
        assert [hit.rank for hit in found] == [1, 2, 3, 4]
        assert engine.search(gallery / "apple/noto.png", k=12, min_probability=0, rerank=rerank).hits[3:]
        assert engine.search(gallery / "car/noto.png", min_probability=1.0, rerank=rerank).hits == []
    asked = retrieve("query", gallery / "apple/noto.png", "--min-probability", "1", "--index", index)
    assert (asked.returncode, asked.stdout, asked.stderr) == (4, "", "")
