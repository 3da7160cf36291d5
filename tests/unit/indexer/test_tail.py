"""Tails share memory with their successors, and none of them ever changes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from indexer.tail import Tail
from vectors import exact_search, unit_rows

ROWS = unit_rows(400, 4, seed=0)


def rows(start: int, end: int) -> Tail:
    return Tail.of(np.arange(start, end, dtype=np.int64), ROWS[start:end])


def extended(tail: Tail, start: int, end: int) -> Tail:
    return tail.extended(np.arange(start, end, dtype=np.int64), ROWS[start:end])


def assert_holds(tail: Tail, ids: list[int]) -> None:
    assert tail.visible.tolist() == ids
    np.testing.assert_array_equal(tail.vectors[~tail.is_removed], ROWS[ids])


def test_an_extended_tail_has_the_new_rows_behind_the_old_and_copies_nothing() -> None:
    old = rows(0, 5)
    new = extended(old, 5, 8)
    assert_holds(new, list(range(8)))
    assert np.shares_memory(old.vectors, new.vectors)


def test_a_tail_that_outgrows_its_memory_moves() -> None:
    old = rows(0, 5)
    new = extended(old, 5, 300)
    assert_holds(new, list(range(300)))
    assert_holds(old, list(range(5)))


def test_two_successors_of_one_tail_do_not_disturb_each_other() -> None:
    old = rows(0, 5)
    one, other = extended(old, 5, 8), extended(old, 20, 22)
    assert_holds(one, list(range(8)))
    assert_holds(other, [0, 1, 2, 3, 4, 20, 21])


def test_two_successors_of_one_tail_that_both_outgrow_it_do_not_disturb_each_other() -> None:
    old = rows(0, 60)
    one, other = extended(old, 60, 63), extended(old, 100, 200)
    assert_holds(one, list(range(63)))
    assert_holds(other, [*range(60), *range(100, 200)])


def test_extending_by_nothing_changes_nothing() -> None:
    assert_holds(extended(rows(0, 5), 5, 5), list(range(5)))


def test_removed_rows_are_not_visible_and_stay_so_when_the_tail_grows() -> None:
    tail = extended(rows(0, 5).without(np.array([1, 3])), 5, 7)
    assert_holds(tail, [0, 2, 4, 5, 6])


def test_removing_what_is_not_there_removes_nothing() -> None:
    assert_holds(rows(0, 5).without(np.array([99])), list(range(5)))


def test_a_tail_of_mostly_removed_rows_is_copied_without_them() -> None:
    old = rows(0, 100)
    new = old.without(np.arange(60))
    assert len(new.ids) == 40
    assert not np.shares_memory(old.vectors, new.vectors)
    assert_holds(new, list(range(60, 100)))


def test_chosen_rows_have_memory_of_their_own() -> None:
    old = rows(0, 100).without(np.array([2]))
    chosen = old.only(np.array([1, 4]))
    assert_holds(chosen, [1, 4])
    assert not np.shares_memory(old.vectors, chosen.vectors)


def test_an_empty_tail_is_searched_and_extended() -> None:
    empty = rows(0, 0)
    assert (empty.search(ROWS[:1], 2).ids == -1).all()
    assert_holds(extended(empty, 0, 2), [0, 1])


def test_search_leaves_removed_rows_out_and_equals_a_slow_loop() -> None:
    coarse = ROWS[:50].astype(np.float16).astype(np.float32)  # as the catalog gives them
    tail = Tail.of(np.arange(50, dtype=np.int64), coarse).without(np.array([0, 7]))
    held = {i: coarse[i] for i in range(50) if i not in (0, 7)}
    found, expected = tail.search(ROWS[:9], 5), exact_search(held, ROWS[:9], 5)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("extend"), st.integers(0, 40)),
        st.tuples(st.just("remove"), st.integers(0, 60)),
        st.tuples(st.just("go back"), st.integers(0, 10)),
    ),
    max_size=25,
)


@given(STEPS)
def test_no_tail_ever_changes_whatever_becomes_of_it(steps: list[tuple[str, int]]) -> None:
    made = [(rows(0, 3), [0, 1, 2])]
    newest = 3
    tail, held = made[0]
    for what, amount in steps:
        if what == "extend":
            end = min(newest + amount, len(ROWS))
            tail, held = extended(tail, newest, end), [*held, *range(newest, end)]
            newest = end
        elif what == "remove":
            removed = np.arange(0, newest, max(1, amount // 3), dtype=np.int64)
            tail, held = tail.without(removed), [id_ for id_ in held if id_ not in set(removed.tolist())]
        else:
            tail, held = made[amount % len(made)]
        made.append((tail, held))
    for one, expected in made:
        assert_holds(one, expected)
