"""Where is what a model knows about "the same product?" kept? In calibration.json, in its model directory."""

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.calibration.matching import Matcher
from retrieval.encoder.backbones import resolve_model
from retrieval.errors import ModelDamaged, ModelError, UnknownModel

CALIBRATION_FILE = "calibration.json"
_FORMAT = 1
_logger = logging.getLogger(__name__)


def save_matcher(matcher: Matcher, folder: Path, fingerprint: str) -> None:
    """Write `CALIBRATION_FILE` into a model directory, whole or not at all; a former one is replaced.

    It is no part of the model's fingerprint: the embeddings are the same with it and without.

    Args:
        matcher: what was fitted to embeddings of this model.
        folder: the model directory.
        fingerprint: the model's; the file is of no use to another.

    Raises:
        OSError: there is no such folder, or the disk is full or read-only; a former file stands as it was.
    """
    values = {"format": _FORMAT, "fingerprint": fingerprint, **matcher.to_dict()}
    text = json.dumps({**values, "sha256": _digest(values)}, indent=1, sort_keys=True, allow_nan=False) + "\n"
    aside = folder / f".{CALIBRATION_FILE}.{uuid.uuid4().hex}"
    try:
        with aside.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / CALIBRATION_FILE)
    finally:
        aside.unlink(missing_ok=True)


def load_matcher(folder: Path, fingerprint: str) -> Matcher | None:
    """Read what `save_matcher` wrote.

    Returns:
        None where there is none, or one that was fitted to other weights: the model was trained on since.

    Raises:
        ModelDamaged: the file cannot be parsed, or differs from its checksum.
        ModelError: it was written for another version of the format.
    """
    path = folder / CALIBRATION_FILE
    try:
        values = json.loads(path.read_bytes())
        if values["format"] != _FORMAT:
            raise ModelError(f"{path} has format {values['format']}, this program reads {_FORMAT}; update the program")
        claimed = values.pop("sha256")
        if claimed != _digest(values):
            raise ValueError("it differs from its checksum")
        return Matcher.from_dict(values) if values["fingerprint"] == fingerprint else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"missing {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ModelDamaged(
            f"{path} cannot be read ({reason}); copy the model directory again, or delete the file to go without "
            "match probabilities"
        ) from error


def find_matcher(model: str | os.PathLike[str], fingerprint: str) -> Matcher | None:
    """What a model knows about "the same product?"; None for a model that has no directory, or nothing there.

    Raises:
        UnknownModel, ModelDamaged, ModelError
    """
    folder = resolve_model(model).folder
    return None if folder is None else load_matcher(folder, fingerprint)


def find_matcher_if_whole(model: str | os.PathLike[str], fingerprint: str) -> Matcher | None:
    """The same for a search, which answers without it: what is wrong with the file becomes a warning."""
    try:
        return find_matcher(model, fingerprint)
    except UnknownModel:
        return None  # whoever opens the encoder says so, with the remedy; vectors can be searched for without
    except ModelError as error:
        _logger.warning("hits come without match probabilities: %s", error)
        return None


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
