"""How do the vectors of queries become ranked answers? Steered, restricted, ranked, and looked up."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from indexer.filters import Where
from indexer.lookup import Picture
from indexer.ranking import Wanted, rank
from indexer.snapshot import Snapshot
from indexer.store import IndexStore
from indexer.vectors import NO_ID, Neighbors, Vectors
from retrieval.calibration import Matcher
from retrieval.errors import ModelError, QueryError, UnknownKey
from retrieval.live import Live
from retrieval.rerank import expand_queries, k_reciprocal_order
from retrieval.results import Hit, SearchResult

RERANKED = 100
_LEAST_LENGTH = 1e-3  # of a sum of unit vectors; float16 rounding alone makes less
UNLIKE_WEIGHT = 0.5  # of a picture that hits should not look like, against one that they should


class Refinements(TypedDict, total=False):
    """What a search may ask for beyond k pictures; each may be left out, and all go together.

    Attributes:
        where: only pictures whose attributes meet this condition, such as "price < 50 and colour in ('red', 'blue')" or
            {"price": {"<": 50}, "colour": ["red", "blue"]}; see `indexer.filter_text`.
        group_by: a field, such as "product_id": of pictures with the same value, only the best. One that lacks the
            field stands for itself.
        offset: leave out the best so many: the hits from rank offset + 1 on.
        min_score: leave out hits with a lower cosine.
        min_probability: leave out hits that are less likely to show the query's product; needs a calibrated model.
        exclude: keys, or one, that must not be among the hits; those that the index does not hold change nothing.
        like: keys, or one, of pictures that hits should look like as well; they are not among the hits.
        unlike: keys, or one, of pictures that hits should not look like; likewise.
        dedup: leave out a hit whose cosine to a better one is at least this.
        expand: search again with the query moved towards so many of its nearest pictures.
        rerank: order the first `RERANKED` hits by how much their neighbourhoods have in common with the query's; scores
            stay what they are.
    """

    where: Where | None
    group_by: str | None
    offset: int
    min_score: float | None
    min_probability: float | None
    exclude: Sequence[str]
    like: Sequence[str]
    unlike: Sequence[str]
    dedup: float | None
    expand: int
    rerank: bool


def answer(
    store: IndexStore,
    live: Live,
    vectors: Vectors | None,
    names: Sequence[str | None],
    k: int,
    threads: int,
    *,
    where: Where | None = None,
    group_by: str | None = None,
    offset: int = 0,
    min_score: float | None = None,
    min_probability: float | None = None,
    exclude: Sequence[str] = (),
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    dedup: float | None = None,
    expand: int = 0,
    rerank: bool = False,
) -> list[SearchResult]:
    """Find what looks like the (Q, D) unit vectors of queries, in the generation of `live`.

    Args:
        vectors: (Q, D); None where `like` alone says what is looked for, which is one query.
        names: (Q,) what each query is called in its answer.
        k: hits of each at most, at least 1.
        threads: that the search may use.

    The others are `Refinements`.

    Raises:
        ValueError: a number is out of its range.
        QueryError: there is nothing to look for.
        FilterError: `where` is not understood, or it or `group_by` is a field that no picture has.
        UnknownKey: the index does not hold a key of `like` or `unlike`.
        ModelError: a probability is asked for, and the model is not calibrated.
    """
    _check_numbers(k, offset, dedup, expand)
    snapshot, matcher = live.snapshot, live.model.matcher
    exclude, like, unlike = ([keys] if isinstance(keys, str) else list(keys) for keys in (exclude, like, unlike))
    named = {*exclude, *like, *unlike}
    ids_of = store.ids_of(snapshot, named) if named else {}
    liked, unliked = (_vectors_of(store, snapshot, ids_of, keys) for keys in (like, unlike))
    vectors = steered(vectors, liked, unliked)
    if expand and len(vectors):
        near = rank(snapshot, vectors, Wanted(expand), threads)
        vectors = expand_queries(vectors, np.stack([snapshot.vectors_of(ids) for ids in near.ids]), near.scores)
    end = offset + k
    wanted = Wanted(
        max(end, RERANKED) if rerank else k,
        0 if rerank else offset,
        _lowest_score(snapshot, matcher, min_score, min_probability),
        None if where is None else store.meeting(snapshot, where),
        frozenset(ids_of.values()),
        None if group_by is None else store.groups(snapshot, group_by),
        dedup,
    )
    found = rank(snapshot, vectors, wanted, threads)
    if rerank:
        found = _reranked(snapshot, vectors, found, offset, end)
    return _results(store, snapshot, matcher, found, names, offset)


def _check_numbers(k: int, offset: int, dedup: float | None, expand: int) -> None:
    if k < 1:
        raise ValueError(f"k is {k}, at least 1 is needed")
    if offset < 0:
        raise ValueError(f"offset is {offset}, at least 0 is needed")
    if expand < 0:
        raise ValueError(f"expand is {expand}, at least 0 is needed")
    if dedup is not None and not 0 < dedup <= 1:
        raise ValueError(f"dedup is {dedup}, a cosine above 0 and at most 1 is needed")


def _vectors_of(store: IndexStore, snapshot: Snapshot, ids_of: Mapping[str, int], keys: Sequence[str]) -> Vectors:
    """(N, D) of N pictures of the index."""
    vectors = snapshot.vectors_of(np.array([ids_of.get(key, NO_ID) for key in keys], np.int64))
    for key, vector in zip(keys, vectors, strict=True):
        if np.isnan(vector[0]):
            raise UnknownKey(f"no picture {key!r} in index {store.index_dir}; nothing can be like or unlike it")
    return vectors


def steered(vectors: Vectors | None, like: Vectors, unlike: Vectors) -> Vectors:
    """Queries moved towards (N, D) pictures of the index and away from (M, D) others, of unit length again.

    Source: Rocchio's feedback formula, Manning et al. 2008, "Introduction to Information Retrieval", ch. 9.
    """
    if vectors is None and not len(like):
        raise QueryError("nothing to look for; give a picture, or the keys of some that it should be like")
    if not len(like) and not len(unlike):
        assert vectors is not None
        return vectors
    wanted = np.zeros((1, like.shape[1]), np.float32) if vectors is None else vectors
    wanted = (wanted + like.sum(axis=0)) / (len(like) + (vectors is not None))
    if len(unlike):
        wanted = wanted - UNLIKE_WEIGHT * unlike.mean(axis=0)
    length = np.linalg.norm(wanted, axis=1, keepdims=True)
    if (length < _LEAST_LENGTH).any():
        raise QueryError("what is to be alike and what is not cancel out; leave out what is in both")
    moved: Vectors = (wanted / length).astype(np.float32)
    return moved


def _lowest_score(
    snapshot: Snapshot, matcher: Matcher | None, min_score: float | None, min_probability: float | None
) -> float:
    """The score that a hit must reach."""
    lowest = -np.inf if min_score is None else min_score
    if min_probability is None:
        return lowest
    if matcher is None:
        raise ModelError(
            f"model {snapshot.space.model_name} is not calibrated, so no probability is known; set a minimum score "
            "instead, or train a model with `retrieve train`"
        )
    return max(lowest, matcher.calibration.least_score(min_probability))


def _reranked(snapshot: Snapshot, vectors: Vectors, found: Neighbors, offset: int, end: int) -> Neighbors:
    """The hits from rank `offset` to `end` of each query, where the first `RERANKED` have changed places."""
    places = np.tile(np.arange(found.ids.shape[1]), (len(vectors), 1))
    for row, query in enumerate(vectors):
        first = int(np.count_nonzero(found.ids[row, :RERANKED] != NO_ID))
        places[row, :first] = k_reciprocal_order(query, snapshot.vectors_of(found.ids[row, :first]))
    ids = np.take_along_axis(found.ids, places, axis=1)[:, offset:end]
    return Neighbors(ids, np.take_along_axis(found.scores, places, axis=1)[:, offset:end])


def _results(
    store: IndexStore,
    snapshot: Snapshot,
    matcher: Matcher | None,
    found: Neighbors,
    names: Sequence[str | None],
    offset: int,
) -> list[SearchResult]:
    """What was found, with what the index says of it."""
    probabilities = _match_probabilities(matcher, found.scores)
    pictures = store.pictures(snapshot, np.unique(found.ids[found.ids != NO_ID]).tolist())
    results = []
    for name, *columns in zip(names, found.ids.tolist(), found.scores.tolist(), probabilities, strict=True):
        hits = [
            _hit(rank_, pictures[id_], score, probability)
            for rank_, (id_, score, probability) in enumerate(zip(*columns, strict=True), offset + 1)
            if id_ != NO_ID
        ]
        results.append(SearchResult(name, hits, snapshot.generation, snapshot.space.model_fingerprint))
    return results


def _match_probabilities(matcher: Matcher | None, scores: NDArray[np.float32]) -> list[list[float | None]]:
    """For (Q, k) scores, -inf where there is no hit."""
    if matcher is None:
        return [[None] * scores.shape[1]] * len(scores)
    probabilities: list[list[float | None]] = matcher.calibration.probability(np.clip(scores, -1, 1)).tolist()
    return probabilities


def _hit(rank: int, picture: Picture, score: float, probability: float | None) -> Hit:
    attributes = picture.attributes
    return Hit(
        rank, picture.key, picture.path, min(score, 1.0), probability, attributes.product_id, attributes.metadata
    )
