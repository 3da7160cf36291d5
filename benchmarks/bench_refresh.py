"""Does a refresh make a shop's answers better in one command, and what do its customers feel meanwhile?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_refresh.py shop [--train-px P] [--embed-px P] [--epochs N]
    RETRIEVE_BENCH_DATA=... python benchmarks/bench_refresh.py readers
    RETRIEVE_BENCH_DATA=... python benchmarks/bench_refresh.py nonsense

**shop**: Grocery's train.txt and val.txt are indexed with EfficientNet-Lite0 as it comes, and `retrieve refresh` is
run. Photos of test.txt are searched for before, during and after; `results/refresh.png` shows what share of them finds
its product. `retrieve train` with the same options on the same photos is what the refreshed index is held against.

**readers**: 600 of the photos. Four threads of one process and two more processes search without pause before and
during a whole refresh (one epoch at 96 px, and the refit). Each answer must be of the model of its generation, and have
the score that this model gives it.

**nonsense**: the same photos; the labels that the candidate is trained on are shuffled, those that it is judged by are
not. `retrieve refresh` must refuse it, and the live model and its vectors stay as they are, byte for byte.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench_training import add_budget, budget
from common import RESULTS, LabelledPicture, grocery_split, record
from indexer.store import IndexStore
from readers import Answer, reading
from retrieval import cli
from retrieval.engine import SearchEngine
from retrieval.index_model import model_address
from retrieval.refresh import history, run
from retrieval.report.chart import BLUE, INK, PALE_INK, new_figure, tidy
from training_sets import write_grocery, write_manifest

MODEL = "efficientnet_lite0"
RETRIEVE = [sys.executable, "-m", "retrieval.cli"]
SAMPLE = 250  # queries asked while the refresh runs, every `EVERY_S`
EVERY_S = 20.0
UNDISTURBED_S = 30.0
SCORE_TOLERANCE = 5e-3  # a picture embedded alone and in a batch, in bfloat16


class Moment(NamedTuple):
    """How well an index answers.

    Attributes:
        at_s: since the refresh began.
        generation: of the answers.
        recall_at_1: the share of queries whose best hit is of their product.
    """

    at_s: float
    generation: int
    recall_at_1: float


def recall(engine: SearchEngine, queries: Sequence[LabelledPicture]) -> tuple[float, int]:
    """Recall@1 through the product, and the generation that answered."""
    engine.refresh()
    results = engine.search([picture.path for picture in queries], k=1)
    found = [
        result.hits[0].product_id == f"product {picture.fine:02d}"
        for result, picture in zip(results, queries, strict=True)
    ]
    return sum(found) / len(found), results[0].generation


def options(asked: argparse.Namespace) -> list[str]:
    """The same for `refresh` and `train`."""
    embed = [] if asked.embed_px is None else ["--embed-px", str(asked.embed_px)]
    return [
        "--epochs", str(asked.epochs), "--train-px", str(asked.train_px), *embed, "--schedule", "cosine",
        "--seed", str(asked.seed), "--device", asked.device,
    ]  # fmt: skip


def refreshing(index_dir: Path, *more: str) -> subprocess.Popen[str]:
    """`retrieve refresh`, going on."""
    command = [*RETRIEVE, "refresh", "--index", str(index_dir), "--json", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> Any:
    """What it said."""
    said, _ = process.communicate()
    if process.returncode:
        sys.exit(f"retrieve refresh ended with {process.returncode}: {said}")
    return json.loads(said)


def shop(folder: Path, asked: argparse.Namespace) -> None:
    """See the module."""
    sets, test = write_grocery(folder), grocery_split("test")
    sample = test[:: max(1, len(test) // SAMPLE)]
    with SearchEngine.create(folder / "index", model=MODEL) as engine:
        engine.sync(sets["shelf"])
        before, _ = recall(engine, test)
        moments = [Moment(-EVERY_S, *reversed(recall(engine, sample)))]
        started_s = time.monotonic()
        process = refreshing(folder / "index", *options(asked))
        while process.poll() is None:
            share, generation = recall(engine, sample)
            moments.append(Moment(time.monotonic() - started_s, generation, share))
            time.sleep(EVERY_S)
        report, seconds = finished(process), time.monotonic() - started_s
        after, _ = recall(engine, test)
        for later in (0.5, 1.5):
            share, generation = recall(engine, sample)
            moments.append(Moment(seconds + later * EVERY_S, generation, share))
    model = folder / "trained"
    training = [*RETRIEVE, "train", sets["shelf"], "--out", model, "--from", MODEL, "--val", "none", *options(asked)]
    subprocess.run(training, check=True)
    with SearchEngine.create(folder / "trained.index", model=model) as engine:
        engine.sync(sets["shelf"])
        by_train, by_train_on_sample = recall(engine, test)[0], recall(engine, sample)[0]
    draw(moments, seconds, by_train_on_sample)
    record(
        "refresh",
        dataset=f"Grocery, {len(test)} queries",
        protocol="shop: shelf, through the index, in one command",
        model=budget(MODEL, asked),
        values={
            "recall_at_1_before": before,
            "recall_at_1_after": after,
            "recall_at_1_of_train": by_train,
            "refresh_minutes": seconds / 60,
            "held_out_queries": report["judged"]["queries"],
            "held_out_recall_at_1": report["judged"]["recall_at"]["1"],
            "held_out_recall_at_1_of_candidate": report["judged"]["comparison"]["recall_at"]["1"],
            "moments": [[round(moment.at_s, 1), moment.generation, moment.recall_at_1] for moment in moments],
        },
        seed=asked.seed,
    )


def draw(moments: Sequence[Moment], seconds: float, by_train: float) -> None:
    """Recall over time, with the moment of the swap."""
    figure = new_figure((7.0, 3.2))
    axes = figure.add_subplot()
    minutes = [moment.at_s / 60 for moment in moments]
    axes.plot(minutes, [moment.recall_at_1 for moment in moments], color=BLUE, marker="o", markersize=3)
    swap = next(moment for moment in moments if moment.generation > moments[0].generation)
    axes.axvspan(0, seconds / 60, color=PALE_INK, alpha=0.12, lw=0)
    axes.axvline(swap.at_s / 60, color=INK, lw=0.8, ls=":")
    axes.axhline(by_train, color=PALE_INK, lw=0.8, ls="--")
    axes.annotate(
        "the same queries, `retrieve train`", (0, by_train), xytext=(2, 3), textcoords="offset points", fontsize=8
    )
    axes.set(xlabel="minutes since `retrieve refresh` was called", ylabel="Recall@1", ylim=(0.5, 1.0))
    tidy(axes)
    figure.savefig(RESULTS / "refresh.png")


def wrong_answers(answers: Sequence[Answer], fingerprints: dict[int, str], scores: dict[str, list[float]]) -> list[str]:
    """Answers that are not of the model of their generation, or do not have its score."""
    switches = sorted(fingerprints)
    wrong = []
    for one in answers:
        expected = fingerprints[max(number for number in switches if number <= one.generation)]
        if one.fingerprint != expected:
            wrong.append(f"generation {one.generation} is of {expected[:8]}, an answer says {one.fingerprint[:8]}")
        elif abs(one.score - scores[expected][one.query]) > SCORE_TOLERANCE:
            wrong.append(f"query {one.query} has {one.score}, not {scores[expected][one.query]} by {expected[:8]}")
    return wrong


def readers(folder: Path) -> None:
    """See the module."""
    photos = (grocery_split("train") + grocery_split("val"))[::4][:600]
    queries = [picture.path for picture in grocery_split("test")[::50]]
    index_dir, scores = folder / "index", dict[str, list[float]]()
    with SearchEngine.create(index_dir, model=MODEL) as engine:
        engine.sync(write_manifest(folder / "gallery.csv", photos))
        scores[engine.model_fingerprint] = [hits.hits[0].score for hits in engine.search(queries, k=1)]
    (folder / "answers").mkdir()
    with reading(index_dir, queries, folder / "answers") as seen:
        time.sleep(UNDISTURBED_S)
        begun_s = time.monotonic()
        process = refreshing(index_dir, "--epochs", "1", "--train-px", "96", "--gate", "recall_at_1 >= 0")
        time.sleep(5)
        niceness = int(Path(f"/proc/{process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()[16])
        report, ended_s = finished(process), time.monotonic()
        time.sleep(5)  # until they have all moved on
    if not seen.answers:
        sys.exit(f"no reader got an answer: {seen.errors}")
    with SearchEngine.open(index_dir) as engine:
        scores[engine.model_fingerprint] = [hits.hits[0].score for hits in engine.search(queries, k=1)]
    fingerprints = {reign.generation: reign.model.fingerprint for reign in history(index_dir)}
    before = sum(begun_s - UNDISTURBED_S <= one.at_s < begun_s for one in seen.answers) / UNDISTURBED_S
    during = sum(begun_s <= one.at_s < ended_s for one in seen.answers) / (ended_s - begun_s)
    of_models = Counter(one.fingerprint for one in seen.answers)
    record(
        "refresh",
        dataset=f"Grocery, {len(photos)} photos",
        protocol="readers: 4 threads and 2 processes search without pause during a whole refresh",
        model=MODEL,
        values={
            "answers": len(seen.answers),
            "answers_by_the_new_model": of_models[report["moved"]["model"]["fingerprint"]],
            "wrong_answers": (wrong := wrong_answers(seen.answers, fingerprints, scores))[:5],
            "wrong": len(wrong),
            "errors": seen.errors,
            "answers_per_s_undisturbed": before,
            "answers_per_s_during": during,
            "throughput_ratio": during / before,
            "refresh_seconds": ended_s - begun_s,
            "niceness_of_refresh": niceness,
        },
        seed=0,
    )


def live_pair(index_dir: Path) -> dict[str, str]:
    """Checksums of the live model's files and of its vectors, wherever these lie."""
    with closing(IndexStore(index_dir)) as store:
        model = Path(model_address(store.index_dir, store.space))
        parts = {str(path): path.read_bytes() for path in model.rglob("*") if path.is_file()}
        parts |= {f"block {number}": rows.tobytes() for number, (_, rows) in enumerate(store.snapshot.blocks())}
    return {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}


