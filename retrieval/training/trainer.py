"""The training loop: batches, losses, steps, validation, checkpoints; `Trainer.run` reads from top to bottom."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.encoder.twin import TwinEncoder
from retrieval.encoder.weights import load_twin
from retrieval.errors import TrainingCollapsed, TrainingDiverged, TrainingError
from retrieval.evaluation.metrics import score_ranking
from retrieval.threads import thread_budget
from retrieval.training.average import WeightAverage
from retrieval.training.collapse import Spread, measure_spread
from retrieval.training.config import TrainConfig
from retrieval.training.dataset import TrainingSet
from retrieval.training.depthwise import speed_up_depthwise
from retrieval.training.embedding import embed_rows, features_of_rows
from retrieval.training.hard_negatives import MinedNegatives, Suspect, mine_from_index
from retrieval.training.history import Epoch, Measures, Phase, best_epoch
from retrieval.training.loader import BatchLoader
from retrieval.training.network import needs_projection, open_network, start_projection
from retrieval.training.objective import Catalogue, Cost, open_objective
from retrieval.training.precision import choose_precision
from retrieval.training.rates import Plateau, cosine_factor, make_optimiser, set_factor, warm_up_factor
from retrieval.training.samplers import Rows, batches_of_groups, groups_of_classes
from retrieval.training.state import SavedState, load_state, optimiser_tensors, restore_optimiser, save_state

BEST_FOLDER = "best"
_PLATEAU_CUT = 0.3  # of the rates, where validation stalls
_PATIENCES_TO_STOP = 3  # patiences without a better epoch: two cuts of the rates have not helped
_PICTURES_FOR_PROJECTION = 2048
_LOADED_EARLY = {"curriculum": 1, "index": 0}  # miners that use the index, and epochs that they do without it


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """How far a training is.

    Attributes:
        phase: "validation" or "refit".
        epoch, epochs: from 1; the number of epochs is that at most.
        done, total: pictures of this epoch.
        loss, active: means over the epoch so far.
        images_per_second: of this epoch.
        recall_at_1: of the last validation, None before the first.
        seconds_left: until the last epoch of this phase.
    """

    phase: Phase
    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    active: float
    images_per_second: float
    recall_at_1: float | None
    seconds_left: float


OnProgress = Callable[[TrainProgress], None]


class Trainer:
    """One phase of a training: some pictures to train on, perhaps some to measure on, a number of epochs.

    Args:
        config: the settings.
        training_set: pictures and split.
        folder: where checkpoints go; a state in it is taken up.
        phase: "validation" or "refit".
        epochs: at most.
        factors: learning-rate factors by epoch to repeat, for a refit; None lets the schedule decide.
        on_progress: called after every step; may raise KeyboardInterrupt.
    """

    def __init__(
        self,
        config: TrainConfig,
        training_set: TrainingSet,
        folder: Path,
        phase: Phase,
        epochs: int,
        factors: Sequence[float] | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.config = config
        self.phase: Phase = phase
        self.history: list[Epoch] = []
        self.suspects: list[Suspect] = []
        self._folder, self._epochs, self._factors, self._on_progress = folder, epochs, factors, on_progress
        self._pictures = training_set.pictures
        self._rows, self._held_out = training_set.split.train_rows, training_set.split.validation_rows
        self._measures_alone = training_set.split.kind == "classes"
        self._labels = training_set.pictures.labels
        self._train_labels = torch.from_numpy(self._labels[self._rows])
        self._precision = choose_precision(config)
        self._plateau = Plateau(config.patience, _PLATEAU_CUT)
        self._is_softened = False
        self.network = open_network(config)
        preprocessing = self.network.config.preprocessing
        self.loader = BatchLoader(
            training_set.pictures.records,
            preprocessing,
            config.augmentation,
            config.train_px or preprocessing.input_px,
            config.limits,
            thread_budget(config.threads).decoding,
        )
        self._prepare()

    def run(self) -> TwinEncoder:
        """Train to the end, to a plateau, or until it stops helping; from the last checkpoint where there is one.

        Returns:
            The averaged network of the best epoch where something is held out, else of the last.

        Raises:
            TrainingDiverged, TrainingCollapsed: with the cause and the remedy; checkpoints stay as they were.
            TrainingError: a checkpoint cannot be written or read, or a picture cannot be read any more.
        """
        while len(self.history) < self._epochs and not self._has_stalled():
            started_s = time.perf_counter()
            self._mine()
            tally = _Tally()
            self._set_training_mode()
            batches = self._batches()
            for number, (rows, pixels) in enumerate(zip(batches, self._pixels(batches), strict=True)):
                set_factor(self._optimiser, self._factor(number / len(batches)))
                with self._precision.autocast():
                    embeddings = self.network(self._precision.pixels(pixels))
                embeddings = torch.nn.functional.normalize(embeddings.float(), dim=1)
                rows_here = torch.from_numpy(rows).to(embeddings.device)
                labels = self._train_labels[rows_here]
                cost = self._objective(embeddings, labels, rows_here, self._catalogue)
                self._check_number(cost, number)
                self._optimiser.zero_grad(set_to_none=True)
                cost.loss.backward()
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
                self._optimiser.step()
                self._average.update(self.network)
                self._recent[rows_here] = embeddings.detach()
                tally.add(cost, len(rows))
                self._tell(tally, sum(map(len, batches)))
            self._finish_epoch(tally, started_s)
        return self.best_network()

    def embed_held_out(self, twin: TwinEncoder) -> NDArray[np.float32]:
        """(V, D) unit embeddings of the held-out pictures."""
        return embed_rows(twin.to(self._precision.device), self.loader, self._held_out, self._precision)

    def measure(self, twin: TwinEncoder) -> Measures | None:
        """How well a network tells the held-out pictures apart; None where there are none."""
        if not len(self._held_out):
            return None
        queries = embed_rows(twin, self.loader, self._held_out, self._precision)
        labels = self._labels[self._held_out]
        if self._measures_alone:
            scores = score_ranking(queries, labels, queries, labels, own_rows=np.arange(len(queries)))
        else:
            gallery = embed_rows(twin, self.loader, self._rows, self._precision)
            scores = score_ranking(queries, labels, gallery, self._labels[self._rows])
        return Measures(scores.recall_at(1), scores.map_at_r)

    # What surrounds a step.

    def _prepare(self) -> None:
        """The network on its device, its helpers, and everything as the last checkpoint left it."""
        torch.manual_seed(self.config.seed)
        if needs_projection(self.network, self.config) and self.network.config.projection_dim is not None:
            random = np.random.default_rng(self.config.seed)
            some = np.sort(random.permutation(self._rows)[:_PICTURES_FOR_PROJECTION])
            self.network.to(self._precision.device)
            start_projection(self.network, features_of_rows(self.network, self.loader, some, self._precision))
        self.network.to(self._precision.device).to(memory_format=torch.channels_last)
        if self._precision.device.type == "cpu" and self._precision.is_bf16:
            speed_up_depthwise(self.network)
        dim = self.network.config.dim
        self._objective = open_objective(self.config, len(self._pictures.names), dim)
        self._optimiser = make_optimiser(self.network, self._objective.parameters(), self.config)
        self._average = WeightAverage(self.network, self.config.average)
        self._train_labels = self._train_labels.to(self._precision.device)
        self._recent = torch.zeros(len(self._rows), dim, device=self._precision.device)
        self._negatives: torch.Tensor | None = None
        saved = load_state(self._folder)
        if saved is not None:
            self._restore(saved)
        elif self.phase == "validation":
            self.start = self.measure(self.network)

    @property
    def _catalogue(self) -> Catalogue | None:
        return None if self._negatives is None else Catalogue(self._recent, self._negatives)

    def _mine(self) -> None:
        """Embed and index the whole training set and find everybody's hard negatives, every few epochs."""
        epoch, miner = len(self.history), self.config.miner
        is_on = miner in _LOADED_EARLY and self.config.loss in ("triplet", "soft_triplet") and not self._is_softened
        begins = _LOADED_EARLY.get(miner, 0)
        if not is_on or epoch < begins:
            self._negatives = None
            return
        if self._negatives is not None and (epoch - begins) % self.config.mine_every:
            return
        embeddings = embed_rows(self._average.network, self.loader, self._rows, self._precision)
        mined = self._negatives_of(embeddings)
        self.suspects = mined.suspects
        self._recent = torch.from_numpy(embeddings).to(self._precision.device)
        self._negatives = torch.from_numpy(mined.rows).to(self._precision.device)

    def _negatives_of(self, embeddings: NDArray[np.float32]) -> MinedNegatives:
        labels = self._labels[self._rows]
        return mine_from_index(
            embeddings, labels, window=self.config.window, duplicate_share=self.config.duplicate_share
        )

    def _batches(self) -> list[Rows]:
        """Rows into the training side, P classes of K pictures each."""
        labels = self._labels[self._rows]
        random = np.random.default_rng([self.config.seed, len(self.history)])
        groups = groups_of_classes(labels, self.config.pictures_per_class, random)
        return batches_of_groups(groups, labels, self.config.classes_per_batch)

    def _pixels(self, batches: Sequence[Rows]) -> Any:
        seed = [self.config.seed, len(self.history)]
        return self.loader.training_batches([self._rows[batch] for batch in batches], seed)

    def _set_training_mode(self) -> None:
        torch.manual_seed(self.config.seed + len(self.history))  # dropout, in backbones that have it
        self.network.train()
        if self.config.freeze_batch_norm:
            for module in self.network.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _factor(self, share_of_epoch: float) -> float:
        epoch = len(self.history)
        if self.config.schedule == "cosine":
            total = self.config.epochs
            return cosine_factor((epoch + share_of_epoch) / total, min(0.5, self.config.warm_up / total))
        return self._rate() * warm_up_factor(epoch + share_of_epoch, self.config.warm_up)

    def _rate(self) -> float:
        """Of this epoch, by validation: now, or as it was in the run that is repeated."""
        return self._plateau.factor if self._factors is None else self._factors[len(self.history)]

    def _check_number(self, cost: Cost, number: int) -> None:
        if not math.isfinite(float(cost.loss.detach())):
            raise TrainingDiverged(
                f"the loss is {float(cost.loss.detach())} in epoch {len(self.history) + 1}, batch {number + 1}; lower "
                f"the rates (--rates, now {self.config.backbone_rate:g} {self.config.head_rate:g}) or --clip; what was "
                "saved before is untouched"
            )

    def _finish_epoch(self, tally: "_Tally", started_s: float) -> None:
        """Measure, watch for collapse, note it all down, keep the best, save the state."""
        measures = self.measure(self._average.network)
        spread = measure_spread(self._recent[self._recent.any(dim=1)].cpu().numpy(), self._seen_labels())
        notes = self._watch(spread)
        best = best_epoch(self.history)
        is_best = measures is not None and (
            best is None or best.measures is None or measures.score > best.measures.score
        )
        factor = self._factor(1.0) if self.config.schedule == "cosine" else self._rate()
        self.history.append(
            Epoch(
                self.phase,
                len(self.history) + 1,
                tally.loss,
                None if math.isnan(tally.active) else tally.active,
                tally.speed,
                factor,
                None if measures is None else measures.recall_at_1,
                None if measures is None else measures.map_at_r,
                spread.variance,
                spread.random_distance,
                is_best,
                time.perf_counter() - started_s,
                notes,
            )
        )
        if measures is not None:
            self._plateau.observe(measures.score)
        if is_best:
            self._average.network.save(self._folder / BEST_FOLDER)
        self._save()

    def _watch(self, spread: Spread) -> list[str]:
        """Go on with softer mining, once, or stop, if the embeddings have collapsed."""
        if not spread.is_collapsed:
            return []
        apart = f"variance {spread.variance:.3f}, random pairs {spread.random_distance:.3f} apart"
        found = f"the embeddings collapsed ({apart})"
        can_soften = self.config.miner == "curriculum" and not self._is_softened
        if not can_soften:
            raise TrainingCollapsed(
                f"{found} in epoch {len(self.history) + 1} with miner {self.config.miner}; use --miner semi_hard or "
                "all, a smaller margin, or lower --rates; what was saved before is untouched"
            )
        self._is_softened = True
        return [f"{found}; going on without mined negatives"]

    def _has_stalled(self) -> bool:
        best = best_epoch(self.history)
        if best is None or self.config.schedule == "cosine":
            return False
        return len(self.history) - best.epoch >= _PATIENCES_TO_STOP * max(1, self.config.patience)

    def best_network(self) -> TwinEncoder:
        """The averaged network of the best epoch so far; of the last one where nothing is measured."""
        folder = self._folder / BEST_FOLDER
        return self._average.network if best_epoch(self.history) is None else load_twin(str(folder))

    def _seen_labels(self) -> Rows:
        seen: Rows = self._labels[self._rows][self._recent.any(dim=1).cpu().numpy()]
        return seen

    def _tell(self, tally: "_Tally", total: int) -> None:
        if self._on_progress is None:
            return
        speed = tally.speed
        left = (total - tally.pictures) + total * (self._epochs - len(self.history) - 1)
        last = next((epoch.recall_at_1 for epoch in reversed(self.history) if epoch.recall_at_1 is not None), None)
        self._on_progress(
            TrainProgress(
                self.phase,
                len(self.history) + 1,
                self._epochs,
                tally.pictures,
                total,
                tally.loss,
                tally.active,
                speed,
                last,
                left / speed if speed else 0.0,
            )
        )

    # The state on disk.

    def _save(self) -> None:
        parts = {
            "network": self.network.state_dict(),
            "average": self._average.network.state_dict(),
            "optimiser": optimiser_tensors(self._optimiser),
            "recent": {"embeddings": self._recent},
        }
        if isinstance(self._objective, torch.nn.Module):
            parts["objective"] = self._objective.state_dict()
        if self._negatives is not None:
            parts["mined"] = {"negatives": self._negatives}
        tensors = {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        values = {
            "architecture": self.network.config.to_dict(),
            "history": [epoch.to_dict() for epoch in self.history],
            "start": None if self.start is None else [self.start.recall_at_1, self.start.map_at_r],
            "plateau": [self._plateau.factor, self._plateau.best, self._plateau.waited],
            "average_steps": self._average.steps,
            "is_softened": self._is_softened,
            "suspects": [[one.row, one.other, one.score] for one in self.suspects],
        }
        save_state(self._folder, SavedState(tensors, values))

    def _restore(self, saved: SavedState) -> None:
        values = saved.values
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in saved.tensors.items():
            part, _, bare = name.partition(".")
            parts.setdefault(part, {})[bare] = tensor
        if values["architecture"] != self.network.config.to_dict():
            former, now = values["architecture"], self.network.config
            raise TrainingError(
                f"checkpoint {self._folder} is of {former['architecture']} with {former['projection_dim']} values, "
                f"this run trains {now.architecture} with {now.projection_dim}; use the former settings, or delete "
                f"{self._folder.parent}"
            )
        self.network.load_state_dict(parts["network"])
        self._average.network.load_state_dict(parts["average"])
        self._average.steps = values["average_steps"]
        restore_optimiser(self._optimiser, parts.get("optimiser", {}))
        if isinstance(self._objective, torch.nn.Module):
            self._objective.load_state_dict(parts.get("objective", {}))
        self._recent = parts["recent"]["embeddings"].to(self._precision.device)
        self._negatives = parts["mined"]["negatives"].to(self._precision.device) if "mined" in parts else None
        self.history = [Epoch.from_dict(one) for one in values["history"]]
        self.start = None if values["start"] is None else Measures(*values["start"])
        self._plateau.factor, self._plateau.best, self._plateau.waited = values["plateau"]
        self._is_softened = values["is_softened"]
        self.suspects = [Suspect(*one) for one in values["suspects"]]

    start: Measures | None = None


class _Tally:
    """Means over an epoch so far."""

    def __init__(self) -> None:
        self.pictures = 0
        self._losses: list[float] = []
        self._active: list[float] = []
        self._started_s = time.perf_counter()

    def add(self, cost: Cost, pictures: int) -> None:
        self.pictures += pictures
        self._losses.append(float(cost.loss.detach()))
        self._active.append(cost.active)

    @property
    def loss(self) -> float:
        return float(np.mean(self._losses)) if self._losses else 0.0

    @property
    def active(self) -> float:
        return float(np.mean(self._active)) if self._active else 0.0

    @property
    def speed(self) -> float:
        seconds = time.perf_counter() - self._started_s
        return self.pictures / seconds if seconds else 0.0
