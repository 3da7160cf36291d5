"""Which pairs are drawn: hits as a search finds them, and random ones, each against a slow loop."""

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.calibration import sample_hits, sample_pairs


def catalogue(
    products: int, pictures: int, seed: int = 0, dim: int = 8
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit rows around one centre a product, and the products."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(products), pictures)
    rows = generator.normal(size=(products, dim))[labels] + generator.normal(size=(len(labels), dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def test_hits_are_what_a_loop_over_all_pictures_finds() -> None:
    embeddings, labels = catalogue(100, 3)  # 300 pictures: more than one block of anchors
    hits = sample_hits(embeddings, labels, seed=0, k=5)
    found: dict[int, set[int]] = {}
    for first, second in zip(hits.first.tolist(), hits.second.tolist(), strict=True):
        found.setdefault(first, set()).add(second)
    for anchor in range(300):
        others = sorted(set(range(300)) - {anchor}, key=lambda other: -float(embeddings[anchor] @ embeddings[other]))
        assert found[anchor] == set(others[:5])


@pytest.mark.parametrize("sample", [sample_hits, sample_pairs])
def test_scores_and_matches_are_those_of_the_rows(sample: object) -> None:
    embeddings, labels = catalogue(40, 3)
    pairs = sample(embeddings, labels, seed=0)  # type: ignore[operator]
    assert 0 < pairs.is_match.sum() < len(pairs.is_match)
    for score, matches, first, second in zip(*pairs, strict=True):
        assert first != second
        assert matches == (labels[first] == labels[second])
        assert score == pytest.approx(float(embeddings[first] @ embeddings[second]), abs=1e-6)


def test_a_picture_without_a_partner_is_not_searched_for_but_may_be_found() -> None:
    embeddings, labels = catalogue(20, 2)
    labels = np.where(np.arange(40) < 10, 100 + np.arange(40), labels)  # the first ten are the only ones of theirs
    hits = sample_hits(embeddings, labels, seed=0, k=39)
    assert set(hits.first.tolist()) == set(range(10, 40))
    assert set(hits.second.tolist()) == set(range(40))


def test_no_more_pictures_are_searched_for_than_asked() -> None:
    embeddings, labels = catalogue(20, 2)
    assert len(set(sample_hits(embeddings, labels, seed=0, anchors=7).first.tolist())) == 7


def test_random_pairs_come_once() -> None:
    embeddings, labels = catalogue(5, 4)
    pairs = sample_pairs(embeddings, labels, seed=0, others=50)
    assert (pairs.first < pairs.second).all()
    assert len(set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))) == len(pairs.first)
    assert pairs.is_match.sum() == 5 * 6  # every pair of a product: 4 over 2


def test_a_product_with_many_pictures_gives_each_few_partners() -> None:
    embeddings, labels = catalogue(2, 50)
    pairs = sample_pairs(embeddings, labels, seed=0, positives=2, others=0)
    assert 100 < len(pairs.scores) <= 200  # two for each of 100, of which some are drawn from both sides
    assert pairs.is_match.all()


@pytest.mark.parametrize("sample", [sample_hits, sample_pairs])
def test_the_seed_decides_which(sample: object) -> None:
    embeddings, labels = catalogue(40, 3)
    first, again, other = (sample(embeddings, labels, seed=seed, anchors=20) for seed in (0, 0, 1))  # type: ignore[operator]
    assert np.array_equal(first.first, again.first)
    assert np.array_equal(first.second, again.second)
    assert not np.array_equal(first.first, other.first)


@pytest.mark.parametrize("sample", [sample_hits, sample_pairs])
@pytest.mark.parametrize("pictures", [0, 1, 6])
def test_labels_with_one_picture_each_give_no_pair(sample: object, pictures: int) -> None:
    embeddings, labels = catalogue(6, 1)
    pairs = sample(embeddings[:pictures], labels[:pictures], seed=0)  # type: ignore[operator]
    assert [len(column) for column in pairs] == [0, 0, 0, 0]


def test_one_product_alone_gives_matching_pairs_only() -> None:
    embeddings, labels = catalogue(1, 4)
    assert sample_pairs(embeddings, labels, seed=0).is_match.all()
    assert len(sample_hits(embeddings, labels, seed=0).scores) == 4 * 3


def test_labels_may_be_strings() -> None:
    embeddings, labels = catalogue(10, 2)
    named = np.array([f"product {label}" for label in labels])
    assert np.array_equal(
        sample_hits(embeddings, named, seed=0).is_match, sample_hits(embeddings, labels, seed=0).is_match
    )


def test_labels_of_another_number_are_refused() -> None:
    embeddings, labels = catalogue(10, 2)
    with pytest.raises(ValueError, match=r"shape \(20, 8\), labels \(19,\)"):
        sample_hits(embeddings, labels[:-1], seed=0)
