"""What does a network that is being trained say of pictures now? Embeddings by torch, as indexing would see them."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.encoder.rows import unit_rows
from retrieval.encoder.twin import TwinEncoder
from retrieval.errors import TrainingDiverged
from retrieval.training.loader import BatchLoader
from retrieval.training.precision import Precision
from retrieval.training.samplers import Rows

_AT_ONCE = 32


def embed_rows(twin: TwinEncoder, loader: BatchLoader, rows: Rows, precision: Precision) -> NDArray[np.float32]:
    """(M, D) unit embeddings of (M,) rows of the loader's pictures; the network is left in evaluation mode.

    Raises:
        TrainingDiverged: the network's weights or what it says are no numbers any more.
        TrainingError: a picture cannot be read any more.
    """
    embeddings = _run(twin, twin, loader, rows, precision).numpy()
    if not np.isfinite(embeddings).all():
        raise TrainingDiverged(
            "the embeddings are no numbers any more; lower --rates or --clip; what was saved before is untouched"
        )
    return unit_rows(embeddings)


def features_of_rows(twin: TwinEncoder, loader: BatchLoader, rows: Rows, precision: Precision) -> Tensor:
    """(M, F) pooled backbone features of (M,) rows, float32 on the CPU."""
    return _run(twin, twin.features, loader, rows, precision)


def _run(
    twin: TwinEncoder, compute: Callable[[Tensor], Tensor], loader: BatchLoader, rows: Rows, precision: Precision
) -> Tensor:
    twin.eval()
    batches = np.split(rows, range(_AT_ONCE, len(rows), _AT_ONCE))
    with torch.inference_mode(), precision.autocast():
        return torch.cat(
            [compute(precision.pixels(pixels)).float().cpu() for pixels in loader.embedding_batches(batches)]
        )
