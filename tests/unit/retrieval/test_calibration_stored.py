"""calibration.json: what comes back, what is refused, and that a failed write spoils nothing."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from retrieval.calibration import Matcher, find_matcher, find_matcher_if_whole, fit_match, load_matcher, save_matcher
from retrieval.calibration.stored import CALIBRATION_FILE
from retrieval.errors import ModelDamaged, ModelError

FINGERPRINT = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(60), 3)
    rows = generator.normal(size=(60, 8))[labels] + 0.5 * generator.normal(size=(180, 8))
    fitted = fit_match((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels, seed=0)
    assert fitted is not None
    return fitted


@pytest.fixture
def saved(tmp_path: Path, matcher: Matcher) -> Path:
    """A folder with a calibration, which passes for a model directory by its (unread) config.json."""
    save_matcher(matcher, tmp_path, FINGERPRINT)
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_what_is_saved_is_loaded(saved: Path, matcher: Matcher) -> None:
    loaded = load_matcher(saved, FINGERPRINT)
    assert loaded is not None
    assert loaded.to_dict() == matcher.to_dict()


def test_it_is_found_by_the_model_directory(saved: Path) -> None:
    assert find_matcher(str(saved), FINGERPRINT) is not None


def test_a_packaged_model_has_none() -> None:
    assert find_matcher("efficientnet_lite0", FINGERPRINT) is None


def test_a_model_without_the_file_has_none(tmp_path: Path) -> None:
    assert load_matcher(tmp_path, FINGERPRINT) is None


def test_that_of_other_weights_is_none(saved: Path) -> None:
    assert load_matcher(saved, "f" * 64) is None


def test_any_altered_digit_is_seen(saved: Path) -> None:
    path = saved / CALIBRATION_FILE
    text = path.read_text()
    at = text.index('"slope": ') + len('"slope": ')
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    with pytest.raises(ModelDamaged, match="differs from its checksum"):
        load_matcher(saved, FINGERPRINT)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"format": 1}', b"\xff\xfe"])
def test_a_damaged_file_is_one_line_with_the_remedy(saved: Path, content: bytes) -> None:
    (saved / CALIBRATION_FILE).write_bytes(content)
    with pytest.raises(ModelDamaged, match=r"calibration\.json cannot be read .*delete the file") as caught:
        load_matcher(saved, FINGERPRINT)
    assert "\n" not in str(caught.value)


def test_that_of_a_newer_program_is_refused_as_such(saved: Path) -> None:
    values = json.loads((saved / CALIBRATION_FILE).read_text())
    (saved / CALIBRATION_FILE).write_text(json.dumps({**values, "format": 2}))
    with pytest.raises(ModelError, match="format 2, this program reads 1; update the program"):
        load_matcher(saved, FINGERPRINT)


def test_a_search_goes_without_a_damaged_one_and_says_so_once(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    (saved / CALIBRATION_FILE).write_text("{")
    with caplog.at_level(logging.WARNING, logger="retrieval"):
        assert find_matcher_if_whole(saved, FINGERPRINT) is None
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["hits come without match probabilities"]


def test_a_search_goes_without_the_models_folder(tmp_path: Path) -> None:
    assert find_matcher_if_whole(str(tmp_path / "gone"), FINGERPRINT) is None


def test_a_failed_write_leaves_the_former_file_and_nothing_else(
    saved: Path, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (saved / CALIBRATION_FILE).read_bytes()

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        save_matcher(matcher, saved, "f" * 64)
    assert (saved / CALIBRATION_FILE).read_bytes() == before
    assert sorted(path.name for path in saved.iterdir()) == [CALIBRATION_FILE, "config.json"]
