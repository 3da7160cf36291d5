"""The encoder on a GPU: torch, channels last, bfloat16; imports torch."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.encoder.rows import check_pixels, unit_rows
from retrieval.encoder.twin import TwinEncoder
from retrieval.errors import DeviceUnavailable

DEFAULT_BATCH_SIZE = 64
_BATCHES_IN_FLIGHT = 2  # CUDA queues work: one batch computes while the next is copied
T = TypeVar("T")


class TorchEncoder:
    """Pixels to embeddings by torch; satisfies `Encoder`.

    Args:
        twin: the network with its weights.
        device: "cuda", "cuda:1", or "cpu" (slow; for comparison).
        batch_size: pictures in a batch of a stream.
        precision: of inference; "auto" is bfloat16 on a GPU.

    Raises:
        DeviceUnavailable: torch cannot use that device.
    """

    def __init__(
        self,
        twin: TwinEncoder,
        *,
        device: str,
        batch_size: int = DEFAULT_BATCH_SIZE,
        precision: Literal["auto", "f32", "bf16"] = "auto",
    ) -> None:
        self._device = check_device(device)
        self.name = twin.config.name
        self.fingerprint = twin.fingerprint()
        self.dim = twin.config.dim
        self.preprocessing = twin.config.preprocessing
        self.batch_size = batch_size
        on_gpu = self._device.type == "cuda"
        self.precision = "bf16" if precision == "bf16" or (precision == "auto" and on_gpu) else "f32"
        self._twin: TwinEncoder | None = twin.eval().to(self._device).to(memory_format=torch.channels_last)
        self._lock = threading.Lock()

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed (N, 3, P, P) pictures, any N, as (N, D) unit rows.

        Raises:
            ValueError: another shape or type, or the encoder is closed.
        """
        check_pixels(pixels, self.preprocessing.input_px)
        starts = range(0, len(pixels), self.batch_size)
        batches = ((start, pixels[start : start + self.batch_size]) for start in starts)
        rows = np.empty((len(pixels), self.dim), np.float32)
        for start, embeddings in self.encode_stream(batches):
            rows[start : start + len(embeddings)] = embeddings
        return rows

    def encode_stream(self, batches: Iterable[tuple[T, NDArray[np.uint8]]]) -> Iterator[tuple[T, NDArray[np.float32]]]:
        """Embed batches while the next ones are being made; as `Encoder.encode_stream` says.

        Raises:
            ValueError: a batch of another shape or type, or of too many pictures, or the encoder is closed.
        """
        in_flight: deque[tuple[T, Tensor]] = deque()
        for tag, pixels in batches:
            check_pixels(pixels, self.preprocessing.input_px, at_most=self.batch_size)
            in_flight.append((tag, self._start(pixels)))
            if len(in_flight) >= _BATCHES_IN_FLIGHT:
                yield _finish(*in_flight.popleft())
        while in_flight:
            yield _finish(*in_flight.popleft())

    def close(self) -> None:
        """Free the network's memory; the encoder cannot be used any more."""
        with self._lock:
            self._twin = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _start(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Queue a batch; on a GPU this returns before it is computed."""
        with self._lock:
            twin = self._twin
        if twin is None:
            raise ValueError("the encoder is closed")
        if not len(pixels):
            return torch.empty(0, self.dim)
        batch = torch.tensor(pixels)  # a copy: the caller may reuse its array
        if self._device.type == "cuda":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        autocast = (
            torch.autocast(self._device.type, torch.bfloat16) if self.precision == "bf16" else contextlib.nullcontext()
        )
        with torch.inference_mode(), autocast:
            embeddings: Tensor = twin(batch.contiguous(memory_format=torch.channels_last))
        return embeddings


def check_device(device: str) -> torch.device:
    """Find a device by its name.

    Raises:
        DeviceUnavailable: torch cannot use it.
    """
    wanted = torch.device(device)
    if wanted.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (wanted.index or 0) >= count:
            found = f"torch finds {count} CUDA device(s)" if count else "torch finds no CUDA device"
            raise DeviceUnavailable(f"device {device} is not available: {found}; use --device cpu or auto")
    return wanted


def _finish(tag: T, embeddings: Tensor) -> tuple[T, NDArray[np.float32]]:
    return tag, unit_rows(embeddings.float().cpu().numpy())
