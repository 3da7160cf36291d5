"""What is a training to learn from? The labelled pictures of an index, and what feedback adds to them, as files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.pictures import EmbeddedPictures
from retrieval.feedback import Lessons
from retrieval.feedback.weighing import Query
from retrieval.records import Box, ImageRecord, box_of, box_text

Row = dict[str, Any]


class Manifest(NamedTuple):
    """Files of one training.

    Attributes:
        pictures: what is trained on.
        rejections: what is not the same as some of these; not there if nothing is known to be.
    """

    pictures: Path
    rejections: Path


def manifest_of(folder: Path, part: str) -> Manifest:
    """Where the files of the "candidate" or the "refit" are."""
    return Manifest(folder / f"{part}.jsonl", folder / f"{part}-rejections.jsonl")


def write_manifests(folder: Path, pictures: EmbeddedPictures, held_out: NDArray[np.int64], lessons: Lessons) -> None:
    """Write what the refit learns from, which is everything, and what the candidate does, which is not held out.

    The candidate learns from no feedback on a picture that is held out, nor on a product that is held out whole.

    Args:
        folder: where they go.
        pictures: labelled ones.
        held_out: (H,) rows of these.
        lessons: of feedback.
    """
    labelled, everything = pictures.pictures, np.arange(len(pictures.keys))
    seen = np.setdiff1d(everything, held_out)
    products = {labelled.label(row) for row in seen}
    hidden = {query_of(pictures, row) for row in held_out}
    seen_lessons = Lessons(
        {query: product for query, product in lessons.products.items() if product in products},
        [(query, key) for query, key in lessons.rejections if query not in hidden],
        lessons.paths,
    )
    for part, rows, learned in (("refit", everything, lessons), ("candidate", seen, seen_lessons)):
        names = manifest_of(folder, part)
        index_rows = (_row(labelled.records[row]) | {"product_id": labelled.label(row)} for row in rows)
        _write(names.pictures, [*index_rows, *_of_queries(learned)])
        if learned.rejections:
            _write(names.rejections, [_of_query(query, learned) | {"key": key} for query, key in learned.rejections])


def read_labels_of(manifest: Path) -> dict[str, str]:
    """What the pictures of a written manifest show, by their keys."""
    return {row["key"]: row["product_id"] for row in map(json.loads, manifest.read_text("utf-8").splitlines())}


def query_of(pictures: EmbeddedPictures, row: int) -> Query:
    """A picture of the index as feedback would name it, had it been searched with."""
    return Query(pictures.content_hashes[row], box_text(pictures.pictures.records[row].box) or "")


def _of_queries(lessons: Lessons) -> Iterator[Row]:
    for query, product in lessons.products.items():
        key = f"feedback {query.content_hash}{query.box}"
        yield _of_query(query, lessons) | {"key": key, "product_id": product}


def _of_query(query: Query, lessons: Lessons) -> Row:
    return {"path": lessons.paths[query]} | _box(box_of(query.box or None))


def _row(record: ImageRecord) -> Row:
    return {"path": record.path, "key": record.key} | _box(record.box)


def _box(box: Box | None) -> Row:
    return {} if box is None else {"box": list(box) if box.is_relative else box[:4]}


def _write(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
