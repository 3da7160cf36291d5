"""Which recipe suits how many vectors, and what is said of one that does not."""

import pytest

from indexer.errors import RecipeError
from indexer.recipe import EXACT, choose_recipe, read_memory, read_recipe
from indexer.settings import SearchSettings


@pytest.mark.parametrize(
    ("n", "dim", "memory_bytes", "factory"),
    [
        (0, 256, None, EXACT),
        (49_999, 256, None, EXACT),
        (50_000, 256, None, "RR256,IVF256,PQ128x4fs"),  # 1.3 sqrt(50,000) = 291
        (1_000_000, 256, None, "RR256,IVF1024,PQ128x4fs"),
        (10_000_000, 256, None, "RR256,IVF4096,PQ128x4fs"),
        # Codes of two bits a value, an id of 8 bytes, the rotation and the lists: 73.3 MB; of one bit 41.3 MB.
        (1_000_000, 256, 74_000_000, "RR256,IVF1024,PQ128x4fs"),
        (1_000_000, 256, 73_000_000, "RR256,IVF1024,PQ64x4fs"),
        # The default encoder's 1,280 values are searched by 256 first.
        (9_999, 1280, None, EXACT),
        (10_000, 1280, None, "PCAR256,IVF128,PQ128x4fs"),
        (1_000_000, 1280, None, "PCAR256,IVF1024,PQ128x4fs"),
        # Rotated into a few more, where parts of two and four do not come out even.
        (1_000_000, 511, None, "RR512,IVF1024,PQ256x4fs"),
        (1_000_000, 100, None, "RR104,IVF1024,PQ52x4fs"),
    ],
)
def test_the_recipe_for_so_many(n: int, dim: int, memory_bytes: int | None, factory: str) -> None:
    chosen = choose_recipe(n, dim, memory_bytes=memory_bytes)
    assert chosen.factory == read_recipe("auto", n, dim, memory_bytes=memory_bytes).factory == factory
    assert chosen.memory_bytes <= (memory_bytes or 10**12)
    assert (chosen.memory_bytes == 0) == (factory == EXACT)


def test_every_recipe_that_is_chosen_can_be_built_of_so_many() -> None:
    for dim in (64, 100, 256, 511, 512, 1280, 2048):
        for n in (10_000, 60_000, 200_000, 3_000_000):
            chosen = choose_recipe(n, dim)
            assert read_recipe(chosen.factory, n, dim).factory == chosen.factory
            if chosen.factory != EXACT:
                less = choose_recipe(n, dim, memory_bytes=chosen.memory_bytes - 1).factory
                assert read_recipe(less, n, dim).factory == less != chosen.factory


def test_a_memory_that_nothing_fits_into_is_refused_with_what_is_needed() -> None:
    with pytest.raises(
        RecipeError, match=r"memory of 1000000 bytes given, 1000000 vectors of 256 values need 41310720 "
    ):
        choose_recipe(1_000_000, 256, memory_bytes=10**6)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("nonsense", "recipe 'nonsense' is none that FAISS takes for 64 values: could not parse"),
        ("IVF256,PQ7", "recipe 'IVF256,PQ7' is none that FAISS takes for 64 values: "),
        ("", "recipe '' is none that FAISS takes"),
        ("Flat", "recipe 'Flat' is not of a kind"),
        ("IVF0,SQ8", "recipe 'IVF0,SQ8' is not of a kind"),
        ("PQ16x4fs", "recipe 'PQ16x4fs' is not of a kind"),  # FAISS searches it under no condition
        ("IDMap,SQ8", "recipe 'IDMap,SQ8' is not of a kind"),
        ("IVF256,SQ8", "recipe 'IVF256,SQ8' learns from at least 9984 vectors, 1000 are there"),
        ("IVF4,PQ8", "recipe 'IVF4,PQ8' learns from at least 9984 vectors, 1000 are there"),  # 256 codes each
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_one_line(said: str, why: str) -> None:
    with pytest.raises(RecipeError) as raised:
        read_recipe(said, 1000, 64)
    assert str(raised.value).startswith(why)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("said", ["IVF16,SQ8", "HNSW16,SQ8", "SQ8", "PCA32,IVF16,SQ8", "OPQ16,IVF16,PQ16x4fs"])
def test_recipes_of_each_kind_are_taken(said: str) -> None:
    assert read_recipe(said, 1000, 64).factory == said


@pytest.mark.parametrize(("said", "size"), [("4GB", 4 * 10**9), ("500 mb", 5 * 10**8), ("1.5KB", 1500)])
def test_sizes_are_read_as_people_write_them(said: str, size: int) -> None:
    assert read_memory(said) == size


@pytest.mark.parametrize("said", ["", "4", "GB", "-4GB", "4 apples", "4GB5"])
def test_what_is_no_size_is_refused(said: str) -> None:
    with pytest.raises(RecipeError, match=f"memory {said!r} is no size"):
        read_memory(said)


@pytest.mark.parametrize("recall", [0, -0.5, 1.01, float("nan")])
def test_a_recall_out_of_range_is_refused(recall: float) -> None:
    with pytest.raises(RecipeError, match=f"recall is {recall}"):
        SearchSettings(recall=recall)
