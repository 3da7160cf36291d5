"""What a refresh has begun, on disk, so that one that was stopped is gone on with: what it sees, what it holds out."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
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
from retrieval.records import ImageRecord
from retrieval.refresh.apart import OnEpochs, train_apart

REFRESH_FOLDER = "refresh"  # of an index
_PLAN, _SEEN, _ALL = "plan.json", "seen.jsonl", "all.jsonl"
_FREE_TO_CHANGE = ("threads", "device", "limits")  # they change nothing but the time it takes


@dataclass(frozen=True)
class Run:
    """A refresh that has begun.

    Attributes:
        folder: where it keeps what it has.
        name: of the model that it will make.
        held_out: keys of the pictures that the candidate does not see.
    """

    folder: Path
    name: str
    held_out: frozenset[str]

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
        source = self.folder / (_SEEN if part == "candidate" else _ALL)
        fixed = {"source": str(source), "out": str(out), "from_model": from_model, "validation": "none"}
        try:
            train_apart({**settings, **fixed}, resume=is_begun, on_progress=on_progress)
        except PicturesChanged:  # some have vanished since it began
            for path in (out, unfinished):
                shutil.rmtree(path, ignore_errors=True)
            train_apart({**settings, **fixed}, resume=False, on_progress=on_progress)
        return out

    def labels(self) -> dict[str, str]:
        """What every labelled picture showed when this began: key -> product."""
        lines = (self.folder / _ALL).read_text("utf-8").splitlines()
        return {row["key"]: row["product_id"] for row in map(json.loads, lines)}

    def remove(self) -> None:
        """Forget it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def begin(
    index_dir: Path,
    live: Space,
    name: str,
    settings: Mapping[str, Any],
    labels: Mapping[str, str],
    pictures: EmbeddedPictures,
    held_out_rows: NDArray[np.int64],
) -> Run:
    """Go on with the refresh that has begun from the same model with the same settings and labels, or begin one.

    Args:
        index_dir: the index.
        live: its live space.
        name: of the model that a new run makes.
        settings: of the training.
        labels: that were given beside the index's own.
        pictures: labelled ones of the index.
        held_out_rows: of these, what the candidate does not see.

    Raises:
        DiskFull, IndexReadOnly
    """
    folder = index_dir / REFRESH_FOLDER
    fixed = {name: value for name, value in settings.items() if name not in _FREE_TO_CHANGE}
    asked = {"from": live.model_fingerprint, "settings": fixed, "labels": sorted(labels.items())}
    wanted = hashlib.sha256(json.dumps(asked, sort_keys=True, default=asdict).encode()).hexdigest()
    try:
        plan = json.loads((folder / _PLAN).read_bytes())
        if plan["wanted"] == wanted:
            return Run(folder, plan["name"], frozenset(plan["held_out"]))
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    records, labelled = pictures.pictures.records, pictures.pictures
    seen = np.setdiff1d(np.arange(len(records)), held_out_rows)
    held_out = [records[row].key for row in held_out_rows]
    with translated_os_errors(folder):
        folder.mkdir()
        _write_manifest(folder / _SEEN, ((records[row], labelled.label(row)) for row in seen))
        _write_manifest(folder / _ALL, ((record, labelled.label(row)) for row, record in enumerate(records)))
        plan = {"wanted": wanted, "name": name, "held_out": held_out}
        aside = folder / f".{_PLAN}"
        aside.write_text(json.dumps(plan), "utf-8")
        aside.replace(folder / _PLAN)
    return Run(folder, name, frozenset(held_out))


def _write_manifest(path: Path, labelled: Iterable[tuple[ImageRecord, str]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record, label in labelled:
            box = {} if record.box is None else {"box": list(record.box) if record.box.is_relative else record.box[:4]}
            file.write(json.dumps({"path": record.path, "key": record.key, "product_id": label} | box) + "\n")