def nonsense(folder: Path) -> None:
    """See the module."""
    photos = (grocery_split("train") + grocery_split("val"))[::4][:600]
    index_dir, queries = folder / "index", grocery_split("test")[::5]
    real = run.train_apart

    def train_on_nonsense(settings: dict[str, Any], **named: Any) -> None:
        source = Path(settings["source"])
        rows = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
        labels = np.random.default_rng(0).permutation([row["product_id"] for row in rows]).tolist()
        lines = [json.dumps(row | {"product_id": label}) for row, label in zip(rows, labels, strict=True)]
        source.write_text("\n".join(lines) + "\n", "utf-8")
        real(settings, **named)

    with SearchEngine.create(index_dir, model=MODEL) as engine:
        engine.sync(write_manifest(folder / "gallery.csv", photos))
    asked = ["refresh", "--index", str(index_dir), "--epochs", "2", "--train-px", "96"]
    refresh_by_command([*asked, "--gate", "recall_at_1 >= 0"])  # so that the live model is one that was trained
    with SearchEngine.open(index_dir) as engine:
        before, former, reigns = recall(engine, queries)[0], live_pair(index_dir), len(history(index_dir))
        run.train_apart = train_on_nonsense
        try:
            code = refresh_by_command(asked)
        finally:
            run.train_apart = real
        after = recall(engine, queries)[0]
    record(
        "refresh",
        dataset=f"Grocery, {len(photos)} photos",
        protocol="nonsense: the labels that the candidate is trained on are shuffled",
        model=MODEL,
        values={
            "exit_code": code,
            "live_files_and_vectors": len(former),
            "live_pair_is_the_same": live_pair(index_dir) == former,
            "models_since": len(history(index_dir)) - reigns,
            "recall_at_1_before": before,
            "recall_at_1_after": after,
        },
        seed=0,
    )


def refresh_by_command(arguments: list[str]) -> int:
    """Run `retrieve` in this process; returns its exit code."""
    try:
        cli.main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol", choices=("shop", "readers", "nonsense"))
    add_budget(parser, epochs=6)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if asked.protocol == "shop":
            shop(Path(name), asked)
        else:
            {"readers": readers, "nonsense": nonsense}[asked.protocol](Path(name))


if __name__ == "__main__":
    sys.exit(main())
