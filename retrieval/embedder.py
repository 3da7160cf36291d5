"""Pictures as a caller holds them, whether file, bytes, image or array, to unit vectors."""

import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from indexer.vectors import Vectors
from retrieval.encoder.preprocess import decode_min_side, preprocess
from retrieval.encoder.runtime import Encoder
from retrieval.errors import PictureError
from retrieval.images import DecodeLimits, decode, read_bytes
from retrieval.records import Box
from retrieval.threads import usable_cores

ImageLike = str | os.PathLike[str] | bytes | PIL.Image.Image | NDArray[np.uint8]
"""A picture: path, file contents, PIL image, or (H, W, 3) uint8 RGB array."""

_CROP_SIDE = 0.8  # of a picture's own
_CROPS = ((0.0, 0.0), (0.2, 0.0), (0.0, 0.2), (0.2, 0.2), (0.1, 0.1))  # left and top: the corners and the middle
_AT_ONCE = 64  # pictures decoded before they are encoded: bounds the memory of a large batch


class Embedder:
    """An encoder that is opened when the first picture needs it, from whichever thread that is."""

    def __init__(self, open_model: Callable[[], Encoder], limits: DecodeLimits) -> None:
        self._open_model = open_model
        self._limits = limits
        self._encoder: Encoder | None = None
        self._lock = threading.Lock()

    @property
    def encoder(self) -> Encoder:
        """The encoder, opened now if it is not yet.

        Raises:
            ModelError, DeviceUnavailable, ModelMismatch
        """
        if self._encoder is None:
            with self._lock:
                if self._encoder is None:
                    self._encoder = self._open_model()
        return self._encoder

    @property
    def is_open(self) -> bool:
        """Whether some picture has needed the encoder."""
        return self._encoder is not None

    def embed(self, images: Sequence[ImageLike], box: Box | None = None) -> Vectors:
        """(N, D) float32 unit embeddings of N pictures, or of the part `box` of each.

        Raises:
            PictureError: one of them cannot be used; names it where it has a name.
        """
        encoder = self.encoder
        if len(images) == 1:
            return encoder.encode(self.pixels(images[0], box)[np.newaxis])
        parts = [np.empty((0, encoder.dim), np.float32)]
        with ThreadPoolExecutor(usable_cores()) as pool:
            for start in range(0, len(images), _AT_ONCE):
                pixels = pool.map(lambda image: self.pixels(image, box), images[start : start + _AT_ONCE])
                parts.append(encoder.encode(np.stack(list(pixels))))
        return np.concatenate(parts)

    def embed_crops(self, images: Sequence[ImageLike]) -> Vectors:
        """(N, D) float32 unit means of the embeddings of each picture and of five parts of it.

        Raises:
            PictureError: one of them cannot be used; names it where it has a name.
        """
        total = self.embed(images)
        for left, top in _CROPS:
            total = total + self.embed(images, Box(left, top, _CROP_SIDE, _CROP_SIDE, is_relative=True))
        mean: Vectors = total / np.linalg.norm(total, axis=1, keepdims=True)
        return mean

    def pixels(self, image: ImageLike, box: Box | None = None) -> NDArray[np.uint8]:
        """(3, P, P) of a picture, or of the part `box` of it, as the encoder takes it.

        Raises:
            PictureError: it cannot be used; names it where it has a name.
        """
        how = self.encoder.preprocessing
        box = None if box is None else Box(*box)  # a caller's may be a plain tuple
        with naming(image):
            pixels = decode(image, min_side_px=decode_min_side(how), box=box, limits=self._limits)
        return preprocess(pixels, how)

    def close(self) -> None:
        """Let go of the encoder."""
        if self._encoder is not None:
            self._encoder.close()


@contextmanager
def naming(image: ImageLike) -> Iterator[None]:
    """Put the name of a picture that has one, a file, in front of what is wrong with it."""
    try:
        yield
    except PictureError as error:
        if isinstance(image, str | os.PathLike):
            raise type(error)(f"{os.fspath(image)}: {error}") from error
        raise


def content_of(image: ImageLike, limits: DecodeLimits) -> bytes:
    """The bytes of a picture file: as they are, or PNG made of an image or array.

    Raises:
        PictureError: it cannot be read, or is no picture.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return read_bytes(image)
    buffer = io.BytesIO()
    PIL.Image.fromarray(decode(image, limits=limits)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
