"""How well does a network tell apart what it is not trained on?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.encoder.twin import TwinEncoder
from retrieval.evaluation.metrics import score_ranking
from retrieval.training.dataset import TrainingSet
from retrieval.training.embedding import embed_rows
from retrieval.training.history import Measures
from retrieval.training.loader import BatchLoader
from retrieval.training.precision import Precision

_LOOKED_AT = 16


@dataclass(frozen=True)
class HeldOut:
    """The held-out pictures, and what each of them is searched for in.

    Whole classes are searched for among each other, held-out pictures of known classes among the pictures that are
    trained on, as a shop's customer would.

    Attributes:
        training_set: pictures and split.
        loader: of those pictures.
        precision: of embedding.
    """

    training_set: TrainingSet
    loader: BatchLoader
    precision: Precision

    def embed(self, twin: TwinEncoder) -> NDArray[np.float32]:
        """(V, D) unit embeddings of the held-out pictures."""
        rows = self.training_set.split.validation_rows
        return embed_rows(twin.to(self.precision.device), self.loader, rows, self.precision)

    def measure(self, twin: TwinEncoder) -> Measures | None:
        """Recall@1 and MAP@R; None where nothing is held out, or nothing of it has a positive.

        Raises:
            TrainingDiverged: the embeddings are no numbers any more; some are looked at even where nothing is held out.
        """
        split, labels = self.training_set.split, self.training_set.pictures.labels
        if not len(split.validation_rows):
            embed_rows(twin, self.loader, split.train_rows[:_LOOKED_AT], self.precision)
            return None
        queries, asked = self.embed(twin), labels[split.validation_rows]
        if split.kind == "classes":
            scores = score_ranking(queries, asked, queries, asked, own_rows=np.arange(len(queries)))
        else:
            gallery = embed_rows(twin, self.loader, split.train_rows, self.precision)
            scores = score_ranking(queries, asked, gallery, labels[split.train_rows])
        return Measures(scores.recall_at(1), scores.map_at_r) if len(scores.rows) else None
