"""Which runtime turns pixels into embeddings here? OpenVINO on a CPU, torch on a GPU, behind one protocol."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.encoder import openvino_runtime
from retrieval.encoder.artifact import ModelDescription, describe_model, prepare_model
from retrieval.encoder.backbones import DEFAULT_MODEL, resolve_model
from retrieval.encoder.compiled import Precision, cpu_precision
from retrieval.encoder.listing import ModelListing, list_models
from retrieval.encoder.preprocess import Preprocessing
from retrieval.errors import DeviceUnavailable
from retrieval.threads import thread_budget

__all__ = [
    "DEFAULT_MODEL",
    "Encoder",
    "ModelDescription",
    "ModelListing",
    "Precision",
    "describe_model",
    "list_models",
    "open_encoder",
]

T = TypeVar("T")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


class Encoder(Protocol):
    """Pixels to embeddings. Methods may be called from several threads at once.

    Attributes:
        name: what people call the model.
        fingerprint: names the embedding space.
        dim: D.
        preprocessing: how a picture becomes (3, P, P) pixels.
        batch_size: the most pictures in a batch of `encode_stream`.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see the class
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def preprocessing(self) -> Preprocessing: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed (N, 3, P, P) uint8 pictures, any N, as (N, D) unit rows.

        Raises:
            ValueError: another shape or type, or the encoder is closed.
        """
        ...

    def encode_stream(self, batches: Iterable[tuple[T, NDArray[np.uint8]]]) -> Iterator[tuple[T, NDArray[np.float32]]]:
        """Embed batches while the next ones are being made.

        Args:
            batches: a tag of the caller's and (N, 3, P, P) uint8, N from 0 to `batch_size`. The array may be reused
                as soon as the next batch is asked for.

        Yields:
            Each tag with its (N, D) unit rows, in the order of the batches, a few batches behind them.

        Raises:
            ValueError: a batch of another shape or type, or of too many pictures, or the encoder is closed.
        """
        ...

    def close(self) -> None:
        """Free the model; the encoder cannot be used any more."""
        ...


def open_encoder(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    device: str = "auto",
    threads: int | None = None,
    batch_size: int | None = None,
    precision: Precision = "auto",
) -> Encoder:
    """Open a model for inference; torch is imported only for a GPU.

    Args:
        model: a packaged model, a model directory, or a name in torchvision or timm.
        device: "auto" takes the first GPU if there is one; else "cpu", "cuda" or "cuda:1".
        threads: cores to keep busy, None for all this process may use; see `thread_budget`.
        batch_size: pictures in a batch of a stream; None takes what suits the device.
        precision: "auto" computes in bfloat16 where the device does; embeddings stay float32.

    Raises:
        DeviceUnavailable: the device is not there, or lacks the precision.
        UnknownModel, WeightsUnavailable, ModelDamaged, ModelError: as `prepare_model` says.
        ValueError: `threads` or `batch_size` is less than 1.
    """
    if not _DEVICE.fullmatch(device):
        raise DeviceUnavailable(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:0, cuda:1, ...")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, at least 1 is needed")
    budget = thread_budget(threads)
    if device.startswith("cuda") and not has_gpu():
        raise DeviceUnavailable(f"device {device} is not available: no NVIDIA GPU on this machine; use --device cpu")
    if device != "cpu" and has_gpu():
        try:
            return _open_on_gpu(model, "cuda:0" if device == "auto" else device, batch_size, precision)
        except DeviceUnavailable:  # a GPU without its driver, or a torch built for CPUs
            if device != "auto":
                raise
    return openvino_runtime.OpenVinoEncoder(
        prepare_model(model),
        threads=budget.inference,
        batch_size=batch_size or openvino_runtime.DEFAULT_BATCH_SIZE,
        precision=cpu_precision(precision),
    )


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is visible; a look at the device files, because asking torch costs a second and 0.8 GB."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    # /dev/dxg: the GPU of the Windows host under WSL; it may be another maker's, which torch then finds out.
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def _open_on_gpu(model: str | os.PathLike[str], device: str, batch_size: int | None, precision: Precision) -> Encoder:
    from retrieval.encoder import torch_runtime
    from retrieval.encoder.weights import load_twin

    torch_runtime.check_device(device)  # before seconds are spent on the weights
    twin = load_twin(resolve_model(model).address)
    return torch_runtime.TorchEncoder(
        twin,
        device=device,
        batch_size=batch_size or torch_runtime.DEFAULT_BATCH_SIZE,
        precision=precision,
    )
