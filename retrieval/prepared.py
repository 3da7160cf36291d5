"""The steps of a query, one by one, so that what several callers ask can be embedded together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.vectors import Vectors
from retrieval.live import Live

T = TypeVar("T")
Answer = TypeVar("Answer")


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

    def embed(of_model: list[PreparedQuery]) -> list[EmbeddedQuery]:
        encoder = of_model[0].live.model.embedder.encoder
        vectors = encoder.encode(np.stack([query.pixels for query in of_model]))
        return [EmbeddedQuery(query.live, vectors[row : row + 1]) for row, query in enumerate(of_model)]

    return in_groups(queries, lambda query: query.live.model, embed)


def in_groups(
    items: Sequence[T], what: Callable[[T], object], done: Callable[[list[T]], Sequence[Answer]]
) -> list[Answer]:
    """What is done with items, all at once with those that have the same thing in common, in the order of the items.

    Args:
        what: they have in common: the very same, or equal.
        done: what is done with such a group.
    """
    groups: list[tuple[object, list[int]]] = []
    for place, item in enumerate(items):
        common = what(item)
        places = next((places for known, places in groups if known is common or known == common), None)
        if places is None:
            groups.append((common, [place]))
        else:
            places.append(place)
    answers: dict[int, Answer] = {}
    for _, places in groups:
        answers.update(zip(places, done([items[place] for place in places]), strict=True))
    return [answers[place] for place in range(len(items))]
