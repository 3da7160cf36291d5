"""What several callers want alike is done at once, and each gets what is his."""

from retrieval.prepared import in_groups


def test_items_with_the_same_thing_in_common_are_done_together_and_answered_in_order() -> None:
    asked: list[list[str]] = []

    def done(group: list[str]) -> list[str]:
        asked.append(group)
        return [item.upper() for item in group]

    items = ["a1", "b1", "a2", "c1", "b2"]
    assert in_groups(items, lambda item: {"unhashable": item[0]}, done) == ["A1", "B1", "A2", "C1", "B2"]
    assert asked == [["a1", "a2"], ["b1", "b2"], ["c1"]]


def test_nothing_to_do_is_nothing_done() -> None:
    assert in_groups([], lambda item: item, lambda group: group) == []
