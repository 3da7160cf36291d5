"""The whole training set as the network last saw it: where hard negatives are mined, by way of an index."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.training.config import MINED_LOSSES, TrainConfig
from retrieval.training.hard_negatives import Suspect, mine_from_index
from retrieval.training.objective import Mined
from retrieval.training.samplers import Rows

NO_LABEL = -1  # of a picture that is not trained on itself
_SHARE_BEFORE = {"curriculum": 0.5, "index": 0.0}  # the miners that use the index, and how long they do without it


class Catalogue:
    """Remembers the embedding of every training picture, and mines among them every few epochs.

    Args:
        config: `miner`, `mine_every`, `window` and `duplicate_share`.
        labels: (T,) of the training pictures.
        rejected: (T, V) int64, numbers of the E pictures that are known not to be the same as each; -1 for none.
        dim: D.
        device: of the network.
    """

    def __init__(self, config: TrainConfig, labels: Rows, rejected: Rows, dim: int, device: torch.device) -> None:
        self.suspects: list[Suspect] = []
        self.is_off = config.miner not in _SHARE_BEFORE or config.loss not in MINED_LOSSES
        self._config = config
        self._labels = labels
        shown_apart = np.full(rejected.max(initial=-1) + 1, NO_LABEL)
        self._embeddings = torch.zeros(len(labels) + len(shown_apart), dim, device=device)
        self._all_labels = torch.from_numpy(np.concatenate([labels, shown_apart])).to(device)
        self._rejected = torch.from_numpy(np.where(rejected < 0, -1, rejected + len(labels))).to(device)
        self._negatives: Tensor | None = None

    @property
    def mined(self) -> Mined | None:
        """What a batch is to be held against, or None."""
        if self._negatives is None:
            return None
        return Mined(self._embeddings, self._all_labels, self._negatives, self._rejected)

    def mine_if_due(self, epoch: int, embed: Callable[[], NDArray[np.float32]]) -> None:
        """Embed all training pictures, index them and look for everybody's hard negatives, if it is time to.

        Args:
            epoch: that is about to begin, from 0.
            embed: (T + E, D) unit embeddings now, of the training pictures, then of the rejected ones.
        """
        since = epoch - math.ceil(self._config.epochs * _SHARE_BEFORE.get(self._config.miner, 0.0))
        if self.is_off or since < 0:
            self._negatives = None
            return
        if self._negatives is not None and since % self._config.mine_every:
            return
        embeddings, trained_on = embed(), len(self._labels)
        found = mine_from_index(
            embeddings[:trained_on],
            self._labels,
            window=self._config.window,
            duplicate_share=self._config.duplicate_share,
        )
        device = self._embeddings.device
        self.suspects = found.suspects
        # Ranks come from the averaged network; what a batch is held against stays as training saw it, where it did:
        # augmented, and normalised by the statistics of batches, as the batch itself is.
        is_new = ~self._embeddings.any(dim=1)
        is_new[trained_on:] = True  # no batch renews these
        self._embeddings[is_new] = torch.from_numpy(embeddings).to(device)[is_new]
        self._negatives = torch.from_numpy(found.rows).to(device)

    def remember(self, rows: Tensor, embeddings: Tensor) -> None:
        """Keep how the pictures of a batch were just embedded."""
        self._embeddings[rows] = embeddings.detach()

    def seen(self) -> tuple[NDArray[np.float32], Rows]:
        """The embeddings that are known, and their labels."""
        embeddings = self._embeddings[: len(self._labels)].cpu().numpy()
        is_known = embeddings.any(axis=1)
        return embeddings[is_known], self._labels[is_known]

    def tensors(self) -> dict[str, Tensor]:
        """For the state on disk."""
        named = {"embeddings": self._embeddings}
        return named if self._negatives is None else named | {"negatives": self._negatives}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Back to what `tensors` gave."""
        device = self._embeddings.device
        self._embeddings = tensors["embeddings"].to(device)
        self._negatives = tensors["negatives"].to(device) if "negatives" in tensors else None
