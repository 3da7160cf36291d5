"""Labelled manifests of the benchmark data, one for each protocol."""

import csv
from collections.abc import Iterable
from pathlib import Path

from common import LabelledPicture, bench_data, grocery_iconic, grocery_split

LAST_SEEN_CLASS = 40  # of Grocery's 81, in the protocol "unseen"


def write_manifest(path: Path, pictures: Iterable[LabelledPicture]) -> Path:
    """Write a manifest with a product_id for each picture."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "product_id"])
        rows.writerows([picture.path, f"product {picture.fine:02d}"] for picture in pictures)
    return path


def write_grocery(folder: Path) -> dict[str, Path]:
    """Grocery's manifests by name: train, val, test, shelf (train + val), iconic, catalogued (train + iconic), ..."""
    train, val, test = (grocery_split(name) for name in ("train", "val", "test"))
    everything = train + val + test
    sets = {
        "train": train,
        "val": val,
        "test": test,
        "shelf": train + val,
        "iconic": grocery_iconic(),
        "shelf_and_iconic": train + val + grocery_iconic(),
        "train_and_iconic": train + grocery_iconic(),
        "seen": [picture for picture in train + val if picture.fine <= LAST_SEEN_CLASS],
        "unseen": [picture for picture in everything if picture.fine > LAST_SEEN_CLASS],
    }
    return {name: write_manifest(folder / f"{name}.csv", pictures) for name, pictures in sets.items()}


def write_emoji(folder: Path) -> dict[str, Path]:
    """Manifests of the emoji: 1,200 classes to train on, and of 392 others two drawings each against the third."""
    data = bench_data()
    drawings = {}
    for split in ("train", "test"):
        names = (data / "emoji-splits" / f"{split}.txt").read_text("utf-8").split()
        drawings[split] = [(name, path) for name in names for path in sorted((data / "emoji" / name).iterdir())]
    sides = {
        "emoji_train": drawings["train"],
        "emoji_queries": [one for one in drawings["test"] if not one[1].stem.startswith("fluent")],
        "emoji_gallery": [one for one in drawings["test"] if one[1].stem.startswith("fluent")],
    }
    manifests = {}
    for name, rows in sides.items():
        manifests[name] = folder / f"{name}.csv"
        with manifests[name].open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "product_id"])
            writer.writerows([path, label] for label, path in rows)
    return manifests
