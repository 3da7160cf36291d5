"""The steps of a query, one by one, so that what several callers ask can be embedded together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.vectors import Vectors
from retrieval.live import Live


@dataclass(frozen=True, slots=True, eq=False)
class PreparedQuery:
    """A picture as the model of one generation takes it.

    Attributes:
        live: the generation, and its model.
        pixels: (3, P, P) uint8.
    """

    live: Live
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedQuery:
    """A picture as that model sees it.

    Attributes:
        live: the generation, and its model.
        vector: (1, D) unit float32.
    """

    live: Live
    vector: Vectors


def embed_together(queries: Sequence[PreparedQuery]) -> list[EmbeddedQuery]:
    """Embed queries, all at once where they are of one model."""
    places: dict[int, list[int]] = {}
    for place, query in enumerate(queries):
        places.setdefault(id(query.live.model), []).append(place)
    done: dict[int, EmbeddedQuery] = {}
    for of_model in places.values():
        encoder = queries[of_model[0]].live.model.embedder.encoder
        vectors = encoder.encode(np.stack([queries[place].pixels for place in of_model]))
        for row, place in enumerate(of_model):
            done[place] = EmbeddedQuery(queries[place].live, vectors[row : row + 1])
    return [done[place] for place in range(len(queries))]
