"""How good is a model, or an index? Embed queries and gallery, rank, score, and compare with a second model."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from indexer.store import IndexStore
from retrieval.encoder.runtime import Encoder, open_encoder
from retrieval.errors import GalleryError
from retrieval.evaluation.pictures import EmbeddedPictures, OnProgress, embed_pictures, index_pictures, read_side
from retrieval.evaluation.summary import Evaluated, compared, summarised
from retrieval.gallery.labelled import LabelledPictures
from retrieval.images import DEFAULT_LIMITS, DecodeLimits
from retrieval.index_model import ModelOptions, open_index_model
from retrieval.results import EvaluationReport, ModelInfo

Source = str | os.PathLike[str]


@dataclass(frozen=True)
class EvaluationOptions:
    """How an evaluation goes about it."""

    device: str = "auto"
    threads: int | None = None  # None: every core this process may use
    limits: DecodeLimits = DEFAULT_LIMITS  # what is too large to decode
    seed: int = 0  # of the bootstrap


def evaluate(
    queries: Source,
    gallery: Source | None = None,
    *,
    model: Source | None = None,
    index: Source | None = None,
    compare: Source | None = None,
    options: EvaluationOptions = EvaluationOptions(),
    on_progress: OnProgress | None = None,
) -> EvaluationReport:
    """Rank a gallery, or the pictures of an index, for every query, and say how good the rankings are.

    Queries and gallery are folders of class folders, manifests or published data sets (their test part); a hit is
    right if both pictures have the same product_id, else label, else class folder. Pictures of which nothing says what
    they show are left out and counted.

    A picture is no answer to itself: whatever in the gallery has the same bytes as the query, under whatever name, is
    left out of that query's ranking. So queries and gallery may be the same folder: each is ranked against all others.
    Queries of whose product the gallery then holds no picture are left out and counted.

    Args:
        queries: the pictures to search for.
        gallery: the pictures to search in; with `model`.
        model: a name or model directory, which embeds both.
        index: an index directory in place of `model` and `gallery`: its pictures with its own vectors. The queries are
            embedded by the model that it was built by.
        compare: a second model, on the same queries and gallery, by paired tests. The pictures of an index are read
            again for it; those that are not there any more are left out for both.
        options: device, threads, limits, seed.
        on_progress: called after each picture.

    Raises:
        ValueError: neither or both of `index` and `model` with `gallery` are given.
        LabelsMissing: nothing says what the queries, or the gallery's pictures, show.
        GalleryError: a source cannot be used, or no query's product is in the gallery.
        ModelMismatch: the index was built by another model than now has its model's name.
        UnknownModel, WeightsUnavailable, ModelDamaged, DeviceUnavailable
        IndexNotFound, IndexTooNew, IndexDamaged, IndexReadOnly
    """
    if (index is None) == (model is None) or (model is None) != (gallery is None):
        raise ValueError("give either an index, or a model and a gallery")
    asked = read_side(queries, "query")
    if index is not None:
        runs = _on_index(index, asked, compare, options, on_progress)
    else:
        assert model is not None
        assert gallery is not None
        is_same = os.path.realpath(queries) == os.path.realpath(gallery)
        held = asked if is_same else read_side(gallery, "gallery")
        _refuse_strangers(asked, held)
        runs = [embedded(name, asked, held, options, on_progress) for name in (model, compare) if name is not None]
    first, second = runs[0], runs[-1]
    if first is second:
        return summarised(first, options.seed)
    first, second = _on_common_pictures(first, second)
    return compared(first, second, options.seed)


def embedded(
    model: Source,
    asked: LabelledPictures,
    held: LabelledPictures,
    options: EvaluationOptions = EvaluationOptions(),
    on_progress: OnProgress | None = None,
) -> Evaluated:
    """Queries and gallery as a model embeds them; the pictures once, where both are the same object."""
    with _opened(model, options) as encoder:
        queries = _embed(asked, encoder, "queries", options, on_progress)
        gallery = queries if held is asked else _embed(held, encoder, "gallery", options, on_progress)
        return Evaluated(_described(encoder), queries, gallery)


def _on_index(
    index: Source,
    asked: LabelledPictures,
    compare: Source | None,
    options: EvaluationOptions,
    on_progress: OnProgress | None,
) -> list[Evaluated]:
    with ExitStack() as stack:
        store = IndexStore(index)
        stack.callback(store.close)
        gallery = index_pictures(store)
        _refuse_strangers(asked, gallery.pictures)
        how = ModelOptions(options.device, options.threads, limits=options.limits)
        embedder = open_index_model(store.index_dir, store.space, how).embedder
        stack.callback(embedder.close)
        queries = _embed(asked, embedder.encoder, "queries", options, on_progress)
        runs = [Evaluated(_described(embedder.encoder), queries, gallery)]
    if compare is not None:
        runs.append(embedded(compare, asked, gallery.pictures, options, on_progress))
    return runs


def _embed(
    pictures: LabelledPictures, encoder: Encoder, side: str, options: EvaluationOptions, on_progress: OnProgress | None
) -> EmbeddedPictures:
    return embed_pictures(
        pictures, encoder, side=side, limits=options.limits, threads=options.threads, on_progress=on_progress
    )


@contextmanager
def _opened(model: Source, options: EvaluationOptions) -> Iterator[Encoder]:
    encoder = open_encoder(model, device=options.device, threads=options.threads)
    try:
        yield encoder
    finally:
        encoder.close()


def _described(encoder: Encoder) -> ModelInfo:
    return ModelInfo(encoder.name, encoder.fingerprint, encoder.dim)


def _refuse_strangers(asked: LabelledPictures, held: LabelledPictures) -> None:
    """Raise where no query can be answered, before anything is embedded."""
    if not set(asked.names) & set(held.names):
        raise GalleryError(
            f"the gallery shows none of the {len(asked.names)} products of the queries: those are named "
            f'"{asked.names[0]}", the gallery\'s "{held.names[0]}"; name products alike on both sides'
        )


def _on_common_pictures(first: Evaluated, second: Evaluated) -> tuple[Evaluated, Evaluated]:
    """Both on the pictures that both could use: a file may be lost meanwhile, or since an index was made."""
    asked = set(first.queries.keys) & set(second.queries.keys)
    held = set(first.gallery.keys) & set(second.gallery.keys)
    return first.only(asked, held), second.only(asked, held)
