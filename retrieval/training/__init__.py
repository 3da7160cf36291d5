"""A labelled catalogue -> an encoder that knows what "the same product" means there; imports torch."""

from retrieval.training.augment import NO_AUGMENTATION, Augmentation
from retrieval.training.config import TrainConfig
from retrieval.training.progress import TrainProgress
from retrieval.training.run import train

__all__ = ["NO_AUGMENTATION", "Augmentation", "TrainConfig", "TrainProgress", "train"]
