"""How does it come into an index what people said of hits? One by one from a backend, or by the file from its logs."""

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from indexer.feedback import Judgement
from indexer.schema import is_storable
from indexer.store import IndexStore
from retrieval.embedder import ImageLike, content_of, naming
from retrieval.errors import ManifestError, PictureError, UnknownKey
from retrieval.gallery.tables import FLAGS, read_jsonl, reading
from retrieval.images import DEFAULT_LIMITS, DecodeLimits, decode
from retrieval.records import Box, Skipped, box_text, read_sides
from retrieval.results import FeedbackReport

_ROWS_AT_ONCE = 256  # in one commit: each waits for the disk


class Word(NamedTuple):
    """What somebody says of a hit; see `SearchEngine.record_feedback`."""

    query: ImageLike
    key: str
    relevant: bool
    source: str | None = None
    box: Box | None = None


def record(store: IndexStore, word: Word, limits: DecodeLimits) -> None:
    """Write down one judgement; see `SearchEngine.record_feedback`."""
    if store.record_feedback([_judgement(store, word, limits)]):
        raise UnknownKey(
            f"no picture {word.key!r} in index {store.index_dir}; feedback is about pictures that are there"
        )


def record_file(
    index_dir: str | os.PathLike[str], path: str | os.PathLike[str], *, limits: DecodeLimits = DEFAULT_LIMITS
) -> FeedbackReport:
    """Write down what a JSONL file says of hits; lines that were written down before may be there again.

    Each line is an object: `query`, a picture's path, relative to the file; `key`, of a picture of the index;
    `relevant`, true or false; if they are known, `source`, who says so, and `box`, the part that was searched with:
    left, top, width and height in pixels.

    Args:
        index_dir: the index.
        path: the file.
        limits: which query pictures are too large.

    Returns:
        How many were recorded. Those of pictures that the index does not hold, and those whose query picture cannot be
        used, are set aside and named.

    Raises:
        ManifestError: a line is not understood; nothing was recorded.
        GalleryError: the file cannot be read.
        IndexNotFound, IndexReadOnly, IndexBusy, DiskFull
    """
    words = _read_file(Path(os.path.abspath(path)))
    recorded, skipped = 0, list[Skipped]()
    with closing(IndexStore(index_dir)) as store:
        for start in range(0, len(words), _ROWS_AT_ONCE):
            usable: list[Judgement] = []
            for word in words[start : start + _ROWS_AT_ONCE]:
                try:
                    usable.append(_judgement(store, word, limits))
                except PictureError as error:
                    skipped.append(Skipped(word.key, f"query {error}"))
            strangers = store.record_feedback(usable)
            skipped += [Skipped(key, "the index holds no such picture") for key in strangers]
            recorded += len(usable) - len(strangers)
    return FeedbackReport(recorded, skipped)


def _judgement(store: IndexStore, word: Word, limits: DecodeLimits) -> Judgement:
    """A judgement with a query picture that can be used; bytes, images and arrays are kept in the index.

    Raises:
        PictureError: it cannot be used; nothing was kept.
    """
    query, key, relevant, source, box = word
    with naming(query):
        content = content_of(query, limits)
        decode(content, min_side_px=1, box=box, limits=limits)
    path = os.path.abspath(query) if isinstance(query, str | os.PathLike) else store.keep(content)
    return Judgement(xxhash.xxh3_128_hexdigest(content), path, key, relevant, source or "", box_text(box) or "")


def _read_file(path: Path) -> list[Word]:
    with reading("feedback", path):
        table = read_jsonl(path)
    return [_read_row(row, f"{path.name} line {number}", path.parent) for number, row in table.rows]


def _read_row(row: Mapping[str, Any], where: str, folder: Path) -> Word:
    missing = [name for name in ("query", "key", "relevant") if name not in row]
    if missing:
        raise ManifestError(
            f"{where} lacks {missing[0]}; every line names a query picture, the key of a picture of the index, and "
            "whether that is relevant"
        )
    relevant = FLAGS.get(str(row["relevant"]).lower())
    if relevant is None:
        raise ManifestError(f'{where}: relevant is "{row["relevant"]}"; write true or false')
    source, box = row.get("source"), row.get("box")
    is_box = isinstance(box, list) and all(type(side) in (int, float) for side in box) and read_sides(box) is not None
    if box is not None and not is_box:
        raise ManifestError(f"{where}: box is {box}; write [left, top, width, height] in pixels")
    word = Word(
        str(folder / str(row["query"])),
        str(row["key"]),
        relevant,
        None if source is None else str(source),
        None if box is None else Box(*box),
    )
    for name, text in (("query", str(word.query)), ("source", word.source or "")):
        if not is_storable(text):
            raise ManifestError(f"{where}: {name} is {text!r}, which is not UTF-8; rename it")
    return word
