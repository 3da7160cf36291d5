"""How are pairs that somebody called similar or different trained on? As they stand; classes follow from them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import LabelConflict
from retrieval.gallery.labelled import LabelledPictures, number_classes
from retrieval.gallery.pairs import LabelledPairs
from retrieval.training.samplers import Batch, Rows


@dataclass(frozen=True)
class ListedPairs:
    """M pairs of the pictures of a training set.

    Attributes:
        first, second: (M,) int64 rows of the pictures.
        is_similar: (M,) bool.
    """

    first: Rows
    second: Rows
    is_similar: NDArray[np.bool_]

    def within(self, rows: Rows) -> "ListedPairs":
        """The pairs of which both pictures are among `rows`, now counted within these."""
        place = np.full(max(self.first.max(initial=-1), self.second.max(initial=-1), rows.max(initial=-1)) + 1, -1)
        place[rows] = np.arange(len(rows))
        first, second = place[self.first], place[self.second]
        kept = (first >= 0) & (second >= 0)
        return ListedPairs(first[kept], second[kept], self.is_similar[kept])

    def batches(self, size: int, random: np.random.Generator) -> list[Batch]:
        """Deal the pairs into batches, each pair once.

        Args:
            size: pictures in a batch, two a pair.
            random: decides who stands with whom.

        Returns:
            Batches whose first half holds the first pictures and whose second half the others, in the same order; the
            two of a pair have one label if they are similar.
        """
        order = random.permutation(len(self.first))
        batches = []
        for start in range(0, len(order), size // 2):
            chosen = order[start : start + size // 2]
            numbers = np.arange(len(chosen))
            labels = np.concatenate([numbers, np.where(self.is_similar[chosen], numbers, numbers + len(chosen))])
            batches.append(Batch(np.concatenate([self.first[chosen], self.second[chosen]]), labels))
        return batches


def classes_of(pairs: LabelledPairs) -> LabelledPictures:
    """Label pictures by what similar pairs join: whoever is similar to the same picture is of one class.

    The classes decide what is held out together and what counts as found; training sees the pairs alone.

    Raises:
        LabelConflict: two pictures are said to differ although similar pairs join them.
    """
    roots = _roots(len(pairs.records), pairs.first[pairs.is_similar], pairs.second[pairs.is_similar])
    is_contrary = ~pairs.is_similar & (roots[pairs.first] == roots[pairs.second])
    if is_contrary.any():
        one = int(np.flatnonzero(is_contrary)[0])
        keys = pairs.records[pairs.first[one]].key, pairs.records[pairs.second[one]].key
        raise LabelConflict(
            f"{keys[0]} and {keys[1]} are said to differ, but similar pairs join them ({int(is_contrary.sum())} such "
            "pairs); correct one of these pairs"
        )
    names = [pairs.records[root].key for root in roots.tolist()]
    return number_classes(zip(pairs.records, names, strict=True), skipped=pairs.skipped)


def _roots(count: int, first: Rows, second: Rows) -> Rows:
    """For every picture the first one that it is joined to, by whatever chain of pairs."""
    root = np.arange(count)

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]  # halves the way for the next time
            row = int(root[row])
        return row

    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        low, high = sorted((find(one), find(other)))
        root[high] = low
    return np.array([find(row) for row in range(count)], np.int64)
