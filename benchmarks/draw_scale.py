"""Draw how cost grows with an index: `results/scale.png`, from what `bench_scale.py` has recorded.

python benchmarks/draw_scale.py
"""

import json
import sys
from typing import Any

from common import RESULTS
from retrieval.report.chart import BLUE, GREEN, ORANGE, PALE_INK, new_figure, tidy

PANELS = (
    (
        "milliseconds of a search",
        (
            ("single_exact_ms", 1.0, PALE_INK, "comparing all"),
            ("single_ms", 1.0, BLUE, "one query"),
            ("filtered_0.01_ms", 1.0, ORANGE, "one, 1% may be found"),
            ("batch_ms", 1 / 64, GREEN, "one of a batch of 64"),
        ),
    ),
    ("seconds", (("commit_s", 1.0, ORANGE, "committing"), ("compact_s", 1.0, BLUE, "compacting, building, tuning"))),
    (
        "megabytes",
        (
            ("disk_bytes", 1e-6, ORANGE, "on disk"),
            ("private_bytes", 1e-6, BLUE, "in memory"),
        ),
    ),
)


def main() -> None:
    records = sorted(json.loads((RESULTS / "scale.json").read_text("utf-8")), key=count_of)
    figure = new_figure((10.0, 3.2))
    for axes, (unit, lines) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for name, factor, colour, label in lines:
            points = [(count_of(one), factor * one["values"][name]) for one in records if one["values"].get(name)]
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=label)
        axes.set(xscale="log", yscale="log", xlabel="vectors of 256 values", ylabel=unit)
        axes.legend(fontsize=7, frameon=False)
        tidy(axes)
    figure.savefig(RESULTS / "scale.png")


def count_of(one: dict[str, Any]) -> int:
    """How many vectors a record is of."""
    return int(one["dataset"].split()[0])


if __name__ == "__main__":
    sys.exit(main())
