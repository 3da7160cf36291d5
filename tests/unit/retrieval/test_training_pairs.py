"""Listed pairs are trained on as they stand; what similar pairs join is held out together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from pictures import jpeg, photo
from retrieval.errors import LabelConflict, TrainingError
from retrieval.gallery.pairs import LabelledPairs, read_pairs
from retrieval.records import ImageRecord
from retrieval.training.config import TrainConfig
from retrieval.training.dataset import open_training_set
from retrieval.training.losses import contrastive_loss
from retrieval.training.objective import open_objective
from retrieval.training.pairs import ListedPairs, classes_of


def listed(count: int, *pairs: tuple[int, int, bool]) -> LabelledPairs:
    records = [ImageRecord(f"{row:02d}", f"/{row}", 0, 0) for row in range(count)]
    first, second, similar = (np.array(column) for column in zip(*pairs, strict=True))
    return LabelledPairs(records, first, second, similar.astype(bool), 0, [])


def test_similar_pairs_join_pictures_into_classes() -> None:
    # 0-1 and 1-3 make one class, 2-4 another, 5 is alone although it was compared with 0.
    labels = classes_of(listed(6, (0, 1, True), (3, 1, True), (4, 2, True), (5, 0, False))).labels

    assert labels.tolist() == [0, 0, 1, 0, 1, 2]


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=20))
def test_classes_are_what_can_be_reached(pairs: list[tuple[int, int]]) -> None:
    labels = classes_of(listed(12, *[(a, b, True) for a, b in pairs])).labels

    reached = np.eye(12, dtype=bool)
    for a, b in pairs:
        reached[a, b] = reached[b, a] = True
    for _ in range(12):
        reached = reached @ reached
    assert ((labels[:, None] == labels) == reached).all()


def test_a_different_pair_within_a_class_is_refused_by_name() -> None:
    with pytest.raises(LabelConflict, match="00 and 02 are said to differ, but similar pairs join them"):
        classes_of(listed(3, (0, 1, True), (1, 2, True), (0, 2, False)))


def test_only_pairs_within_the_training_side_are_left() -> None:
    pairs = ListedPairs(np.array([0, 1, 4]), np.array([2, 3, 2]), np.array([True, False, False]))

    left = pairs.within(np.array([0, 2, 4]))

    assert (left.first.tolist(), left.second.tolist()) == ([0, 2], [1, 1])
    assert left.is_similar.tolist() == [True, False]


def test_every_pair_is_dealt_once_with_its_two_sides_in_the_same_place() -> None:
    pairs = ListedPairs(np.arange(7), np.arange(7) + 7, np.arange(7) % 2 == 0)

    batches = pairs.batches(6, np.random.default_rng(0))

    dealt = []
    for batch in batches:
        half = len(batch.rows) // 2
        for place in range(half):
            first, second = batch.rows[place], batch.rows[half + place]
            dealt.append((first, second, batch.labels[place] == batch.labels[half + place]))
    assert sorted(dealt) == [(row, row + 7, row % 2 == 0) for row in range(7)]
    assert [len(batch.rows) for batch in batches] == [6, 6, 2]


def test_the_loss_sees_the_listed_pairs_and_no_others() -> None:
    config = TrainConfig("pairs.csv", "model", loss="contrastive", miner="all", margin=1.0)
    embeddings = functional.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.tensor([0, 1, 0, 3])  # rows 0 and 2 are similar, 1 and 3 differ

    objective = open_objective(config, 4, 3, lists_pairs=True)
    cost = objective(embeddings, labels, torch.arange(4), None)

    distances = (embeddings[:2] - embeddings[2:]).norm(dim=1)
    # Each kind has one pair, so the mean of each is that pair's own loss.
    expected = contrastive_loss(distances, torch.tensor([True, False]), margin=1.0).sum()
    torch.testing.assert_close(cost.loss, expected)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(photo(seed=number)))
    rows = [f"{a}.jpg,{b}.jpg,{similar}" for a, b, similar in [(0, 1, 1), (2, 3, 1), (4, 5, 1), (6, 7, 1), (0, 2, 0)]]
    path = tmp_path / "pairs.csv"
    path.write_text("anchor,other,similar\n" + "\n".join(rows) + "\n")
    return path


def test_a_pairs_manifest_becomes_a_training_set_with_pairs(manifest: Path) -> None:
    config = TrainConfig(str(manifest), str(manifest.parent / "model"), loss="pair", miner="all", validation="none")

    found = open_training_set(config)

    assert found.pairs is not None
    assert len(found.pairs.first) == len(read_pairs(manifest))
    assert len(found.pictures.names) == 4


def test_a_triplet_loss_on_a_pairs_manifest_is_refused_with_the_losses_that_fit(manifest: Path) -> None:
    config = TrainConfig(str(manifest), str(manifest.parent / "model"), loss="triplet", validation="none")

    with pytest.raises(
        TrainingError, match="lists pairs, which the loss triplet cannot be trained on; pass --loss contr"
    ):
        open_training_set(config)


def test_a_picture_that_cannot_be_used_takes_its_pairs_along(manifest: Path) -> None:
    (manifest.parent / "1.jpg").write_bytes(b"no picture")
    config = TrainConfig(str(manifest), str(manifest.parent / "model"), loss="pair", miner="all", validation="none")

    found = open_training_set(config)

    assert [skip.key for skip in found.skipped] == ["1.jpg"]
    assert found.pairs is not None
    assert len(found.pairs.first) == 4
