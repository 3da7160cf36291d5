"""A labelled catalogue -> an encoder that knows what "the same product" means there.

The names below are loaded when they are first used (PEP 562), so that losses and miners can be imported without the
networks of timm and torchvision.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.training.augment import NO_AUGMENTATION, Augmentation
    from retrieval.training.config import TrainConfig
    from retrieval.training.progress import TrainProgress
    from retrieval.training.run import train

_HOMES = {
    "NO_AUGMENTATION": "augment",
    "Augmentation": "augment",
    "TrainConfig": "config",
    "TrainProgress": "progress",
    "train": "run",
}

__all__ = ["NO_AUGMENTATION", "Augmentation", "TrainConfig", "TrainProgress", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
