"""How fast is each weight changed, and when? Parameter groups and schedules of the learning rate."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from retrieval.encoder import tiny_cnn
from retrieval.encoder.twin import TwinEncoder
from retrieval.training.config import TrainConfig

LEAST_FACTOR = 0.01  # of the full rate, at the end of the cosine


def make_optimiser(twin: TwinEncoder, others: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over backbone and head at their own rates; weight decay on matrices alone, not on norms and offsets.

    Args:
        twin: its pooling and projection are the head; a network that is trained from scratch is all head.
        others: parameters of the loss, trained at a rate of their own without decay.
        config: the rates and the decay.

    Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".
    """
    is_from_scratch = twin.config.architecture == tiny_cnn.CONFIG.architecture
    parts: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in twin.named_parameters():
        is_head = is_from_scratch or not name.startswith("backbone.")
        parts.setdefault((is_head, parameter.ndim > 1), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": config.head_rate if is_head else config.backbone_rate,
            "weight_decay": config.weight_decay if is_matrix else 0.0,
        }
        for (is_head, is_matrix), parameters in parts.items()
    ]
    groups.append({"params": list(others), "lr": config.loss_rate, "weight_decay": 0.0})
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]])
    for group in optimiser.param_groups:
        group["full_rate"] = group["lr"]
    return optimiser


def set_factor(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to `factor` of its full one."""
    for group in optimiser.param_groups:
        group["lr"] = factor * group["full_rate"]


def warm_up_factor(progress: float, warm_up: float) -> float:
    """Rise from nearly 0 to 1 over the first `warm_up` of a run; both are epochs or both are shares."""
    return 1.0 if progress >= warm_up else max(LEAST_FACTOR, progress / warm_up)


def cosine_factor(progress: float, warm_up: float) -> float:
    """A share of the full rate: a straight rise, then half a cosine down to `LEAST_FACTOR`.

    Args:
        progress: of the run, 0 to 1.
        warm_up: the share of the run that rises.

    Source: Loshchilov and Hutter 2017, "SGDR"; warm-up as in Goyal et al. 2017.
    """
    if progress < warm_up or warm_up >= 1.0:  # it may never fall
        return warm_up_factor(progress, warm_up)
    fall = (1.0 + math.cos(math.pi * (progress - warm_up) / (1.0 - warm_up))) / 2
    return LEAST_FACTOR + (1.0 - LEAST_FACTOR) * fall


class Plateau:
    """The rate is cut when the validation metric has not improved for some epochs.

    Args:
        patience: epochs without improvement that are let pass.
        factor: what the rate is then multiplied by.

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau; its state follows from the metrics so far, so a resumed run
    observes those again.
    """

    def __init__(self, patience: int, factor: float) -> None:
        self._patience = patience
        self._cut = factor
        self.factor = 1.0
        self.best = -math.inf
        self.waited = 0

    def observe(self, metric: float) -> None:
        """Take note of an epoch's metric; higher is better."""
        if metric > self.best:
            self.best, self.waited = metric, 0
            return
        self.waited += 1
        if self.waited > self._patience:
            self.factor, self.waited = self.factor * self._cut, 0
