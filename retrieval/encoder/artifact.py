"""Where is a model in OpenVINO's format, and how does it get there?"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retrieval.encoder.backbones import BACKBONES, ModelReference, local_weights, resolve_model, user_cache
from retrieval.encoder.checkpoint import ModelConfig, read_config
from retrieval.encoder.child import call_child
from retrieval.encoder.preprocess import PREPROCESSING_VERSION, Preprocessing
from retrieval.errors import ModelDamaged, ModelError

CONVERTER_VERSION = 1  # raise it when the same weights are to be converted anew
IR_FILES = ("model.xml", "model.bin")
DESCRIPTION_FILE = "model.json"
_ATTEMPTS = 5  # each lost to another process that publishes the same model
_ABANDONED_AFTER_S = 24 * 3600.0
_CONVERTER = "retrieval.encoder.convert"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelDescription:
    """What can be said of a model without running it.

    Attributes:
        name: what people call it.
        fingerprint: names its embedding space (64 hex digits).
        dim: D, the length of an embedding.
        preprocessing: how a picture becomes its input.
    """

    name: str
    fingerprint: str
    dim: int
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Artifact:
    """A model in OpenVINO's format.

    Attributes:
        description: what it computes.
        folder: holds model.xml and model.bin; where no cache can be written, it lives as long as this object.
        checksums: sha256 of those files.
    """

    description: ModelDescription
    folder: Path
    checksums: Mapping[str, str]

    def verified_ir(self) -> Path:
        """The path of model.xml, after a look at both files.

        Raises:
            ModelDamaged: a file is missing or differs from its checksum.
        """
        for name, expected in self.checksums.items():
            try:
                found = hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
            except OSError:
                found = "missing"
            if found != expected:
                raise ModelDamaged(
                    f"{self.folder / name} differs from its checksum; delete {self.folder}, it will be made again"
                )
        return self.folder / IR_FILES[0]


def prepare_model(model: str | os.PathLike[str]) -> Artifact:
    """Find a model in OpenVINO's format, or convert it in a child process and keep the result.

    A model directory's conversion lies inside it, where it travels along, or in the user's cache if the directory
    cannot be written. Other models' lie in the user's cache, in a folder named by what the conversion starts from and
    not by the model's fingerprint: to know the fingerprint one has to read the weights, which takes torch, and a
    cached model must be found without it. Where nothing can be written, the
    result lives in a temporary folder for as long as it is used.

    Raises:
        UnknownModel, WeightsUnavailable, ModelDamaged: as `load_twin` says.
        ModelError: the conversion failed for another reason.
    """
    reference = resolve_model(model)
    expected = None if reference.folder is None else read_config(reference.folder)[1]
    places = list(_places(reference, expected))
    for folder in places:
        if (artifact := read_artifact(folder, expected)) is not None:
            return artifact
    is_known = reference.kind != "library"  # torch says so of the others, and takes seconds to import
    doing = "preparing %s" if is_known else "looking for %s in torchvision and timm, to prepare it"
    _logger.info(f"{doing} for this machine; this happens once and takes some ten seconds", reference.name)
    target = reference.address
    for folder in places:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(folder)
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        except OSError:
            continue
        try:
            aside.chmod(0o755)  # mkdtemp makes it private
            call_child(_CONVERTER, target, str(aside))
            return _publish(aside, folder, expected)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return _convert_for_now(target, expected)


def describe_model(model: str | os.PathLike[str]) -> ModelDescription:
    """Say what a model is; cheap once it was converted.

    Raises:
        ModelError: as `prepare_model` says.
    """
    return prepare_model(model).description


def read_artifact(folder: Path, fingerprint: str | None = None) -> Artifact | None:
    """Read what a folder holds, or None if it holds no usable conversion.

    Args:
        folder: where `prepare_model` keeps a conversion.
        fingerprint: the model's, if known; a conversion of another model is not usable.
    """
    try:
        values = json.loads((folder / DESCRIPTION_FILE).read_bytes())
        is_current = values["converter_version"] == CONVERTER_VERSION
        preprocessing = Preprocessing.from_dict(values["preprocessing"])
        description = ModelDescription(values["name"], values["fingerprint"], values["dim"], preprocessing)
        checksums = {name: str(values["files"][name]) for name in IR_FILES}
    except (OSError, ValueError, KeyError, TypeError, ModelError):  # ModelError: of another preprocessing version
        return None
    if not is_current or fingerprint not in (None, description.fingerprint):
        return None
    return Artifact(description, folder, checksums)


def write_description(folder: Path, config: ModelConfig, fingerprint: str, checksums: Mapping[str, str]) -> None:
    """Write the description beside a conversion; `read_artifact` reads it."""
    values = {
        "converter_version": CONVERTER_VERSION,
        "name": config.name,
        "fingerprint": fingerprint,
        "dim": config.dim,
        "preprocessing": config.preprocessing.to_dict(),
        "files": dict(checksums),
    }
    (folder / DESCRIPTION_FILE).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def _places(reference: ModelReference, fingerprint: str | None) -> Iterator[Path]:
    """Where a model's conversion may lie, best first."""
    origin: dict[str, Any] = {"converter": CONVERTER_VERSION, "preprocessing": PREPROCESSING_VERSION}
    kind = "models"  # what a name alone opens
    if reference.kind == "packaged":
        origin["backbone"] = asdict(BACKBONES[reference.name])
    elif reference.folder is not None:
        yield reference.folder / "openvino"
        kind = "directories"
        origin["fingerprint"] = fingerprint
    else:
        origin["name"] = reference.name
        if (path := local_weights(reference.name)) is not None:
            status = path.stat()  # replaced weights are another model
            origin["weights"] = [path.name, status.st_size, status.st_mtime_ns]
    key = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:12]
    yield user_cache() / kind / f"{reference.name.replace('/', '-')}-{key}"


def _publish(aside: Path, folder: Path, fingerprint: str | None) -> Artifact:
    """Rename a conversion into its place; if another process was first, take its result."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(OSError):  # the place is taken
            aside.rename(folder)
        if (artifact := read_artifact(folder, fingerprint)) is not None:
            return artifact
        with contextlib.suppress(OSError):  # taken by something outdated: out of the way, unless another was faster
            former = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            folder.rename(former)
            shutil.rmtree(former, ignore_errors=True)
    raise ModelError(f"{folder} cannot be replaced; delete it and run again")


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed conversions left beside a folder; a running one is younger."""
    for path in folder.parent.glob(f".{folder.name}.*"):
        if path.stat().st_mtime < time.time() - _ABANDONED_AFTER_S:
            shutil.rmtree(path, ignore_errors=True)


def _convert_for_now(model: str, fingerprint: str | None) -> Artifact:
    folder = Path(tempfile.mkdtemp(prefix="retrieve-"))
    try:
        call_child(_CONVERTER, model, str(folder))
        artifact = read_artifact(folder, fingerprint)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    assert artifact is not None, "the child reported success"
    weakref.finalize(artifact, shutil.rmtree, folder, ignore_errors=True)
    return artifact
