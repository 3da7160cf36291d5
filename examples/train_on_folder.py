"""Train an encoder on a folder of class folders, then ask it: from Python, without the command line.

    python examples/train_on_folder.py [FOLDER] [--epochs N]

Without FOLDER, pictures are made from the demo gallery: each thing several times, turned. The small network `tiny_cnn`
is trained from scratch to know a thing whichever way it is turned, and is measured on things that it was never shown.
On a catalogue of photos, leave out `from_model` for the default encoder.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval import SearchEngine, evaluate
from retrieval.training import Augmentation, TrainConfig, train

GALLERY = Path(__file__).resolve().parent.parent / "data" / "gallery"
VIEWS, SIDE_PX = 6, 80


def make_views(folder: Path) -> None:
    """Write each thing of the demo gallery in several turns, a folder a thing."""
    random = np.random.default_rng(0)
    for source in sorted(GALLERY.glob("*/noto.png")):
        thing = folder / source.parent.name
        thing.mkdir(parents=True)
        with Image.open(source) as stored:
            picture = stored.convert("RGBA").resize((SIDE_PX, SIDE_PX))
        white = Image.new("RGBA", picture.size, "white")
        upright = Image.alpha_composite(white, picture).convert("RGB")
        for view in range(VIEWS):
            angle = float(random.uniform(0, 360))
            upright.rotate(angle, Image.Resampling.BICUBIC, fillcolor="white").save(thing / f"{view}.png")


def main() -> None:
    """Train, evaluate, index, search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = asked.folder or work / "things"
        if asked.folder is None:
            make_views(folder)

        report = train(
            TrainConfig(
                source=str(folder),
                out=str(work / "model"),
                from_model="tiny_cnn",
                epochs=asked.epochs,
                head_rate=1e-3,
                average=0.9,
                augmentation=Augmentation(crop_area=0.7, rotation_degrees=180),
            )
        )
        if report.before and report.after:
            print(f"on {report.held_out} pictures of things that it was never shown:")
            for measure, before in report.before.items():
                print(f"  {measure} {before:.2f} -> {report.after[measure]:.2f}")

        again = evaluate(folder, folder, model=report.model)
        print(f"Recall@1 among all {again.queries} pictures: {again.figures['recall_at_1'].value:.2f}")

        with SearchEngine.create(work / "index", model=report.model) as engine:
            engine.sync(folder)
            query = next(folder.glob("*/*.png"))
            for hit in engine.search(query, k=3).hits:
                print(f"  {hit.score:.3f} {hit.key}")


if __name__ == "__main__":
    main()
