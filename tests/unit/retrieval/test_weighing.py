"""Judgements vote: what a query shows, what was taken for it wrongly, and what nobody can make sense of."""

from indexer.feedback import Judgement
from retrieval.feedback import Lessons, weigh
from retrieval.feedback.weighing import Query

PRODUCTS = {"red/1": "red", "red/2": "red", "blue/1": "blue", "green/1": "green"}
QUERY, OTHER = Query("q", ""), Query("r", "")


def said(key: str, relevant: bool, source: str = "", query: str = "q", box: str = "") -> Judgement:
    return Judgement(query, f"/photos/{query}.jpg", key, relevant, source, box)


def learned(*judgements: Judgement, known: dict[Query, str] | None = None, most: int = 100) -> Lessons:
    return weigh(judgements, PRODUCTS, known or {}, most_per_source=most)


def reasons(lessons: Lessons) -> list[str]:
    return [one.reason for one in lessons.contradictions]


def test_a_chosen_hit_says_what_the_query_shows_and_a_rejected_one_what_it_does_not() -> None:
    lessons = learned(said("red/1", True), said("blue/1", False))
    assert lessons.products == {QUERY: "red"}
    assert lessons.rejections == [(QUERY, "blue/1")]
    assert lessons.paths == {QUERY: "/photos/q.jpg"}
    assert reasons(lessons) == []


def test_a_query_of_which_nothing_is_known_but_a_rejection_shows_no_product() -> None:
    lessons = learned(said("blue/1", False))
    assert lessons.products == {}
    assert lessons.rejections == [(QUERY, "blue/1")]


def test_the_majority_wins_and_the_contradiction_is_reported() -> None:
    lessons = learned(said("red/1", True, "a"), said("red/1", True, "b"), said("red/1", False, "c"))
    assert lessons.products == {QUERY: "red"}
    assert lessons.rejections == []
    assert reasons(lessons) == ['"red/1" is relevant to 2, and not to 1']


def test_equal_votes_count_for_nothing() -> None:
    lessons = learned(said("red/1", True, "a"), said("red/1", False, "b"))
    assert lessons.products == {}
    assert lessons.rejections == []
    assert reasons(lessons) == ['"red/1" is relevant to 1, and not to 1']


def test_of_two_products_the_one_with_more_votes_is_shown() -> None:
    lessons = learned(said("red/1", True, "a"), said("red/2", True, "a"), said("blue/1", True, "b"))
    assert lessons.products == {QUERY: "red"}
    assert reasons(lessons) == ['its relevant pictures show "red" (2), "blue" (1)']


def test_of_two_products_with_equal_votes_none_is_shown() -> None:
    lessons = learned(said("red/1", True, "a"), said("blue/1", True, "b"))
    assert lessons.products == {}
    assert reasons(lessons) == ['its relevant pictures show "red" (1), "blue" (1)']


def test_a_picture_of_the_index_needs_no_label_and_is_not_outvoted() -> None:
    known = {QUERY: "green"}
    assert learned(said("green/1", True), known=known).products == {}
    lessons = learned(said("red/1", True, "a"), said("red/1", True, "b"), known=known)
    assert lessons.products == {}
    assert reasons(lessons) == ['its relevant pictures show "red" (2), and itself "green" in the index']


def test_a_rejected_picture_of_the_query_s_own_product_is_a_contradiction() -> None:
    lessons = learned(said("red/1", True), said("red/2", False))
    assert lessons.products == {QUERY: "red"}
    assert lessons.rejections == []
    assert reasons(lessons) == ['"red/2" was rejected, and shows "red" as the query does']
    assert learned(said("green/1", False), known={QUERY: "green"}).rejections == []


def test_only_the_newest_of_a_named_source_count() -> None:
    judgements = [said("red/1", True, "a", query) for query in ("q", "r")]
    assert learned(*judgements, most=1).products == {QUERY: "red"}  # the newest comes first
    assert learned(*judgements, most=1).capped == 1
    assert learned(*judgements, most=0).products == {}
    nameless = [said("red/1", True, "", query) for query in ("q", "r")]
    assert learned(*nameless, most=1).products == {QUERY: "red", OTHER: "red"}


def test_judgements_of_pictures_of_nobody_knows_what_are_counted() -> None:
    lessons = learned(said("unlabelled/1", True), said("red/1", True))
    assert (lessons.judgements, lessons.unlabelled, lessons.products) == (2, 1, {QUERY: "red"})


def test_two_parts_of_a_picture_are_two_queries() -> None:
    part = "[0, 0, 5, 5]"
    lessons = learned(said("red/1", True), said("blue/1", True, box=part))
    assert lessons.products == {QUERY: "red", Query("q", part): "blue"}
    assert reasons(lessons) == []
