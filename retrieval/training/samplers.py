"""Which pictures stand together in a batch?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class Batch(NamedTuple):
    """Pictures that are trained on at once.

    Attributes:
        rows: (N,) int64, which of the training pictures.
        labels: (N,) int64; equal ones show the same.
    """

    rows: Rows
    labels: Rows


def groups_of_classes(labels: NDArray[np.int64], size: int, random: np.random.Generator) -> list[Rows]:
    """Deal the pictures of every class into groups of `size`, each picture at least once.

    A class's last group is filled up with pictures drawn from the class again; a class with fewer than `size` pictures
    gives some twice (they will be augmented differently).

    Args:
        labels: (N,) class numbers.
        size: K, at least 2 where positives are wanted.
        random: decides who stands with whom.

    Returns:
        Groups of (K,) rows of one class, in random order.
    """
    groups = []
    for rows in rows_of_classes(labels).values():
        dealt = random.permutation(rows)
        missing = -len(dealt) % size
        if missing:
            others = dealt[: len(dealt) // size * size]  # so that no picture stands twice in a group where enough are
            dealt = np.concatenate([dealt, _drawn(others if len(others) else rows, missing, random)])
        groups += list(dealt.reshape(-1, size))
    return [groups[at] for at in random.permutation(len(groups))]


def batches_of_groups(groups: Sequence[Rows], labels: NDArray[np.int64], classes: int) -> list[Rows]:
    """Gather groups into batches of P different classes.

    Args:
        groups: as `groups_of_classes` deals them; each is used once.
        labels: (N,) class numbers.
        classes: P, groups in a batch.

    Returns:
        Batches of (P * K,) rows. What would not fill a batch of two classes is left out; the last may be smaller.
    """
    waiting: dict[int, list[Rows]] = {}
    order: list[int] = []
    for group in groups:
        label = int(labels[group[0]])
        waiting.setdefault(label, []).append(group)
        order.append(label)
    batches = []
    while waiting:
        # The longest queues first would sort classes by size; the dealt order keeps them mixed.
        chosen = list(dict.fromkeys(order))[:classes]
        if len(chosen) < 2:
            break  # one class alone has no negatives
        batches.append(np.concatenate([waiting[label].pop() for label in chosen]))
        for label in chosen:
            order.remove(label)
            if not waiting[label]:
                del waiting[label]
    return batches


def rows_of_classes(labels: NDArray[np.int64]) -> dict[int, Rows]:
    """The rows of each class, by its number."""
    order = np.argsort(labels, kind="stable")
    values, starts = np.unique(labels[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts)[1:], strict=True))


def _drawn(rows: Rows, count: int, random: np.random.Generator) -> Rows:
    """`count` of the rows, each as often as any other, give or take one."""
    times = -(-count // len(rows))
    return np.concatenate([random.permutation(rows) for _ in range(times)])[:count]
