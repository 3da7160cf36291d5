"""The training loop: batches, losses, steps, validation, checkpoints; `Trainer.run` reads from top to bottom."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrieval.encoder.twin import TwinEncoder
from retrieval.encoder.weights import load_twin
from retrieval.errors import TrainingCollapsed, TrainingDiverged, TrainingError
from retrieval.threads import thread_budget
from retrieval.training.average import WeightAverage
from retrieval.training.batch_norm import freeze_batch_norm
from retrieval.training.catalogue import Catalogue
from retrieval.training.collapse import Spread, measure_spread
from retrieval.training.config import TrainConfig
from retrieval.training.dataset import TrainingSet
from retrieval.training.depthwise import speed_up_depthwise
from retrieval.training.embedding import embed_rows, features_of_rows
from retrieval.training.hard_negatives import Suspect
from retrieval.training.history import HISTORY_FILE, Epoch, Measures, Phase, best_epoch, write_history
from retrieval.training.loader import BatchLoader
from retrieval.training.network import needs_projection, open_network, start_projection
from retrieval.training.objective import ProxyObjective, open_objective
from retrieval.training.precision import choose_precision
from retrieval.training.progress import OnProgress, Tally, TrainProgress
from retrieval.training.rates import Plateau, cosine_factor, make_optimiser, set_factor, warm_up_factor
from retrieval.training.samplers import Batch, Rows, batches_of_groups, groups_of_classes
from retrieval.training.state import (
    SavedState,
    load_state,
    optimiser_tensors,
    restore_optimiser,
    save_state,
    unwritable_checkpoint,
)
from retrieval.training.validation import HeldOut

BEST_FOLDER = "best"
_PLATEAU_CUT = 0.3  # of the rates, where validation stalls
_PATIENCES_TO_STOP = 3  # without a better epoch: two cuts of the rates have not helped
_PICTURES_FOR_PROJECTION = 2048


class Trainer:
    """One phase of a training: pictures to train on, perhaps some to measure on, a number of epochs.

    Args:
        config: the settings.
        training_set: pictures and split.
        folder: where checkpoints go; a state in it is taken up.
        phase: "validation" or "refit".
        epochs: at most.
        factors: of the learning rates by epoch, to be repeated; None lets the schedule decide.
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
        self.history: list[Epoch] = []
        self.start: Measures | None = None
        self._notes: list[str] = []  # for the epoch that is at work
        self._config, self._folder, self._phase, self._epochs = config, folder, phase, epochs
        self._factors, self._on_progress = factors, on_progress
        self._precision = choose_precision(config)
        self._network = open_network(config)
        preprocessing = self._network.config.preprocessing
        self._rows = training_set.split.train_rows
        self._labels: Rows = training_set.pictures.labels[self._rows]
        rejections = training_set.rejections.within(self._rows)
        self.loader = BatchLoader(
            [*training_set.pictures.records, *rejections.records],
            preprocessing,
            config.augmentation,
            config.train_px or preprocessing.input_px,
            config.limits,
            thread_budget(config.threads).decoding,
        )
        self.held_out = HeldOut(training_set, self.loader, self._precision)
        self._rejected_rows = len(training_set.pictures) + np.arange(len(rejections.records))
        self._pairs = None if training_set.pairs is None else training_set.pairs.within(self._rows)
        self._prepare_network()
        dim, device = self._network.config.dim, self._precision.device
        self._objective = open_objective(
            config, len(training_set.pictures.names), dim, lists_pairs=self._pairs is not None
        )
        self._objective.to(device)
        self._optimiser = make_optimiser(self._network, self._objective.parameters(), config)
        self._average = WeightAverage(self._network, config.average, config.start_share)
        self._plateau = Plateau(config.patience, _PLATEAU_CUT)
        self._catalogue = Catalogue(config, self._labels, rejections.table(len(self._rows)), dim, device)
        if (saved := load_state(folder)) is not None:
            self._restore(saved)
            return
        if isinstance(self._objective, ProxyObjective):
            known = torch.from_numpy(self._embed_training_side()).to(device)
            self._objective.start(known, torch.from_numpy(self._labels).to(device))
        if phase == "validation":
            self.start = self.held_out.measure(self._network)

    @property
    def suspects(self) -> list[Suspect]:
        """Probable label errors, as rows of the training side, found when negatives were last mined."""
        return self._catalogue.suspects

    def run(self) -> TwinEncoder:
        """Train to the end, or until it stops helping; from the last checkpoint where there is one.

        Returns:
            `best_network`.

        Raises:
            TrainingDiverged, TrainingCollapsed: with the cause and the remedy; checkpoints stay as they were.
            TrainingError: a checkpoint cannot be written, or a picture cannot be read any more.
        """
        while len(self.history) < self._epochs and not self._has_stalled():
            started_s = time.perf_counter()
            self._catalogue.mine_if_due(len(self.history), self._embed_for_mining)
            batches = self._deal_batches()
            tally = Tally(sum(len(batch.rows) for batch in batches))
            self._set_training_mode()
            for number, (rows, labels, pixels) in enumerate(self._load(batches)):
                set_factor(self._optimiser, self._factor(number / len(batches)))
                with self._precision.autocast():
                    embeddings = self._network(pixels)
                embeddings = nn.functional.normalize(embeddings.float(), dim=1)
                cost = self._objective(embeddings, labels, rows, self._catalogue.mined)
                loss = self._finite(cost.loss, embeddings, number)
                self._optimiser.zero_grad(set_to_none=True)
                cost.loss.backward()
                nn.utils.clip_grad_norm_(self._network.parameters(), self._config.clip)
                self._optimiser.step()
                self._average.update(self._network)
                self._catalogue.remember(rows, embeddings)
                tally.add(loss, cost, len(rows))
                self._tell(tally)
            self._finish_epoch(tally, started_s)
        return self.best_network()

    def best_network(self) -> TwinEncoder:
        """The averaged network of the best epoch so far; of the last one where nothing is measured."""
        if best_epoch(self.history) is None:
            return self._average.network
        return load_twin(str(self._folder / BEST_FOLDER))

    # Before the first step.

    def _prepare_network(self) -> None:
        """Put the network where it computes, with a head that knows something."""
        network, config = self._network, self._config
        network.to(self._precision.device).to(memory_format=torch.channels_last)
        if network.config.projection_dim is not None and needs_projection(network, config):
            random = np.random.default_rng(config.seed)
            some = np.sort(random.permutation(self._rows)[:_PICTURES_FOR_PROJECTION])
            start_projection(network, features_of_rows(network, self.loader, some, self._precision))
        if config.freeze_backbone:
            network.backbone.requires_grad_(False)
            if not any(parameter.requires_grad for parameter in network.parameters()):
                raise TrainingError(
                    f"{network.config.name} has neither pooling nor projection to train; leave out --freeze-backbone, "
                    "or give it a head with --dim"
                )
        if self._precision.device.type == "cpu" and self._precision.is_bf16:
            speed_up_depthwise(network)

    # In an epoch.

    def _deal_batches(self) -> list[Batch]:
        """Rows of the training side: P classes of K pictures each, or as many pictures in listed pairs."""
        random = np.random.default_rng([self._config.seed, len(self.history)])
        classes, each = self._config.classes_per_batch, self._config.pictures_per_class
        if self._pairs is not None:
            return self._pairs.batches(classes * each, random)
        groups = groups_of_classes(self._labels, each, random)
        return [Batch(rows, self._labels[rows]) for rows in batches_of_groups(groups, self._labels, classes)]

    def _load(self, batches: Sequence[Batch]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows, labels and augmented pixels of each batch, on the network's device."""
        device, seed = self._precision.device, [self._config.seed, len(self.history)]
        pictures = self.loader.training_batches([self._rows[batch.rows] for batch in batches], seed)
        for batch, pixels in zip(batches, pictures, strict=True):
            rows, labels = (torch.from_numpy(numbers).to(device) for numbers in batch)
            yield rows, labels, self._precision.pixels(pixels)

    def _set_training_mode(self) -> None:
        torch.manual_seed(self._config.seed + len(self.history))  # dropout, in backbones that have it
        self._network.train()
        if self._config.freeze_backbone:
            self._network.backbone.eval()
        if self._config.freeze_batch_norm:
            freeze_batch_norm(self._network)

    def _factor(self, share_of_epoch: float) -> float:
        """Of the full learning rates, at this point."""
        epoch, config = len(self.history), self._config
        if config.schedule == "cosine":
            return cosine_factor((epoch + share_of_epoch) / config.epochs, min(0.5, config.warm_up / config.epochs))
        return self._plateau_factor() * warm_up_factor(epoch + share_of_epoch, config.warm_up)

    def _plateau_factor(self) -> float:
        """Of this epoch: as validation has it, or as it was in the run that is repeated."""
        return self._plateau.factor if self._factors is None else self._factors[len(self.history)]

    def _finite(self, loss: Tensor, embeddings: Tensor, number: int) -> float:
        value = float(loss.detach())
        if not math.isfinite(value) or not bool(embeddings.isfinite().all()):
            rates = f"{self._config.backbone_rate:g} {self._config.head_rate:g}"
            raise TrainingDiverged(
                f"the loss is {value} in epoch {len(self.history) + 1}, batch {number + 1}; lower the rates (now "
                f"--rates {rates}) or --clip (now {self._config.clip:g}); what was saved before is untouched"
            )
        return value

    def _tell(self, tally: Tally) -> None:
        if self._on_progress is None:
            return
        speed = tally.images_per_second
        left = (tally.total - tally.pictures) + tally.total * (self._epochs - len(self.history) - 1)
        measured = [epoch.recall_at_1 for epoch in self.history if epoch.recall_at_1 is not None]
        self._on_progress(
            TrainProgress(
                phase=self._phase,
                epoch=len(self.history) + 1,
                epochs=self._epochs,
                done=tally.pictures,
                total=tally.total,
                loss=tally.loss,
                active=tally.active,
                images_per_second=speed,
                recall_at_1=measured[-1] if measured else None,
                seconds_left=left / speed if speed else 0.0,
            )
        )

    # Between epochs.

    def _embed_training_side(self) -> NDArray[np.float32]:
        return embed_rows(self._average.network, self.loader, self._rows, self._precision)

    def _embed_for_mining(self) -> NDArray[np.float32]:
        rows = np.concatenate([self._rows, self._rejected_rows])
        return embed_rows(self._average.network, self.loader, rows, self._precision)

    def _finish_epoch(self, tally: Tally, started_s: float) -> None:
        """Watch for collapse, measure, note it all down, keep the best, save the state."""
        spread = measure_spread(*self._catalogue.seen())
        if spread.is_collapsed:
            self._soften(spread)
            return
        measures = self.held_out.measure(self._average.network)
        best = best_epoch(self.history)
        former = None if best is None else best.measures
        is_best = measures is not None and (former is None or measures.score > former.score)
        epoch = Epoch(
            phase=self._phase,
            epoch=len(self.history) + 1,
            loss=tally.loss,
            active=None if math.isnan(tally.active) else tally.active,
            images_per_second=tally.images_per_second,
            rate_factor=self._factor(1.0) if self._config.schedule == "cosine" else self._plateau_factor(),
            recall_at_1=None if measures is None else measures.recall_at_1,
            map_at_r=None if measures is None else measures.map_at_r,
            variance=spread.variance,
            random_distance=spread.random_distance,
            is_best=is_best,
            seconds=time.perf_counter() - started_s,
            notes=self._notes,
        )
        if measures is not None:
            self._plateau.observe(measures.score)
        try:
            if is_best:
                self._average.network.save(self._folder / BEST_FOLDER)
        except OSError as error:
            raise unwritable_checkpoint(self._folder, error) from error
        self.history.append(epoch)
        self._notes = []
        self._save()

    def _soften(self, spread: Spread) -> None:
        """The embeddings have collapsed: go back an epoch and on without mined negatives, once, or stop."""
        apart = f"variance {spread.variance:.3f}, random pairs {spread.random_distance:.3f} apart"
        found = f"the embeddings collapsed in epoch {len(self.history) + 1} ({apart})"
        saved = load_state(self._folder)
        if self._config.miner != "curriculum" or self._catalogue.is_off or saved is None:
            raise TrainingCollapsed(
                f"{found} with miner {self._config.miner}; use --miner semi_hard or all, a smaller --margin, or lower "
                "--rates; what was saved before is untouched"
            )
        self._restore(saved)
        self._catalogue.is_off = True
        self._notes = [f"{found}; that epoch was done again without mined negatives"]

    def _has_stalled(self) -> bool:
        best = best_epoch(self.history)
        if best is None or self._config.schedule == "cosine":
            return False
        return len(self.history) - best.epoch >= _PATIENCES_TO_STOP * max(1, self._config.patience)

    # The state on disk.

    def _save(self) -> None:
        parts = {
            "network": self._network.state_dict(),
            "average": self._average.network.state_dict(),
            "optimiser": optimiser_tensors(self._optimiser),
            "objective": self._objective.state_dict(),
            "catalogue": self._catalogue.tensors(),
        }
        tensors = {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        values = {
            "architecture": self._network.config.to_dict(),
            "history": [epoch.to_dict() for epoch in self.history],
            "start": None if self.start is None else [self.start.recall_at_1, self.start.map_at_r],
            "average_steps": self._average.steps,
            "is_catalogue_off": self._catalogue.is_off,
            "suspects": [[one.row, one.other, one.score] for one in self.suspects],
        }
        save_state(self._folder, SavedState(tensors, values))
        with contextlib.suppress(OSError):  # for whoever follows the run; the state has it all
            write_history(self.history, self._folder / HISTORY_FILE)

    def _restore(self, saved: SavedState) -> None:
        values, now = saved.values, self._network.config
        former = values["architecture"]
        if former != now.to_dict():
            raise TrainingError(
                f"checkpoint {self._folder} is of {former['architecture']} with {former['projection_dim']} values, "
                f"this run trains {now.architecture} with {now.projection_dim}; delete {self._folder.parent}"
            )
        self._network.load_state_dict(saved.part("network"))
        self._average.network.load_state_dict(saved.part("average"))
        self._average.steps = values["average_steps"]
        restore_optimiser(self._optimiser, saved.part("optimiser"))
        self._objective.load_state_dict(saved.part("objective"))
        self._catalogue.restore(saved.part("catalogue"))
        self._catalogue.is_off = values["is_catalogue_off"]
        self._catalogue.suspects = [Suspect(*one) for one in values["suspects"]]
        self.history = [Epoch.from_dict(one) for one in values["history"]]
        self.start = None if values["start"] is None else Measures(*values["start"])
        self._plateau = Plateau(self._config.patience, _PLATEAU_CUT)
        for measures in filter(None, (epoch.measures for epoch in self.history)):
            self._plateau.observe(measures.score)
