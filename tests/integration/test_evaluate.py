"""`retrieve evaluate` on real pictures: what it measures is what a search finds, and what goes wrong is one line."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from commands import assert_one_line, retrieve, retrieve_json
from indexer.errors import ModelMismatch
from retrieval import EvaluationReport, SearchEngine, evaluate
from retrieval.errors import GalleryError, LabelsMissing
from vectors import query_catalog

MODEL = "efficientnet_lite0"
THINGS = ("apple", "banana", "bicycle", "butterfly", "camera", "car")


def manifest(path: Path, rows: list[tuple[Path, str]], column: str = "product_id") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", column])
        writer.writerows(rows)
    return path


@pytest.fixture
def queries(tmp_path: Path, demo_gallery: Path) -> Path:
    """A manifest of six pictures of other things than the gallery holds six of: the Noto ones of the demo gallery."""
    return manifest(tmp_path / "queries.csv", [(demo_gallery / thing / "noto.png", thing) for thing in THINGS])


@pytest.fixture
def shelf(tmp_path: Path, demo_gallery: Path) -> Path:
    """The Fluent pictures of the whole demo gallery, one a thing, in class folders."""
    for picture in demo_gallery.glob("*/fluent.webp"):
        (tmp_path / "shelf" / picture.parent.name).mkdir(parents=True)
        shutil.copy(picture, tmp_path / "shelf" / picture.parent.name)
    return tmp_path / "shelf"


@pytest.fixture
def index(tmp_path: Path, shelf: Path) -> Path:
    with SearchEngine.create(tmp_path / "index", model=MODEL) as engine:
        engine.sync(shelf)
    return tmp_path / "index"


def test_recall_is_what_a_search_finds(index: Path, queries: Path, demo_gallery: Path) -> None:
    """The same question asked through the search engine, which shares no code with the metrics."""
    report = evaluate(queries, index=index)
    with SearchEngine.open(index) as engine:
        results = engine.search([demo_gallery / thing / "noto.png" for thing in THINGS], k=50)
    found = [[hit.key.split("/")[0] for hit in result.hits] for result in results]
    ranks = [1 + hits.index(thing) for hits, thing in zip(found, THINGS, strict=True)]
    assert report.recall_at == {str(k): np.mean([rank <= k for rank in ranks]) for k in (1, 5, 10)}
    assert report.mean_average_precision == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert (report.queries, report.gallery, report.skipped) == (6, 50, [])


def test_an_index_is_as_good_as_its_model_on_the_same_gallery(index: Path, queries: Path, shelf: Path) -> None:
    of_index, of_model = evaluate(queries, index=index), evaluate(queries, shelf, model=MODEL)
    assert of_index.model.fingerprint == of_model.model.fingerprint
    assert of_index.recall_at == of_model.recall_at
    assert of_index.map_at_r == of_model.map_at_r


def test_a_folder_against_itself_never_finds_the_query_itself(gallery: Path) -> None:
    report = evaluate(gallery, gallery, model=MODEL)
    assert (report.queries, report.gallery, report.left_out.own_pictures) == (12, 12, 12)
    assert report.recall_at["1"] < 1
    assert all(failure.hit.key != failure.key for failure in report.failures)


def test_a_copy_of_the_query_under_another_name_is_no_answer_either(gallery: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "renamed"
    for picture in gallery.glob("*/*"):
        (elsewhere / picture.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, elsewhere / picture.parent.name / f"copy-of-{picture.name}")
    copied, itself = evaluate(elsewhere, gallery, model=MODEL), evaluate(gallery, gallery, model=MODEL)
    assert copied.figures == itself.figures
    assert copied.left_out.own_pictures == 12


def test_a_thing_with_one_picture_is_left_out_and_counted(gallery: Path) -> None:
    (gallery / "apple" / "noto.png").unlink()
    report = evaluate(gallery, gallery, model=MODEL)
    assert (report.queries, report.gallery, report.left_out.without_positive) == (10, 11, 1)
    assert "apple" not in {one.label for one in report.per_class}


def test_pictures_without_a_label_are_left_out_and_counted(gallery: Path, queries: Path) -> None:
    shutil.copy(gallery / "apple" / "noto.png", gallery / "loose.png")
    report = evaluate(queries, gallery, model=MODEL)
    assert (report.gallery, report.left_out.without_label) == (12, 1)


def test_another_model_is_compared_on_the_same_queries(index: Path, queries: Path, shelf: Path) -> None:
    """An index is compared through its pictures; the figures are those of the two models on the folder."""
    report = evaluate(queries, index=index, compare="efficientnet_lite2")
    alone = evaluate(queries, shelf, model="efficientnet_lite2")
    assert report.comparison is not None
    assert report.comparison.model == alone.model
    assert report.comparison.figures == alone.figures
    gained = report.comparison.figures["recall_at_1"].value - report.recall_at["1"]
    assert report.comparison.differences["recall_at_1"].value == pytest.approx(gained)


def test_pictures_of_an_index_that_are_gone_are_left_out_for_both_models(
    index: Path, queries: Path, shelf: Path
) -> None:
    shutil.rmtree(shelf / "turtle")
    report = evaluate(queries, index=index, compare=MODEL)
    assert report.gallery == 49
    assert [skip.key for skip in report.skipped] == ["turtle/fluent.webp"]
    assert report.comparison is not None
    # the index holds float16: the same model may differ from itself in ties, not in the first hits here
    assert report.comparison.differences["recall_at_1"].value == 0


def test_upserted_pictures_count_by_their_product(index: Path, queries: Path, demo_gallery: Path) -> None:
    with SearchEngine.open(index) as engine:
        engine.upsert("shop/1", demo_gallery / "apple" / "fluent.webp", product_id="pear")
        engine.upsert("shop/2", demo_gallery / "apple" / "fluent.webp")
    report = evaluate(queries, index=index)
    assert (report.gallery, report.left_out.without_label) == (51, 1)


def test_progress_counts_both_sides_to_the_end(queries: Path, gallery: Path) -> None:
    seen = []
    evaluate(queries, gallery, model=MODEL, on_progress=lambda state: seen.append((state.side, state.done)))
    assert seen == [("queries", at) for at in range(1, 7)] + [("gallery", at) for at in range(1, 13)]


def test_the_command_prints_a_table_and_writes_a_report(queries: Path, gallery: Path, tmp_path: Path) -> None:
    shown = retrieve(
        "evaluate", "--model", MODEL, "--queries", queries, "--gallery", gallery, "--report", tmp_path / "r.html"
    )
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["Recall@1", "Recall@5", "Recall@10", "MAP@R", "mAP"]
    assert lines[6] == "6 queries of 6 products against 12 pictures"
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_the_command_prints_the_stable_shape(queries: Path, index: Path) -> None:
    printed = retrieve_json("evaluate", "--index", index, "--queries", queries)
    report = evaluate(queries, index=index)
    assert isinstance(report, EvaluationReport)
    assert printed == report.to_dict()


def test_pictures_that_cannot_be_used_are_named_and_the_rest_is_measured(queries: Path, gallery: Path) -> None:
    (gallery / "apple" / "noto.png").write_bytes(b"no picture")
    shown = retrieve("evaluate", "--model", MODEL, "--queries", queries, "--gallery", gallery)
    assert shown.returncode == 3
    assert "6 queries of 6 products against 11 pictures" in shown.stdout
    assert shown.stderr.startswith("skipped apple/noto.png: ")
    assert_one_line(shown.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an index with --index, or a model and a gallery"),
        (["--index", "i", "--model", MODEL], "--index and --model exclude each other"),
        (["--index", "i", "--gallery", "g"], "an index is its own gallery"),
        (["--model", MODEL], "--model needs --gallery"),
        (["--index", "i", "--report", "no/such/folder/r.html"], "make it first"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: list[str], message: str) -> None:
    said = retrieve("evaluate", "--queries", "q", *arguments)
    assert said.returncode == 2
    assert message in said.stderr
    assert "Traceback" not in said.stderr


def test_a_folder_that_is_not_there_is_one_line(gallery: Path) -> None:
    said = retrieve("evaluate", "--model", MODEL, "--queries", "no-such-folder", "--gallery", gallery)
    assert said.returncode == 1
    assert_one_line(said.stderr)
    assert "no-such-folder" in said.stderr


def test_a_folder_without_class_folders_is_refused_with_the_remedy(demo_queries: Path, gallery: Path) -> None:
    with pytest.raises(LabelsMissing, match="none of its 12 pictures lies in a class folder; put every class into"):
        evaluate(demo_queries, gallery, model=MODEL)


def test_a_manifest_that_names_no_product_is_refused(tmp_path: Path, gallery: Path) -> None:
    unnamed = manifest(tmp_path / "q.csv", [(gallery / "apple" / "noto.png", "5")], column="price")
    with pytest.raises(LabelsMissing, match=r"q\.csv: none of its 1 pictures has a product_id or a label"):
        evaluate(unnamed, gallery, model=MODEL)


def test_an_index_that_names_no_product_is_refused(tmp_path: Path, queries: Path, demo_queries: Path) -> None:
    with SearchEngine.create(tmp_path / "unnamed", model=MODEL) as engine:
        engine.sync(demo_queries)
    with pytest.raises(LabelsMissing, match="none of its 12 pictures has a product_id or a label, or lies in a class"):
        evaluate(queries, index=tmp_path / "unnamed")


def test_an_empty_index_is_refused(tmp_path: Path, queries: Path) -> None:
    SearchEngine.create(tmp_path / "empty", model=MODEL).close()
    with pytest.raises(GalleryError, match="is empty; run `retrieve index GALLERY` first"):
        evaluate(queries, index=tmp_path / "empty")


def test_queries_of_products_that_the_gallery_does_not_show_are_refused(tmp_path: Path, gallery: Path) -> None:
    strange = manifest(tmp_path / "q.csv", [(gallery / "apple" / "noto.png", "SKU-1")])
    with pytest.raises(GalleryError, match=r'none of the 1 products of the queries: .* named "SKU-1", .* "apple"'):
        evaluate(strange, gallery, model=MODEL)


def test_queries_of_which_none_can_be_used_are_refused(tmp_path: Path, gallery: Path) -> None:
    (tmp_path / "broken" / "apple").mkdir(parents=True)
    (tmp_path / "broken" / "apple" / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(GalleryError, match=r"none of the 1 pictures of the queries can be used, .* apple/1\.jpg"):
        evaluate(tmp_path / "broken", gallery, model=MODEL)


def test_another_model_under_the_name_of_the_indexs_own_is_refused(index: Path, queries: Path) -> None:
    query_catalog(index, "UPDATE spaces SET model_name = 'efficientnet_lite2'")
    with pytest.raises(ModelMismatch, match=r"was built by efficientnet_lite2@.*the query encoder is"):
        evaluate(queries, index=index)


def test_a_gallery_without_a_model_is_refused(queries: Path, gallery: Path) -> None:
    with pytest.raises(ValueError, match="give either an index, or a model and a gallery"):
        evaluate(queries, gallery)
