"""What can be learned from what people said? One word a person on each pair, and nobody's word counts for too much."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from indexer.feedback import Judgement
from retrieval.results import Contradiction, FeedbackUse

MOST_PER_SOURCE = 100  # judgements: what one person, or one that pretends to be, can say of a catalogue


class Query(NamedTuple):
    """A picture that was searched with, or a part of one."""

    content_hash: str
    box: str


@dataclass(frozen=True)
class Lessons:
    """What judgements come to.

    Attributes:
        products: of queries that are not in the index themselves: what they show.
        rejections: a query, and the key of a picture that it was taken for wrongly.
        paths: where each query's picture is.
        judgements: how many were looked at.
        capped: of these, those that one source had too many of; its newest count.
        unlabelled: of these, those of pictures of which it is not known what they show.
        contradictions: where judgements disagree with each other, or with what the index says.
    """

    products: dict[Query, str] = field(default_factory=dict)
    rejections: list[tuple[Query, str]] = field(default_factory=list)
    paths: dict[Query, str] = field(default_factory=dict)
    judgements: int = 0
    capped: int = 0
    unlabelled: int = 0
    contradictions: list[Contradiction] = field(default_factory=list)

    def use(self, stale: int) -> FeedbackUse:
        """The same in numbers, for a report."""
        return FeedbackUse(
            self.judgements, len(self.products), len(self.rejections), self.capped, self.unlabelled, stale,
            self.contradictions,
        )  # fmt: skip


def weigh(
    judgements: Sequence[Judgement],
    products: Mapping[str, str],
    known: Mapping[Query, str],
    *,
    most_per_source: int = MOST_PER_SOURCE,
) -> Lessons:
    """Let judgements vote, and put aside what they disagree about.

    A picture is relevant to a query, or was rejected, where more sources say so than say the contrary. A query shows
    what most of its relevant pictures show. Of one that is itself a picture of the index that is known, and judgements
    do not outvote it.

    Args:
        judgements: the newest first; one a source, query and key.
        products: key -> what the picture shows.
        known: what queries show that are pictures of the index.
        most_per_source: judgements of one source that count; without a name ("") they are not limited.
    """
    counted, capped = _capped(judgements, most_per_source)
    labelled = [one for one in counted if one.key in products]
    lessons = Lessons(judgements=len(judgements), capped=capped, unlabelled=len(counted) - len(labelled))
    by_query: dict[Query, list[Judgement]] = defaultdict(list)
    for one in labelled:
        query = Query(one.query_hash, one.query_box)
        by_query[query].append(one)
        lessons.paths.setdefault(query, one.query_path)
    for query, said in by_query.items():
        _learn(lessons, query, said, products, known.get(query))
    return lessons


def _capped(judgements: Iterable[Judgement], most: int) -> tuple[list[Judgement], int]:
    """Those that count, and the number of the others."""
    counts: Counter[str] = Counter()
    counted, capped = [], 0
    for one in judgements:
        counts[one.source] += 1
        if one.source and counts[one.source] > most:
            capped += 1
        else:
            counted.append(one)
    return counted, capped


def _learn(
    lessons: Lessons, query: Query, said: Sequence[Judgement], products: Mapping[str, str], known: str | None
) -> None:
    """What one query's judgements come to."""

    def disagree(reason: str) -> None:
        lessons.contradictions.append(Contradiction(lessons.paths[query], reason))

    votes: dict[str, list[bool]] = defaultdict(list)
    for one in said:
        votes[one.key].append(one.is_relevant)
    balance = {key: 2 * sum(given) - len(given) for key, given in votes.items()}
    for key, given in votes.items():
        if 0 < sum(given) < len(given):
            disagree(f'"{key}" is relevant to {sum(given)}, and not to {len(given) - sum(given)}')
    claims: Counter[str] = Counter()
    for key, value in balance.items():
        if value > 0:
            claims[products[key]] += value
    shown = known or _winner(claims)
    if claims and claims.keys() != {shown}:
        named = ", ".join(f'"{name}" ({count})' for name, count in claims.most_common())
        disagree(f"its relevant pictures show {named}" + (f', and itself "{known}" in the index' if known else ""))
    if shown is not None and known is None:
        lessons.products[query] = shown
    for key, value in balance.items():
        if value < 0 and products[key] == shown:
            disagree(f'"{key}" was rejected, and shows "{shown}" as the query does')
        elif value < 0:
            lessons.rejections.append((query, key))


def _winner(claims: Counter[str]) -> str | None:
    """The one with most votes; None where there is none, or no single one."""
    first = claims.most_common(2)
    return None if not first or (len(first) == 2 and first[0][1] == first[1][1]) else first[0][0]
