"""What a shop asks of a search: products, in stock, under a price, like these and not those; by library and command."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from commands import retrieve, retrieve_json
from indexer.errors import FilterError
from retrieval.engine import SearchEngine
from retrieval.errors import ModelError, QueryError, UnknownKey
from retrieval.records import Box
from retrieval.results import SearchResult

MODEL = "efficientnet_lite0"
APPLE, CAR = "apple/noto.png", "car/noto.png"


@pytest.fixture
def shop(engine: SearchEngine, gallery: Path) -> SearchEngine:
    """Six products of two pictures each, keys like apple/noto.png, priced 1 to 12 in the order of their keys."""
    for price, path in enumerate(sorted(gallery.glob("*/*")), 1):
        thing, name = path.parent.name, path.name
        metadata: dict[str, Any] = {"price": price, "maker": path.stem, "fruit": thing in ("apple", "banana")}
        engine.upsert(f"{thing}/{name}", path, product_id=thing, metadata=metadata)
    return engine


def keys(result: SearchResult) -> list[str]:
    return [hit.key for hit in result.hits]


def test_a_condition_leaves_out_what_does_not_meet_it(shop: SearchEngine, gallery: Path) -> None:
    every = keys(shop.search(gallery / CAR, k=12))
    found = shop.search(gallery / CAR, k=12, where="fruit = true and maker = 'noto'")
    assert keys(found) == [key for key in every if key in ("apple/noto.png", "banana/noto.png")]
    assert [hit.rank for hit in found.hits] == [1, 2]
    assert keys(shop.search(gallery / CAR, 12, where={"fruit": True, "maker": "noto"})) == keys(found)


def test_a_changed_price_counts_at_once(shop: SearchEngine, gallery: Path) -> None:
    assert APPLE not in keys(shop.search(gallery / APPLE, where="price > 5"))
    shop.update_metadata(APPLE, metadata={"price": 6})
    assert shop.search(gallery / APPLE, where="price > 5").hits[0].key == APPLE


def test_a_reader_filters_as_of_its_generation(shop: SearchEngine, gallery: Path) -> None:
    with SearchEngine.open(shop.index_dir) as reader:
        shop.update_metadata(APPLE, metadata={"price": 600})
        assert keys(reader.search(gallery / APPLE, where="price > 500")) == []
        reader.refresh()
        assert keys(reader.search(gallery / APPLE, where="price > 500")) == [APPLE]


def test_groups_are_products_with_their_best_picture(shop: SearchEngine, gallery: Path) -> None:
    every = shop.search(gallery / APPLE, k=12).hits
    found = shop.search(gallery / APPLE, k=5, group_by="product_id").hits
    best = [hit for number, hit in enumerate(every) if hit.product_id not in {one.product_id for one in every[:number]}]
    assert [hit.key for hit in found] == [hit.key for hit in best][:5]
    assert [hit.rank for hit in found] == [1, 2, 3, 4, 5]


def test_pages_follow_one_another(shop: SearchEngine, gallery: Path) -> None:
    for refined in ({}, {"group_by": "product_id"}, {"where": "price <= 7"}, {"dedup": 0.9}, {"exclude": [APPLE]}):
        whole = shop.search(gallery / APPLE, k=12, **refined).hits  # type: ignore[arg-type]
        pages = [shop.search(gallery / APPLE, k=3, offset=at, **refined).hits for at in range(0, 15, 3)]  # type: ignore[arg-type]
        assert [hit for page in pages for hit in page] == whole
        assert pages[-1] == []


def test_everything_goes_together(shop: SearchEngine, gallery: Path) -> None:
    every = shop.search(gallery / APPLE, k=12).hits
    expected, seen = [], set()
    for hit in every:
        if hit.key != APPLE and hit.metadata["price"] <= 10 and hit.product_id not in seen:
            seen.add(hit.product_id)
            expected.append(hit)
    found = shop.search(
        gallery / APPLE,
        k=2,
        offset=1,
        where="price <= 10",
        group_by="product_id",
        exclude=[APPLE, "not there"],
        min_score=expected[2].score,
        dedup=1.0,
    ).hits
    assert [(hit.key, hit.rank) for hit in found] == [(hit.key, rank) for rank, hit in enumerate(expected[1:3], 2)]


def test_what_is_alike_and_what_is_not_steer_the_query(shop: SearchEngine, gallery: Path) -> None:
    found = shop.search(like=["apple/fluent.webp"], k=12)
    assert found.query is None
    assert found.hits[0].key == APPLE
    assert "apple/fluent.webp" not in keys(found)
    # By hand, from the embeddings of the files: the picture and what is liked, less half of what is not.
    photo, liked, unliked = shop.embed([gallery / CAR, gallery / APPLE, gallery / "banana/noto.png"])
    steered = (photo + liked) / 2 - unliked / 2
    expected = shop.search_vectors((steered / np.linalg.norm(steered))[None], k=12)[0]
    found = shop.search(gallery / CAR, k=12, like=[APPLE], unlike=["banana/noto.png"])
    kept = [hit for hit in expected.hits if hit.key not in (APPLE, "banana/noto.png")]
    assert keys(found) == [hit.key for hit in kept]
    assert [hit.score for hit in found.hits] == pytest.approx([hit.score for hit in kept], abs=2e-3)


def test_each_of_several_queries_is_steered(shop: SearchEngine, gallery: Path) -> None:
    both = shop.search([gallery / CAR, gallery / APPLE], k=3, like=["banana/noto.png"])
    assert keys(both[0]) == keys(shop.search(gallery / CAR, k=3, like=["banana/noto.png"]))
    assert keys(both[1]) == keys(shop.search(gallery / APPLE, k=3, like=["banana/noto.png"]))


def test_the_same_picture_under_two_keys_is_collapsed(shop: SearchEngine, gallery: Path) -> None:
    shop.upsert("copy", gallery / APPLE)
    assert set(keys(shop.search(gallery / APPLE, k=2))) == {APPLE, "copy"}
    assert keys(shop.search(gallery / APPLE, k=12, dedup=0.99)).count("copy") == 0
    assert len(shop.search(gallery / APPLE, k=12, dedup=0.99).hits) == 12


def test_a_part_of_a_picture_can_be_searched_with(shop: SearchEngine, gallery: Path) -> None:
    apple, car = (PIL.Image.open(gallery / name).convert("RGB").resize((128, 128)) for name in (APPLE, CAR))
    both = PIL.Image.new("RGB", (256, 128))
    both.paste(apple, (0, 0))
    both.paste(car, (128, 0))
    assert keys(shop.search(np.asarray(both), k=1, box=Box(0, 0, 128, 128))) == [APPLE]
    assert keys(shop.search(np.asarray(both), k=1, box=Box(128, 0, 128, 128))) == [CAR]


def test_one_key_may_be_given_as_it_is(shop: SearchEngine, gallery: Path) -> None:
    assert APPLE not in keys(shop.search(gallery / APPLE, 12, exclude=APPLE))
    assert keys(shop.search(like=APPLE, unlike=CAR)) == keys(shop.search(like=[APPLE], unlike=[CAR]))


def test_a_box_may_be_a_plain_tuple(shop: SearchEngine, gallery: Path) -> None:
    plain: Any = (2, 2, 40, 40)
    assert shop.search(gallery / CAR, box=plain).hits == shop.search(gallery / CAR, box=Box(2, 2, 40, 40)).hits
    shop.upsert("part.png", gallery / CAR, box=plain)
    assert shop.picture("part.png").box == Box(2, 2, 40, 40)


@pytest.mark.parametrize("part", [{"box": Box(2, 2, 40, 40)}, {"crops": True}], ids=str)
def test_a_part_of_no_picture_is_refused(shop: SearchEngine, part: dict[str, Any]) -> None:
    with pytest.raises(QueryError, match="of the picture that is searched with, and there is none"):
        shop.search(like=[APPLE], **part)


def test_a_query_can_be_moved_towards_what_it_finds(shop: SearchEngine, gallery: Path) -> None:
    photo, *near = shop.embed([gallery / CAR, *(hit.path for hit in shop.search(gallery / CAR, k=2).hits if hit.path)])
    weights = [float(photo @ one) ** 3 for one in near]
    moved = photo + sum(weight * one for weight, one in zip(weights, near, strict=True))
    expected = shop.search_vectors((moved / np.linalg.norm(moved))[None], k=12)[0]
    found = shop.search(gallery / CAR, k=12, expand=2)
    assert keys(found) == keys(expected)
    assert [hit.score for hit in found.hits] == pytest.approx([hit.score for hit in expected.hits], abs=2e-3)
    assert len(shop.search(gallery / CAR, k=3, expand=500).hits) == 3


def test_reranking_changes_places_and_nothing_else(shop: SearchEngine, gallery: Path) -> None:
    plain = shop.search(gallery / "banana/fluent.webp", k=12).hits
    found = shop.search(gallery / "banana/fluent.webp", k=12, rerank=True).hits
    assert [hit.rank for hit in found] == list(range(1, 13))
    assert {hit.key: hit.score for hit in found} == {hit.key: hit.score for hit in plain}
    assert [hit.key for hit in found] != [hit.key for hit in plain]
    pages = [shop.search(gallery / "banana/fluent.webp", k=5, offset=at, rerank=True).hits for at in (0, 5, 10, 15)]
    assert [hit for page in pages for hit in page] == found
    few = shop.search(gallery / "banana/fluent.webp", k=12, rerank=True, group_by="product_id", where="price < 9").hits
    assert len({hit.product_id for hit in few}) == len(few) == 4


def test_several_parts_of_a_picture_are_looked_at(shop: SearchEngine, gallery: Path) -> None:
    embed = shop._index.now.model.embedder.embed
    corners_and_middle = [(0, 0), (0.2, 0), (0, 0.2), (0.2, 0.2), (0.1, 0.1)]
    boxes = [Box(left, top, 0.8, 0.8, is_relative=True) for left, top in corners_and_middle]
    views = [embed([gallery / CAR], box)[0] for box in (None, *boxes)]
    mean = np.mean(views, axis=0)
    expected = shop.search_vectors((mean / np.linalg.norm(mean))[None], k=5)[0]
    assert keys(shop.search(gallery / CAR, k=5, crops=True)) == keys(expected)
    with pytest.raises(ValueError, match="crops and box exclude each other"):
        shop.search(gallery / CAR, crops=True, box=Box(0, 0, 10, 10))
    asked = retrieve("query", gallery / CAR, "--crops", "-k", "5", "--paths", "--index", shop.index_dir)
    assert asked.stdout.splitlines() == [str(hit.path) for hit in expected.hits]
    assert retrieve("query", gallery / CAR, "--crops", "--box", "0,0,9,9", "--index", shop.index_dir).returncode == 2


def test_a_search_for_nothing_is_refused(shop: SearchEngine) -> None:
    with pytest.raises(QueryError, match="nothing to look for"):
        shop.search()
    with pytest.raises(QueryError, match="nothing to look for"):
        shop.search(unlike=[APPLE])


@pytest.mark.parametrize("way", ["like", "unlike"])
def test_an_unknown_key_to_steer_by_is_named(shop: SearchEngine, gallery: Path, way: str) -> None:
    with pytest.raises(UnknownKey, match="'nowhere'"):
        shop.search(gallery / CAR, **{way: [APPLE, "nowhere"]})  # type: ignore[arg-type]


def test_a_probability_of_a_model_that_knows_none_is_refused(shop: SearchEngine, gallery: Path) -> None:
    with pytest.raises(ModelError, match=f"{MODEL} is not calibrated"):
        shop.search(gallery / APPLE, min_probability=0.5)


OUT_OF_RANGE = [("k", 0), ("k", -3), ("offset", -1), ("dedup", 0), ("dedup", 1.5), ("expand", -1)]


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_numbers_out_of_range_are_refused(shop: SearchEngine, gallery: Path, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        shop.search(gallery / APPLE, **{name: value})  # type: ignore[arg-type]


def test_a_field_that_no_picture_has_is_named(shop: SearchEngine, gallery: Path) -> None:
    with pytest.raises(FilterError, match="no picture has a field 'prise'; there are key, product_id, label, fruit"):
        shop.search(gallery / APPLE, where="prise < 5")
    with pytest.raises(FilterError, match="no picture has a field 'brand'"):
        shop.search(gallery / APPLE, group_by="brand")


def test_an_empty_index_answers_every_wish_with_nothing(engine: SearchEngine, gallery: Path) -> None:
    found = engine.search(
        gallery / APPLE, where="price < 5", group_by="product_id", offset=3, exclude=["a"], dedup=0.9, min_score=0.1
    )
    assert found.hits == []


# The command


def test_the_command_takes_them_all(shop: SearchEngine, gallery: Path) -> None:
    narrowed = [
        "--where",
        "price <= 10",
        "--group-by",
        "product_id",
        "--offset",
        "1",
        "--exclude",
        "apple/noto.png",
        "--min-score",
        "0.1",
    ]
    said = retrieve_json("query", gallery / APPLE, "-k", "2", *narrowed, "--dedup", "0.99", "--index", shop.index_dir)
    found = shop.search(
        gallery / APPLE,
        2,
        where="price <= 10",
        group_by="product_id",
        offset=1,
        exclude=[APPLE],
        min_score=0.1,
        dedup=0.99,
    )
    assert [hit["key"] for hit in said["queries"][0]["hits"]] == keys(found)


def test_the_command_searches_by_keys_alone(shop: SearchEngine, gallery: Path, tmp_path: Path) -> None:
    named = ("--like", "apple/fluent.webp", "--unlike", CAR, "--index", shop.index_dir)
    said = retrieve_json("query", *named, "-k", "2")
    assert said["queries"][0]["query"] is None
    found = shop.search(like=["apple/fluent.webp"], unlike=[CAR], k=2)
    assert [hit["key"] for hit in said["queries"][0]["hits"]] == keys(found)
    assert retrieve("query", *named).stdout.splitlines()[0].endswith(f"  {gallery / keys(found)[0]}")
    refused = retrieve("query", *named, "--sheet", tmp_path / "sheet.png")
    assert (refused.returncode, "name an IMAGE" in refused.stderr) == (2, True)


def test_the_command_searches_with_a_box(shop: SearchEngine, gallery: Path) -> None:
    said = retrieve_json("query", gallery / APPLE, "--box", "0,0,40,40", "-k", "1", "--index", shop.index_dir)
    found = shop.search(gallery / APPLE, 1, box=Box(0, 0, 40, 40)).hits[0]
    assert said["queries"][0]["hits"][0]["score"] == pytest.approx(found.score, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("--where", "prise < 5"), 1, "position 1: no picture has a field 'prise'"),
        (("--where", "price < 'cheap'"), 1, "position 1: price holds numbers"),
        (("--where", "price <"), 1, "position 8: a value"),
        (("--where", "maker = 'it''s; DROP TABLE pictures'"), 4, ""),
        (("--where", "price > 500"), 4, ""),
        (("--min-score", "1"), 4, ""),
        (("--group-by", "brand"), 1, "no picture has a field 'brand'"),
        (("--like", "nowhere"), 1, "no picture 'nowhere'"),
        (("--min-probability", "0.5"), 1, "is not calibrated"),
        (("--box", "1,2,3"), 2, "'1,2,3' is no box"),
        (("--box", "nan,0,5,5"), 2, "'nan,0,5,5' is no box"),
        (("--box", "0,0,0,5"), 2, "is empty"),
        (("--offset", "-1"), 2, "--offset"),
        (("--dedup", "0"), 2, "--dedup"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_the_command_refuses(
    shop: SearchEngine, gallery: Path, arguments: tuple[str, ...], code: int, why: str
) -> None:
    asked = retrieve("query", gallery / "camera/noto.png", *arguments, "--index", shop.index_dir)
    assert asked.returncode == code, asked.stderr
    assert why in asked.stderr
    assert "Traceback" not in asked.stderr
    assert code == 2 or len(asked.stderr.splitlines()) <= 1


def test_nothing_to_look_for_is_wrong_usage(shop: SearchEngine) -> None:
    asked = retrieve("query", "--index", shop.index_dir)
    assert (asked.returncode, "name an IMAGE, or with --like" in asked.stderr) == (2, True)
