"""What came of a training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from retrieval.records import Skipped


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What came of a training.

    Attributes:
        model: absolute path of the model directory.
        fingerprint: of its weights.
        epochs: as many as were best.
        before, after: recall_at_1 and map_at_r on the held-out pictures, of the untrained start and of the best epoch;
            None where nothing was held out.
        validation: what was held out: "classes", "pictures", a "file" or "none".
        is_refitted: the weights were trained afresh on everything; `after` is then that of the run before.
        pictures, classes: trained on or held out.
        held_out: pictures.
        skipped: pictures that were set aside.
        suspects: pairs that look the same and are labelled differently; the report shows them.
        expected_calibration_error: of match probabilities on held-out pairs, None where there were too few.
        seconds: of the whole, since it was last started.
        notes: what the reader must know.
    """

    model: str
    fingerprint: str
    epochs: int
    before: Mapping[str, float] | None
    after: Mapping[str, float] | None
    validation: str
    is_refitted: bool
    pictures: int
    classes: int
    held_out: int
    skipped: list[Skipped]
    suspects: int
    expected_calibration_error: float | None
    seconds: float
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The stable shape."""
        return asdict(self) | {"skipped": [skip.to_dict() for skip in self.skipped]}
