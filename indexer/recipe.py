"""How is a segment of vectors searched: one by one, or first by something smaller? And which suits so many of them?"""

import math
import re
from dataclasses import dataclass
from typing import Any

import faiss

from indexer.errors import RecipeError

EXACT = "exact"
AUTO = "auto"
DEFAULT_RECALL = 0.95
_EXACT_VALUES = 12_800_000  # 50,000 vectors of 256 values: below, comparing all takes about a millisecond
_REDUCED_DIM = 256  # of vectors twice as long and longer; nothing is lost by it, docs/decisions/0028
_LISTS_PER_ROOT = 1.3  # of the number of vectors; short codes are read faster than many centroids are compared
_POINTS_PER_CENTROID = 39  # faiss/Clustering.h: with fewer, k-means warns that its centroids mean little
_LEAST_TO_LEARN_FROM = 1000
_ID_BYTES = 8
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, slots=True)
class IndexRecipe:
    """How a segment is searched.

    Attributes:
        factory: a FAISS factory string of the first stage, or `EXACT`: all vectors are compared.
        reason: for people.
        memory_bytes: what the first stage is expected to take. The vectors themselves, two bytes a value, are read from
            the disk where an answer needs them.
    """

    factory: str
    reason: str
    memory_bytes: int


def choose_recipe(n: int, dim: int, *, memory_bytes: int | None = None) -> IndexRecipe:
    """The recipe for n vectors of `dim` values: the fastest whose first stage fits into so much memory.

    What it finds of the true neighbours is not chosen here: a build tunes each recipe to the share that is asked for.

    Args:
        memory_bytes: None: as much as there is.

    Raises:
        RecipeError: not even the smallest codes fit.

    Source: `benchmarks/bench_codes.py` and docs/decisions/0034; the limit below which all are compared is an estimate.
    """
    if n * dim < _EXACT_VALUES or n < _LEAST_TO_LEARN_FROM:
        return IndexRecipe(EXACT, f"{n} vectors are compared one by one in a moment", 0)
    lists = _list_count(n)
    short = _REDUCED_DIM if dim >= 2 * _REDUCED_DIM else _cuttable(dim)
    rotation = "PCAR" if short < dim else "RR"
    least = 0
    for values, why in (
        (2, "two bits a value find nearly all"),
        (4, "two bits a value do not fit into the memory"),
    ):
        parts = short // values  # of four bits each
        least = n * (parts // 2 + _ID_BYTES) + 4 * short * (lists + dim)
        if memory_bytes is None or least <= memory_bytes:
            factory = f"{rotation}{short},IVF{lists},PQ{parts}x4fs"
            return IndexRecipe(factory, f"{n} vectors in {lists} lists; {why}", least)
    raise RecipeError(
        f"memory of {memory_bytes} bytes given, {n} vectors of {dim} values need {least} with the smallest codes; "
        "give more, or --recipe exact, which needs none and takes its time"
    )


def read_recipe(said: str, n: int, dim: int, *, memory_bytes: int | None = None) -> IndexRecipe:
    """The recipe that somebody has named: `auto`, `exact` or a FAISS factory string.

    Raises:
        RecipeError: FAISS does not know it, does not take vectors of this length, or has too few to learn from; or it
            is of a kind that cannot be tuned or searched under conditions; or nothing fits into the memory.
    """
    if said == AUTO:
        return choose_recipe(n, dim, memory_bytes=memory_bytes)
    if said == EXACT:
        return IndexRecipe(EXACT, "asked for", 0)
    needed = least_to_train(empty_index(said, dim))
    if n < needed:
        raise RecipeError(
            f"recipe {said!r} learns from at least {needed} vectors, {n} are there; write fewer lists, auto or exact"
        )
    return IndexRecipe(said, "asked for", 0)


def empty_index(factory: str, dim: int) -> Any:
    """An empty FAISS index of a recipe.

    Raises:
        RecipeError: as for `read_recipe`, but for what depends on the number of vectors.
    """
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1].split(": ", 1)[-1][:200]
        raise RecipeError(f"recipe {factory!r} is none that FAISS takes for {dim} values: {why}") from error
    inner = innermost(index)
    if not isinstance(inner, faiss.IndexIVF | faiss.IndexHNSW | faiss.IndexScalarQuantizer) or lists_of(index) == 0:
        raise RecipeError(
            f"recipe {factory!r} is not of a kind that can be used here; write lists (IVF4096,SQ8), a graph "
            "(HNSW32,SQ8) or short codes (SQ8), with PCA or OPQ in front if you like"
        )
    return index


def innermost(index: Any) -> Any:
    """The index behind transformations of the vectors."""
    index = faiss.downcast_index(index)
    return innermost(index.index) if isinstance(index, faiss.IndexPreTransform) else index


def lists_of(index: Any) -> int | None:
    """The number of its lists, or None where it has none."""
    inner = innermost(index)
    return int(inner.nlist) if isinstance(inner, faiss.IndexIVF) else None


def least_to_train(index: Any) -> int:
    """The number of vectors below which what an index learns means little."""
    return _POINTS_PER_CENTROID * centroids_of(index)


def centroids_of(index: Any) -> int:
    """How many places an index learns at once: those of its lists, or of one part of its codes."""
    codes = getattr(innermost(index), "pq", None)
    return max(lists_of(index) or 1, 1 if codes is None else int(codes.ksub))


def read_memory(said: str) -> int:
    """A number of bytes as people write it: 4GB, 500 MB.

    Raises:
        RecipeError: it is not written so.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]B)\s*", said, re.IGNORECASE)
    if not found:
        raise RecipeError(f"memory {said!r} is no size; write it as 500MB or 4GB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def _cuttable(dim: int) -> int:
    """So many values or a few more, which are cut into parts of two and of four, and these into pairs."""
    return 8 * math.ceil(dim / 8)


def _list_count(n: int) -> int:
    """About 1.3 sqrt(n) lists, a power of two, each with enough vectors to learn from."""
    lists = 2 ** round(math.log2(_LISTS_PER_ROOT * math.sqrt(n)))
    while lists * _POINTS_PER_CENTROID > n:
        lists //= 2
    return int(lists)
