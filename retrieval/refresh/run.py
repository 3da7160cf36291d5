"""What a refresh has begun, on disk, so that one that was stopped is gone on with: what it sees, what it holds out."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.files import translated_os_errors
from indexer.spaces import Space
from retrieval.encoder.checkpoint import CONFIG_FILE
from retrieval.errors import PicturesChanged
from retrieval.evaluation.pictures import EmbeddedPictures
from retrieval.feedback import Lessons
from retrieval.refresh.apart import OnEpochs, train_apart
from retrieval.refresh.manifests import manifest_of, read_labels_of, write_manifests
from retrieval.results import FeedbackUse

REFRESH_FOLDER = "refresh"  # of an index
_PLAN = "plan.json"
_FREE_TO_CHANGE = ("threads", "device", "limits")  # they change nothing but the time it takes


@dataclass(frozen=True)
class Run:
    """A refresh that has begun.

    Attributes:
        folder: where it keeps what it has.
        name: of the model that it will make.
        held_out: keys of the pictures that the candidate does not see.
        feedback: what it learns from clicks and rejections.
    """

    folder: Path
    name: str
    held_out: frozenset[str]
    feedback: FeedbackUse

    def train(self, part: str, from_model: str, settings: Mapping[str, Any], on_progress: OnEpochs) -> Path:
        """Train the "candidate" on what is not held out, or the "refit" on everything; once, however often it is asked.

        Returns:
            The model directory.

        Raises:
            As `train_apart`.
        """
        out = self.folder / part / self.name
        unfinished = out.with_name(f"{out.name}.run")
        is_begun = (unfinished / "config.json").is_file()
        if (out / CONFIG_FILE).is_file() and not is_begun:
            return out
        out.parent.mkdir(exist_ok=True)
        source, rejections = manifest_of(self.folder, part)
        fixed = {"source": str(source), "out": str(out), "from_model": from_model, "validation": "none"}
        if rejections.is_file():
            fixed["rejections"] = str(rejections)
        try:
            train_apart({**settings, **fixed}, resume=is_begun, on_progress=on_progress)
        except PicturesChanged:  # some have vanished since it began
            for path in (out, unfinished):
                shutil.rmtree(path, ignore_errors=True)
            train_apart({**settings, **fixed}, resume=False, on_progress=on_progress)
        return out

    def labels(self) -> dict[str, str]:
        """What every labelled picture showed when this began: key -> product."""
        return read_labels_of(manifest_of(self.folder, "refit").pictures)

    def remove(self) -> None:
        """Forget it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def begin(
    index_dir: Path,
    name: str,
    wishes: Mapping[str, Any],
    pictures: EmbeddedPictures,
    held_out: NDArray[np.int64],
    lessons: Lessons,
    feedback: FeedbackUse,
) -> Run:
    """Go on with the refresh that has begun with the same wishes, or begin one with what the index says now.

    Args:
        index_dir: the index.
        name: of the model that a new run makes.
        wishes: what makes it another run if it changes.
        pictures: labelled ones of the index.
        held_out: (H,) rows of these, what the candidate does not see.
        lessons: what feedback adds to them.
        feedback: what became of it.

    Raises:
        DiskFull, IndexReadOnly
    """
    folder = index_dir / REFRESH_FOLDER
    wanted = hashlib.sha256(json.dumps(wishes, sort_keys=True, default=asdict).encode()).hexdigest()
    try:
        plan = json.loads((folder / _PLAN).read_bytes())
        if plan["wanted"] == wanted:
            return Run(folder, plan["name"], frozenset(plan["held_out"]), FeedbackUse.from_dict(plan["feedback"]))
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    keys = [pictures.keys[row] for row in held_out]
    with translated_os_errors(folder):
        folder.mkdir()
        write_manifests(folder, pictures, held_out, lessons)
        plan = {"wanted": wanted, "name": name, "held_out": keys, "feedback": feedback.to_dict()}
        aside = folder / f".{_PLAN}"
        aside.write_text(json.dumps(plan), "utf-8")
        aside.replace(folder / _PLAN)
    return Run(folder, name, frozenset(keys), feedback)


def wishes_of(live: Space, training: Mapping[str, Any], labels: Mapping[str, str], most_per_source: int) -> Any:
    """What makes a refresh another one if it changes: the model, settings of the training, labels that were given."""
    fixed = {name: value for name, value in training.items() if name not in _FREE_TO_CHANGE}
    asked = {"from": live.model_fingerprint, "settings": fixed, "labels": sorted(labels.items())}
    return asked | {"most_per_source": most_per_source}
