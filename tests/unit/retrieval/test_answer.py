"""Where a query goes when it is steered towards some pictures and away from others."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.answer import steered
from retrieval.errors import QueryError


def on_a_circle(*degrees: float) -> NDArray[np.float32]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


NONE = on_a_circle()


def degrees(vectors: NDArray[np.float32]) -> list[float]:
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    return [math.degrees(math.atan2(y, x)) for x, y in vectors.tolist()]


def test_without_anything_to_steer_by_a_query_stays_as_it_is() -> None:
    query = on_a_circle(10, 20)
    assert steered(query, NONE, NONE) is query


def test_queries_move_half_way_to_one_picture_and_further_to_several() -> None:
    assert degrees(steered(on_a_circle(0, 40), on_a_circle(60), NONE)) == pytest.approx([30, 50], abs=1e-3)
    assert degrees(steered(on_a_circle(0), on_a_circle(90, 90), NONE)) == pytest.approx(
        [math.degrees(math.atan(2))], abs=1e-3
    )


def test_pictures_alone_are_one_query_in_their_midst() -> None:
    assert degrees(steered(None, on_a_circle(0, 60), NONE)) == pytest.approx([30], abs=1e-3)


def test_what_is_unlike_counts_half() -> None:
    # (1, 0) - (0, 1) / 2
    assert degrees(steered(on_a_circle(0), NONE, on_a_circle(90, 90))) == pytest.approx(
        [-math.degrees(math.atan(0.5))], abs=1e-3
    )
    # ((1, 0) + (0, 1)) / 2 - (0, 1) / 2
    assert degrees(steered(on_a_circle(0), on_a_circle(90), on_a_circle(90))) == pytest.approx([0], abs=1e-3)


@pytest.mark.parametrize("vectors", [None, on_a_circle(0)])
def test_what_cancels_out_points_nowhere(vectors: NDArray[np.float32] | None) -> None:
    opposite = on_a_circle(0, 180) if vectors is None else on_a_circle(180)
    with pytest.raises(QueryError, match="cancel out"):
        steered(vectors, opposite, NONE)


@pytest.mark.parametrize("unlike", [NONE, on_a_circle(5)])
def test_without_a_query_something_must_be_liked(unlike: NDArray[np.float32]) -> None:
    with pytest.raises(QueryError, match="nothing to look for"):
        steered(None, NONE, unlike)
