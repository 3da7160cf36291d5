"""What goes into an encoder and what comes out: the checks that every runtime shares."""

import numpy as np
from numpy.typing import NDArray


def check_pixels(pixels: NDArray[np.uint8], input_px: int, at_most: int | None = None) -> None:
    """Refuse what is not a batch of preprocessed pictures.

    Args:
        pixels: to be (N, 3, P, P) uint8.
        input_px: P.
        at_most: the limit of N, or None.

    Raises:
        ValueError: names what was found and what is expected.
    """
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (3, input_px, input_px):
        raise ValueError(f"pixels are {pixels.shape} {pixels.dtype}, expected (N, 3, {input_px}, {input_px}) uint8")
    if at_most is not None and len(pixels) > at_most:
        raise ValueError(f"a batch holds {len(pixels)} pictures, the encoder takes {at_most}")


def unit_rows(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to length 1 in float32: the network's own norm is only as exact as its precision.

    Args:
        embeddings: (N, D), a row of zeros stays one.

    Returns:
        A new (N, D) array.
    """
    rows = np.array(embeddings, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    np.divide(rows, norms, out=rows, where=norms > 0)
    return rows
