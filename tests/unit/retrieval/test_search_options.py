"""Which searches over HTTP are answered together, with one call of the engine for all?"""

import pytest

from retrieval.service.options import SearchOptions

TRUE = {"where": {"seen": True}}
OTHERS = [
    *({"where": {"seen": value}} for value in (1, 1.0, "True")),
    *(TRUE | more for more in ({"k": 3}, {"offset": 1}, {"with_vector": True}, {"rerank": True})),
    *(TRUE | {name: ["a"]} for name in ("like", "unlike", "exclude")),
    {},
]


def alike(said: dict[str, object]) -> str:
    return SearchOptions.model_validate(said).alike()


def test_searches_for_the_same_are_alike() -> None:
    assert alike(TRUE) == alike(TRUE | {"box": [1, 2, 3, 4], "min_generation": 1})


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_searches_for_something_else_are_not(other: dict[str, object]) -> None:
    assert alike(TRUE) != alike(other)
