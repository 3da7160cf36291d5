"""What does training start from? A model by name or directory, with a head that already knows the catalogue."""

import dataclasses

import torch
from torch import Tensor, nn

from retrieval.encoder import tiny_cnn
from retrieval.encoder.backbones import resolve_model
from retrieval.encoder.checkpoint import ModelConfig, read_config
from retrieval.encoder.twin import TwinEncoder
from retrieval.encoder.weights import build_backbone, load_twin
from retrieval.errors import TrainingError
from retrieval.files import one_line
from retrieval.training.config import DEFAULT_DIM, TrainConfig

_WHITENING = -0.25  # power of the eigenvalues: between leaving them (0) and making them equal (-0.5)


def open_network(config: TrainConfig) -> TwinEncoder:
    """Build the network that is trained, with the weights that it starts from.

    A model that ends in a projection of the length asked for keeps it. Any other gets a new one, whose values are
    random until `start_projection`. `tiny_cnn` starts from random weights. A backbone that is trained sees all of a
    picture's centre square from now on, where its first training may have cut off a border (decision 22).

    Raises:
        UnknownModel, WeightsUnavailable, ModelDamaged, ModelError: as `load_twin` says.
        TrainingError: this model cannot be pooled or projected so, or take pictures of that side.
    """
    torch.manual_seed(config.seed)
    name = resolve_model(config.from_model).name
    if config.from_model == tiny_cnn.NAME:
        tiny = tiny_cnn.build()
        _check_side(tiny, tiny_cnn.CONFIG, config.embed_px)
        return TwinEncoder(tiny_cnn.CONFIG, tiny)
    twin = load_twin(config.from_model)
    wanted = _wanted(twin.config, config)
    if wanted == twin.config:
        return twin.requires_grad_(True)
    backbone = twin.backbone
    _check_side(backbone, twin.config, config.embed_px)
    if (wanted.pooling == "native") != (twin.config.pooling == "native"):
        backbone = build_backbone(wanted.architecture, wanted.pooling)
        backbone.load_state_dict(twin.backbone.state_dict())
        _check_map(backbone, wanted)
    fresh = TwinEncoder(dataclasses.replace(wanted, name=name), backbone)
    if wanted.pooling == twin.config.pooling:
        fresh.pooling.load_state_dict(twin.pooling.state_dict())  # its learned exponent
    if wanted.projection_dim == twin.config.projection_dim:
        fresh.projection.load_state_dict(twin.projection.state_dict())
    return fresh.requires_grad_(True)


def needs_projection(twin: TwinEncoder, config: TrainConfig) -> bool:
    """Whether the head is new, so that its values mean nothing yet."""
    return twin.config.projection_dim is not None and _projection_of_start(config) != twin.config.projection_dim


@torch.no_grad()
def start_projection(twin: TwinEncoder, features: Tensor) -> None:
    """Let the new head begin as the principal directions of what the backbone says of the training pictures.

    The first embeddings are then as good as the backbone's own, and no epoch is spent on unlearning a random head.

    Args:
        twin: its projection is replaced in place; D at most F.
        features: (N, F) pooled backbone features of some training pictures. Where N - 1 or the spread is less than D,
            the remaining directions stay random and small.

    Source: Jegou and Chum 2012, "Negative evidences and co-occurences in image retrieval: the benefit of PCA and
    whitening"; eigenvalues to the power -0.25.
    """
    projection = twin.projection
    assert isinstance(projection, nn.Linear)
    length = features.norm(dim=1).mean()
    unit = nn.functional.normalize(features.float(), dim=1)
    mean = unit.mean(dim=0)
    _, spread, directions = torch.linalg.svd(unit - mean, full_matrices=False)
    usable = int((spread > 1e-4 * spread[0]).sum())
    count = min(usable, projection.out_features)
    weight = projection.weight.data.cpu() * 0.01
    weight[:count] = directions[:count] * (spread[:count, None] / spread[0]) ** (2 * _WHITENING)
    weight /= ((unit - mean) @ weight.T).norm(dim=1).mean().clamp(min=1e-6)  # outputs of about length 1
    projection.weight.copy_(weight / length)  # the network's features are not of unit length
    projection.bias.copy_(-(weight @ mean))


def _wanted(start: ModelConfig, config: TrainConfig) -> ModelConfig:
    pooling = config.pooling or start.pooling
    if pooling != start.pooling and "native" in (pooling, start.pooling) and not start.architecture.startswith("timm/"):
        raise TrainingError(f"{start.name} pools by itself; --pooling {pooling} needs one of timm's models")
    dim = config.dim or start.projection_dim or (DEFAULT_DIM if start.feature_dim > DEFAULT_DIM else None)
    if dim is not None and dim > start.feature_dim:
        raise TrainingError(f"{start.name} yields {start.feature_dim} values; --dim {dim} must not be more")
    preprocessing = start.preprocessing
    if not config.freeze_backbone or config.embed_px is not None:
        side = config.embed_px or preprocessing.input_px
        preprocessing = dataclasses.replace(preprocessing, input_px=side, resize_px=side)
    return dataclasses.replace(start, pooling=pooling, projection_dim=dim, preprocessing=preprocessing)


def _check_side(backbone: nn.Module, config: ModelConfig, side: int | None) -> None:
    """Refuse another side where the network cannot take it: some are built for one alone."""
    if side in (None, config.preprocessing.input_px):
        return
    try:
        _tried(backbone, side)
    except (AssertionError, RuntimeError, ValueError) as error:  # as its author saw fit
        raise TrainingError(
            f"{config.architecture} cannot take pictures of {side} px ({one_line(error)}); leave out --embed-px"
        ) from error


def _check_map(backbone: nn.Module, config: ModelConfig) -> None:
    """Refuse to pool what is no map: transformers yield a sequence."""
    if _tried(backbone, config.preprocessing.input_px).ndim != 4:
        raise TrainingError(f"{config.architecture} yields no map of features to pool; leave out --pooling")


@torch.inference_mode()
def _tried(backbone: nn.Module, side: int) -> Tensor:
    """What a backbone says of a black picture."""
    found: Tensor = backbone.eval()(torch.zeros(1, 3, side, side))
    return found


def _projection_of_start(config: TrainConfig) -> int | None:
    folder = resolve_model(config.from_model).folder
    return None if folder is None else read_config(folder)[0].projection_dim
