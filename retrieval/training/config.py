"""Everything that a training is told; with the same pictures and the same machine it gives the same model."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from retrieval.encoder.backbones import DEFAULT_MODEL
from retrieval.encoder.compiled import Precision
from retrieval.images import DecodeLimits
from retrieval.training.augment import Augmentation
from retrieval.training.distances import Distance

MINED_LOSSES = ("proxy", "tuplet", "triplet", "soft_triplet")  # those that mined negatives are for
PAIR_LOSSES = ("contrastive", "pair")
# Where none is given. A learned place for each class needs none to set classes apart: all others repel at any distance.
MARGINS = {"proxy": 0.0, "tuplet": 0.0, "soft_triplet": 0.0, "triplet": 0.2, "contrastive": 1.0}
DEFAULT_DIM = 256
Miner = Literal["curriculum", "index", "all", "semi_hard", "hard", "distance_weighted"]
Validation = Literal["classes", "pictures", "none"]
Schedule = Literal["plateau", "cosine"]
Positives = Literal["nearest", "each"]

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "miner": get_args(Miner),
    "schedule": get_args(Schedule),
    "distance": get_args(Distance),
    "positives": get_args(Positives),
    "precision": get_args(Precision),
    "pooling": (None, "average", "gem"),
}


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training.

    Attributes:
        source: a folder of class folders, a manifest, a pairs manifest or the folder of a published data set.
        out: the model directory to make.
        from_model: what to start from: a name, a model directory, or "tiny_cnn" to train that from scratch.
        pooling: of the backbone's map; None keeps the model's own.
        dim: D, the length of an embedding; None keeps the model's own projection, and gives a model without one, whose
            features are longer, `DEFAULT_DIM`.
        loss: one of ours, or the name of one in pytorch-metric-learning.
        miner: which triplets of a batch are trained on; "index" adds negatives mined from an index of the whole
            training set, "curriculum" begins with all triplets of a batch and goes on to those.
        distance: that the loss is computed on.
        positives: of the tuplet loss: "nearest" asks that any picture of the product be near, "each" that all be.
        margin: of the loss, in units of the distance; None takes that of `MARGINS`.
        temperature: of the soft margins, in units of the distance; small ones look at the hardest negative alone.
        epochs: at most.
        classes_per_batch, pictures_per_class: P and K of a batch.
        validation: what is held out, a manifest or folder to measure on, or "none".
        refit: train afresh on everything for as many epochs as were best.
        backbone_rate, head_rate, loss_rate: full learning rates of AdamW; the last is of the loss's own parameters.
        weight_decay: L2 on matrices, decoupled.
        schedule: "plateau" cuts the rates when validation stalls, "cosine" lets them fall to the end.
        warm_up: epochs over which the rates rise.
        patience: epochs without a better validation before the rates are cut; after twice as many more, training stops.
        clip: the largest norm of the gradient.
        average: decay of the running average of the weights, which is what is kept; 0 keeps the last weights.
        start_share: of the weights that training started from in those that are kept, in [0, 1).
        precision: of the forward pass; "auto" is bfloat16 on CPUs that have it and on GPUs.
        freeze_batch_norm: keep the statistics that the backbone came with. Those of a batch of a few classes are not
            those of the catalogue (decision 24).
        freeze_backbone: train pooling and projection alone, three times as fast.
        embed_px: P of the pictures that the trained model embeds; None keeps the model's own. Larger sees finer print
            and costs time with every picture, when indexing too.
        train_px: P of training pictures, None for that of embedding. Smaller is faster; a network tested on larger
            pictures than it was trained on sees objects at the size that random crops have shown it.
        augmentation: how pictures are changed.
        mine_every: epochs between two embeddings of the whole training set for mining.
        window: ranks (from 0, first included, last not) among the nearest of other labels from which negatives come.
        relative_margin: how much closer than its positive a mined negative may be, as a share of the positive's
            distance; closer ones are taken for mislabelled pictures and left out.
        duplicate_share: two pictures of different labels are reported as a probable label error, and not used as
            negatives, where their squared distance is at most this share of that of two random pictures.
        rejections: a file of pictures that were taken for training pictures and are not the same; see
            `read_rejections`. They are negatives wherever mined ones are, however near they come.
        drop_conflicts: leave out pictures whose bytes stand under two labels, instead of refusing.
        allow_unlabelled: leave out pictures without a label, instead of refusing.
        device: "auto", "cpu", "cuda" or "cuda:1".
        threads: cores to use, None for all.
        limits: which pictures are too large.
        seed: of everything that is drawn.
    """

    source: str
    out: str
    from_model: str = DEFAULT_MODEL
    pooling: Literal["average", "gem"] | None = None
    dim: int | None = None
    loss: str = "proxy"
    miner: Miner = "curriculum"
    distance: Distance = "squared_euclidean"
    positives: Positives = "nearest"
    margin: float | None = None
    temperature: float = 0.2
    epochs: int = 12
    classes_per_batch: int = 16
    pictures_per_class: int = 4
    validation: str = "classes"
    refit: bool = True
    backbone_rate: float = 4e-4
    head_rate: float = 2e-3
    loss_rate: float = 1e-2
    weight_decay: float = 1e-2
    schedule: Schedule = "plateau"
    warm_up: float = 1.0
    patience: int = 3
    clip: float = 10.0
    average: float = 0.99
    start_share: float = 0.0
    precision: Precision = "auto"
    freeze_batch_norm: bool = True
    freeze_backbone: bool = False
    embed_px: int | None = None
    train_px: int | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    mine_every: int = 1
    window: tuple[int, int] = (0, 64)
    relative_margin: float = 0.5
    duplicate_share: float = 0.02
    rejections: str | None = None
    drop_conflicts: bool = False
    allow_unlabelled: bool = False
    device: str = "auto"
    threads: int | None = None
    limits: DecodeLimits = DecodeLimits()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (
            ("dim", 2), ("epochs", 1), ("classes_per_batch", 2), ("pictures_per_class", 2), ("mine_every", 1),
            ("embed_px", 16), ("train_px", 16), ("patience", 0), ("threads", 1), ("seed", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name} is {value}; it must be at least {low}")
        for name in ("backbone_rate", "head_rate", "loss_rate", "temperature", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("average", "start_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        if not 0 <= self.window[0] < self.window[1]:
            raise ValueError(f"window is {self.window}; it must be two ranks, the first below the last")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f'{name} is "{getattr(self, name)}"; it must be one of {", ".join(map(str, known))}')
        for name in ("loss_margin", "weight_decay", "warm_up", "relative_margin", "duplicate_share"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be below 0")
        chooses = self.miner in ("semi_hard", "hard", "distance_weighted")
        if (chooses and self.loss not in ("triplet", "soft_triplet")) or (
            self.miner == "index" and self.loss not in MINED_LOSSES
        ):
            raise ValueError(f"miner {self.miner} chooses triplets, which the loss {self.loss} does not take; use all")

    @property
    def loss_margin(self) -> float:
        """The margin, where none is given that of the loss."""
        return MARGINS.get(self.loss, 0.0) if self.margin is None else self.margin

    @property
    def run_dir(self) -> Path:
        """Where an unfinished run keeps its checkpoints, beside the model directory that it will become."""
        out = Path(self.out)
        return out.with_name(f"{out.name}.run")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"window": list(self.window), "margin": self.loss_margin}
