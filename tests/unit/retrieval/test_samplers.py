"""Batches hold groups of one class each, of different classes, and leave nothing out that could be learned from."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.training.samplers import Rows, batches_of_groups, groups_of_classes, rows_of_classes

LABELS = st.lists(st.integers(0, 6), max_size=40)
SIZES = st.integers(1, 5)
CLASSES = st.integers(2, 5)
SEEDS = st.integers(0, 2**31)


def as_labels(labels: list[int]) -> NDArray[np.int64]:
    return np.array(labels, np.int64)


def dealt(labels: list[int], size: int, seed: int = 0) -> list[Rows]:
    return groups_of_classes(as_labels(labels), size, np.random.default_rng(seed))


def one_group_each(classes: list[int]) -> tuple[list[Rows], NDArray[np.int64]]:
    """Groups of two rows, dealt in the order of the classes given, and the labels of the rows."""
    labels = np.repeat(as_labels(classes), 2)
    return [np.array([2 * at, 2 * at + 1]) for at in range(len(classes))], labels


def classes_of(batches: list[Rows], labels: NDArray[np.int64], size: int = 2) -> list[list[int]]:
    return [[int(labels[row]) for row in batch[::size]] for batch in batches]


# Rows


@given(LABELS)
def test_rows_of_classes_equal_a_slow_loop(labels: list[int]) -> None:
    expected: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        expected.setdefault(label, []).append(row)
    found = rows_of_classes(as_labels(labels))
    assert {label: rows.tolist() for label, rows in found.items()} == expected


# Groups


def test_groups_worked_by_hand() -> None:
    # The three pictures of 7 make two groups, of which the second takes one of the first again; 9 stands there twice.
    groups = sorted(sorted(group.tolist()) for group in dealt([7, 9, 7, 7], 2))
    of_seven = [group for group in groups if 1 not in group]
    assert [1, 1] in groups
    assert len(groups) == 3
    assert set().union(*of_seven) == {0, 2, 3}


@given(labels=LABELS, size=SIZES, seed=SEEDS)
def test_every_picture_is_dealt_at_least_once(labels: list[int], size: int, seed: int) -> None:
    assert {int(row) for group in dealt(labels, size, seed) for row in group} == set(range(len(labels)))


@given(labels=LABELS, size=SIZES, seed=SEEDS)
def test_a_group_is_of_one_class_and_of_the_size_asked_for(labels: list[int], size: int, seed: int) -> None:
    for group in dealt(labels, size, seed):
        assert group.shape == (size,)
        assert len({labels[row] for row in group}) == 1


@given(labels=LABELS, size=SIZES, seed=SEEDS)
def test_a_class_gets_no_more_groups_than_its_pictures_need(labels: list[int], size: int, seed: int) -> None:
    groups = Counter(labels[group[0]] for group in dealt(labels, size, seed))
    assert groups == {label: -(-count // size) for label, count in Counter(labels).items()}


@given(labels=LABELS, size=SIZES, seed=SEEDS)
def test_the_pictures_of_a_small_class_repeat_evenly(labels: list[int], size: int, seed: int) -> None:
    counts = Counter(labels)
    for group in dealt(labels, size, seed):
        if counts[labels[group[0]]] < size:
            times = Counter(group.tolist()).values()
            assert max(times) - min(times) <= 1


@given(labels=LABELS, size=SIZES, seed=SEEDS)
def test_no_picture_stands_twice_in_a_group_where_its_class_has_enough(labels: list[int], size: int, seed: int) -> None:
    counts = Counter(labels)
    for group in dealt(labels, size, seed):
        if counts[labels[group[0]]] >= size:
            assert len(set(group.tolist())) == size


def test_the_same_seed_deals_the_same_groups() -> None:
    labels = [0, 1, 2] * 7
    np.testing.assert_array_equal(dealt(labels, 4, seed=3), dealt(labels, 4, seed=3))


def test_another_seed_puts_other_pictures_together() -> None:
    labels = [0] * 12
    assert not np.array_equal(np.sort(dealt(labels, 4, seed=3)), np.sort(dealt(labels, 4, seed=4)))


def test_classes_are_mixed_in_the_order_of_groups() -> None:
    classes = [int(group[0]) // 10 for group in dealt(sorted(list(range(6)) * 10), 2)]
    assert classes != sorted(classes)


def test_nothing_is_dealt_from_nothing() -> None:
    assert dealt([], 4) == []


# Batches


def test_batches_worked_by_hand() -> None:
    # Two groups of class 0, one each of 1 and 2, two classes a batch: the second batch has 0 again and what is left.
    groups, labels = one_group_each([0, 0, 1, 2])
    batches = batches_of_groups(groups, labels, 2)
    assert [set(classes) for classes in classes_of(batches, labels)] == [{0, 1}, {0, 2}]
    assert sorted(np.concatenate(batches).tolist()) == list(range(8))


def test_a_single_class_that_is_left_over_is_left_out() -> None:
    groups, labels = one_group_each([0, 1, 0, 0])
    assert [set(classes) for classes in classes_of(batches_of_groups(groups, labels, 2), labels)] == [{0, 1}]


def test_one_class_alone_makes_no_batch() -> None:
    groups, labels = one_group_each([4, 4, 4])
    assert batches_of_groups(groups, labels, 2) == []


def test_no_group_makes_no_batch() -> None:
    assert batches_of_groups([], as_labels([]), 3) == []


def test_fewer_classes_than_asked_for_make_smaller_batches() -> None:
    groups, labels = one_group_each([0, 1, 2, 2, 1, 0])
    assert [sorted(classes) for classes in classes_of(batches_of_groups(groups, labels, 16), labels)] == [[0, 1, 2]] * 2


@given(labels=LABELS, size=SIZES, classes=CLASSES, seed=SEEDS)
def test_a_batch_holds_whole_groups_of_different_classes(labels: list[int], size: int, classes: int, seed: int) -> None:
    groups = dealt(labels, size, seed)
    batches = batches_of_groups(groups, as_labels(labels), classes)
    known = Counter(tuple(group.tolist()) for group in groups)
    for batch in batches:
        inside = [tuple(group) for group in batch.reshape(-1, size).tolist()]
        known.subtract(inside)
        assert 2 <= len(inside) <= classes
        assert len({labels[group[0]] for group in inside}) == len(inside)
    assert min(known.values(), default=0) >= 0  # each was used once at most


@given(labels=LABELS, size=SIZES, classes=CLASSES, seed=SEEDS)
def test_only_groups_of_one_class_are_left_out(labels: list[int], size: int, classes: int, seed: int) -> None:
    groups = dealt(labels, size, seed)
    batches = batches_of_groups(groups, as_labels(labels), classes)
    left = Counter(labels[group[0]] for group in groups)
    for batch in batches:
        left.subtract(labels[row] for row in batch[::size])
    assert sum(count > 0 for count in left.values()) <= 1


@given(labels=LABELS, size=SIZES, classes=CLASSES, seed=SEEDS)
def test_a_batch_is_full_as_long_as_there_are_classes(labels: list[int], size: int, classes: int, seed: int) -> None:
    groups = dealt(labels, size, seed)
    left = Counter(labels[group[0]] for group in groups)
    for batch in batches_of_groups(groups, as_labels(labels), classes):
        assert len(batch) // size == min(classes, len(left))
        left = +(left - Counter(labels[row] for row in batch[::size]))


def test_the_same_groups_make_the_same_batches() -> None:
    labels = [0, 1, 2, 3, 1, 1] * 4
    first, second = (batches_of_groups(dealt(labels, 2), as_labels(labels), 3) for _ in range(2))
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in second]
