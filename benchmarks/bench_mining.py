"""What does mining buy? The same pictures for as many epochs, with negatives from further and further afield.

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_mining.py [NAME...] [--epochs N] [--seed N]

Trained on Grocery's train.txt and val.txt, evaluated as the protocol "shelf": test.txt against both. Index-mined
negatives come in the second half of the epochs, as everywhere; embedding the pictures for that costs time, not epochs.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench_training import add_budget, budget, figures, settings, trained
from common import record
from retrieval.errors import TrainingCollapsed
from retrieval.evaluation.protocol import evaluate
from training_sets import write_grocery

MODEL = "efficientnet_lite0"
CHOICES = {
    "random triplets": {"loss": "triplet", "miner": "all"},
    "hard triplets of the batch": {"loss": "triplet", "miner": "hard"},
    "hard triplets of the batch, Euclidean": {"loss": "triplet", "miner": "hard", "distance": "euclidean"},
    "index-mined triplets": {"loss": "triplet", "miner": "curriculum"},
    "proxies": {"loss": "proxy", "miner": "all"},
    "proxies and index-mined negatives": {"loss": "proxy", "miner": "curriculum"},
    # What a refresh would begin with if it mined in the live index: the start's own vectors are what is indexed first.
    "proxies and index-mined negatives from the first epoch on": {"loss": "proxy", "miner": "index"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CHOICES), metavar="NAME", help=", ".join(CHOICES))
    add_budget(parser, epochs=6)
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(CHOICES):
        parser.error(f"{', '.join(unknown)}: the names are {', '.join(CHOICES)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = write_grocery(folder)
        for choice in asked.names:
            more = settings(MODEL, asked) | CHOICES[choice]
            try:
                done = trained(sets["shelf"], folder, choice.replace(" ", "-"), **more)
            except TrainingCollapsed as error:
                values: dict[str, Any] = {"collapsed": str(error)}
            else:
                values = figures(evaluate(sets["test"], sets["shelf"], model=done.model), "shelf")
                values |= {"training_minutes": done.seconds / 60}
            record(
                "mining",
                dataset="Grocery",
                protocol=f"shelf, {budget(MODEL, asked)}",
                model=f"{choice}, seed {asked.seed}",
                values=values,
                seed=asked.seed,
            )


if __name__ == "__main__":
    sys.exit(main())
