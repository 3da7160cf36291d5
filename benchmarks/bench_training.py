"""How good does `retrieve train` make an encoder, on products that it was trained on and on others?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_training.py PROTOCOL... [--model NAME] [--epochs N] [--seed N]

Protocols: shelf (and catalogue, of the same model), catalogue (with the iconic pictures trained on), unseen with the
recipe for new products, unseen_by_default with the default one, emoji.
Every setting was chosen on Grocery's val.txt; test.txt is read once, by the model that is reported. Each trains on all
that its protocol allows for a fixed number of epochs, and is evaluated as `retrieve evaluate` does it.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import packed_bits, record
from retrieval.encoder.runtime import has_gpu
from retrieval.evaluation.metrics import RankingScores
from retrieval.evaluation.pictures import read_side
from retrieval.evaluation.protocol import embedded, evaluate
from retrieval.evaluation.summary import Evaluated, find_own_rows, scored, summarised
from retrieval.results import EvaluationReport, TrainingReport
from retrieval.training import Augmentation, TrainConfig, TrainProgress, train
from training_sets import write_emoji, write_grocery

PROTOCOLS = ("shelf", "catalogue", "unseen", "unseen_by_default", "emoji")
# What keeps most of what the start knew; chosen on Grocery's classes 0 to 20 against 21 to 40 (decision 21).
FOR_NEW_PRODUCTS: dict[str, Any] = {"loss": "tuplet", "start_share": 0.75}


def settings(model: str, asked: argparse.Namespace) -> dict[str, Any]:
    """What all protocols share; chosen on Grocery's train.txt and val.txt."""
    return {
        "from_model": model,
        "train_px": asked.train_px,
        "embed_px": asked.embed_px,
        "epochs": asked.epochs,
        "schedule": "cosine",
        "warm_up": 0.2 * asked.epochs,
        "validation": "none",
        "device": asked.device,
        "seed": asked.seed,
    }


def budget(model: str, asked: argparse.Namespace) -> str:
    """What a figure depends on beside the method, for the name of a record."""
    embedded_at = f" (embedded at {asked.embed_px})" if asked.embed_px else ""
    on_gpu = asked.device.startswith("cuda") or (asked.device == "auto" and has_gpu())
    return f"{model}, {asked.train_px} px{embedded_at}, {asked.epochs} epochs, on a {'GPU' if on_gpu else 'CPU'}"


def trained(source: Path, folder: Path, name: str, **more: Any) -> TrainingReport:
    """Train and say how long it took."""

    def tell(state: TrainProgress) -> None:
        if state.done == state.total:
            print(
                f"{name} epoch {state.epoch}/{state.epochs}: loss {state.loss:.4f}, "
                f"{state.images_per_second:.0f} images/s",
                file=sys.stderr,
                flush=True,
            )

    return train(TrainConfig(source=str(source), out=str(folder / name), **more), on_progress=tell)


def figures(report: EvaluationReport, prefix: str) -> dict[str, Any]:
    """The report's figures with intervals, under names of the protocol."""
    found: dict[str, Any] = {}
    for name, figure in report.figures.items():
        found |= {f"{prefix}_{name}": figure.value, f"{prefix}_{name}_interval": [figure.low, figure.high]}
    return found


def searched(queries: Path, gallery: Path, model: str) -> Evaluated:
    """Both sides as `evaluate` embeds them."""
    return embedded(model, read_side(queries, "query"), read_side(gallery, "gallery"))


def ranked(run: Evaluated) -> RankingScores:
    """What `evaluate` ranks, query by query."""
    return scored(run, find_own_rows(run.queries, run.gallery))


def add_budget(parser: argparse.ArgumentParser, epochs: int = 12) -> None:
    """The options of how, for how long, where and from which seed is trained."""
    parser.add_argument("--train-px", type=int, default=160)
    parser.add_argument("--embed-px", type=int, help="what the trained model embeds; by default the backbone's own")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocols", nargs="+", choices=PROTOCOLS)
    parser.add_argument("--model", default="efficientnet_lite0")
    add_budget(parser)
    asked = parser.parse_args()
    more = settings(asked.model, asked)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = write_grocery(folder) | write_emoji(folder)
        for protocol in asked.protocols:
            values: dict[str, Any] = {}
            if protocol == "shelf":
                done = trained(sets["shelf"], folder, protocol, **more)
                shelf = searched(sets["test"], sets["shelf"], done.model)
                values |= figures(summarised(shelf), "shelf")
                values |= figures(evaluate(sets["test"], sets["iconic"], model=done.model), "catalogue")
                values["found_at_1"] = packed_bits(ranked(shelf).found_at(1))
            elif protocol == "catalogue":
                done = trained(sets["shelf_and_iconic"], folder, protocol, **more)
                values |= figures(evaluate(sets["test"], sets["iconic"], model=done.model), "catalogue")
                values |= figures(evaluate(sets["test"], sets["shelf"], model=done.model), "shelf")
            elif protocol.startswith("unseen"):
                recipe = FOR_NEW_PRODUCTS if protocol == "unseen" else {}
                done = trained(sets["seen"], folder, protocol, **(more | recipe))
                values |= figures(evaluate(sets["unseen"], sets["unseen"], model=asked.model), "unseen_before")
                values |= figures(evaluate(sets["unseen"], sets["unseen"], model=done.model), "unseen")
            else:
                flat = Augmentation(crop_area=0.5, rotation_degrees=5.0, flip=0.0)
                emoji = more | {"augmentation": flat, "pictures_per_class": 3, "drop_conflicts": True}
                done = trained(sets["emoji_train"], folder, protocol, **emoji)
                sides = sets["emoji_queries"], sets["emoji_gallery"]
                values |= figures(evaluate(*sides, model=asked.model), "emoji_before")
                values |= figures(evaluate(*sides, model=done.model), "emoji")
            minutes = {"pictures": done.pictures, "epochs": done.epochs, "training_minutes": done.seconds / 60}
            record(
                "training",
                dataset="Emoji" if protocol == "emoji" else "Grocery",
                protocol=protocol,
                model=f"{budget(asked.model, asked)}, seed {asked.seed}",
                values=values | minutes,
                seed=asked.seed,
            )


if __name__ == "__main__":
    sys.exit(main())
