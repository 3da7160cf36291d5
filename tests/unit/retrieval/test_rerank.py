"""A query is moved towards what it found, and hits that find one another come first."""

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.rerank import expand_queries, k_reciprocal_order


def on_a_circle(*degrees: float) -> NDArray[np.float32]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def unit_rows(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def degrees(rows: NDArray[np.float32]) -> list[float]:
    return np.degrees(np.arctan2(rows[:, 1], rows[:, 0])).tolist()  # type: ignore[no-any-return]


def test_expansion_worked_by_hand() -> None:
    # Of alpha 0, the mean of 0, 0 and 90 degrees points to atan(1/2).
    queries, neighbors = on_a_circle(0), on_a_circle(0, 90)[None]
    moved = expand_queries(queries, neighbors, np.array([[1, 0.5]], np.float32), alpha=0)
    assert degrees(moved) == pytest.approx([np.degrees(np.arctan(0.5))], abs=1e-3)
    # Of alpha 2, the second weighs a quarter.
    moved = expand_queries(queries, neighbors, np.array([[1, 0.5]], np.float32), alpha=2)
    assert degrees(moved) == pytest.approx([np.degrees(np.arctan(0.25 / 2))], abs=1e-3)


def test_neighbours_that_are_not_there_or_point_elsewhere_count_nothing() -> None:
    neighbors = np.stack([on_a_circle(30, 180), np.full((2, 2), np.nan, np.float32)])
    scores = np.array([[0.5, -1], [-np.inf, -np.inf]], np.float32)
    moved = expand_queries(on_a_circle(0, 70), neighbors, scores)
    alone = expand_queries(on_a_circle(0), on_a_circle(30)[None], scores[:1, :1])
    assert degrees(moved) == pytest.approx([degrees(alone)[0], 70], abs=1e-3)


def test_expanded_queries_are_of_unit_length() -> None:
    moved = expand_queries(unit_rows(5, 8), unit_rows(5, 3, 8, seed=1), np.full((5, 3), 0.7, np.float32))
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-6)
    assert moved.dtype == np.float32


def slow_order(query: NDArray[np.float32], neighbors: NDArray[np.float32], k1: int, k2: int, share: float) -> list[int]:
    """The paper's steps on sets and loops."""
    rows = [query.astype(np.float64), *neighbors.astype(np.float64)]
    count = len(rows)
    apart = [[max(0.0, 2 - 2 * float(a @ b)) for b in rows] for a in rows]
    ranked = [sorted(range(count), key=lambda j, i=i: (apart[i][j], j)) for i in range(count)]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in ranked[i][: k + 1] if i in ranked[j][: k + 1]}

    encoded = []
    for i in range(count):
        own = reciprocal(i, k1)
        wide = [reciprocal(j, round(k1 / 2)) for j in own]
        members = own.union(*(others for others in wide if len(others & own) > 2 / 3 * len(others)))
        weights = {j: np.exp(-apart[i][j] / max(max(apart[i]), 1e-12)) for j in members}
        encoded.append([weights.get(j, 0.0) / sum(weights.values()) for j in range(count)])
    averaged = [np.mean([encoded[j] for j in ranked[i][:k2]], axis=0) for i in range(count)]
    costs = []
    for i in range(1, count):
        low = sum(min(a, b) for a, b in zip(averaged[0], averaged[i], strict=True))
        high = sum(max(a, b) for a, b in zip(averaged[0], averaged[i], strict=True))
        costs.append((1 - share) * (1 - low / high) + share * apart[0][i] / max(apart[0]))
    return sorted(range(count - 1), key=lambda i: (round(costs[i], 6), i))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k1", "k2", "share"), [(20, 6, 0.3), (5, 2, 0.0), (3, 1, 0.7)])
def test_the_order_equals_a_slow_one(seed: int, k1: int, k2: int, share: float) -> None:
    rows = unit_rows(31, 6, seed=seed)
    found = k_reciprocal_order(rows[0], rows[1:], k1=k1, k2=k2, share=share).tolist()
    expected = slow_order(rows[0], rows[1:], k1, k2, share)
    assert sorted(found) == list(range(30))
    assert np.mean(np.array(found) == np.array(expected)) > 0.9  # equal costs may swap places


def test_by_plain_distance_alone_the_order_is_that_of_the_scores() -> None:
    rows = unit_rows(20, 6)
    order = k_reciprocal_order(rows[0], rows[1:], share=1.0)
    np.testing.assert_array_equal(order, np.argsort(-(rows[1:] @ rows[0])))


def test_a_lone_hit_that_belongs_to_others_falls_behind() -> None:
    # The query's kind lies at 0 to 12 degrees, another kind begins at -9: nearer than the last of its own kind, but
    # those near it are of the other kind.
    kind, other = (3.0, 6.0, 9.0, 12.0), (-9.0, -10.0, -11.0, -12.0, -13.0, -14.0)
    order = k_reciprocal_order(on_a_circle(0)[0], on_a_circle(*kind, *other), k1=4, k2=1, share=0.3)
    assert order[:4].tolist() == [0, 1, 2, 3]


def test_of_no_hits_there_is_no_order() -> None:
    assert k_reciprocal_order(on_a_circle(0)[0], on_a_circle()).tolist() == []
