"""How is a loss of pytorch-metric-learning used by its name? It comes with the extra `losses`; ours need none of it."""

import difflib
import inspect
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from retrieval.errors import TrainingError

# Its losses that cannot be computed from one labelled batch: parents of others, and two that refuse labels.
_NOT_FOR_LABELS = {"BaseMetricLossFunction", "GenericPairLoss", "ManifoldLoss", "VICRegLoss"}
_REQUIRED = inspect.Parameter.empty


class ForeignLoss(nn.Module):
    """A loss of pytorch-metric-learning behind one call: embeddings and labels -> scalar.

    Losses with proxies have parameters: `parameters()` belongs in the optimiser, `state_dict()` in the checkpoint.

    Args:
        name: what messages call it.
        loss: the loss itself.
    """

    def __init__(self, name: str, loss: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.loss = loss

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Measure a batch, in at least float32, whatever autocast says.

        Args:
            embeddings: (N, D) float.
            labels: (N,) int64; from 0 to classes - 1 for losses with proxies.

        Returns:
            Scalar; a zero through which backward still works if nothing in the batch can be compared.

        Raises:
            TrainingError: the loss does not take such a batch.
        """
        wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        try:
            with torch.autocast(embeddings.device.type, enabled=False):
                value: Tensor = self.loss(wide, labels)
        except (AssertionError, ValueError) as error:
            raise TrainingError(f"{self.name} refused a batch of {len(labels)}: {_first_line(error)}") from error
        return value


def open_foreign_loss(name: str, *, classes: int, dim: int, **options: Any) -> ForeignLoss:
    """Build a loss by its name in pytorch-metric-learning.

    Args:
        name: such as "MultiSimilarityLoss" or "ProxyAnchorLoss"; `foreign_loss_names` lists them.
        classes: labels are 0 to classes - 1; told to losses that have weights for each.
        dim: D of the embeddings, told likewise.
        options: of the loss, such as margin=0.1; the rest stays at the library's defaults.

    Returns:
        The loss, its own weights drawn from torch's global generator.

    Raises:
        TrainingError: the extra is not installed, the name is unknown (close ones are listed), or the options do not
            fit (those it takes are listed).
    """
    library = _open_library()
    known = _names(library)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known)}"
        raise TrainingError(f"no loss of pytorch-metric-learning is named {name!r}; {hint}")
    kind = getattr(library, name)
    arguments = _arguments(kind, library)
    # Losses with weights of their own require some of these.
    sizes = {"num_classes": classes, "embedding_size": dim, "descriptors_dim": dim}
    given = {each: sizes[each] for each in sizes.keys() & arguments.keys() if arguments[each].default is _REQUIRED}
    try:
        return ForeignLoss(name, kind(**{**given, **options}))
    except (AssertionError, TypeError, ValueError) as error:
        taken = ", ".join(str(argument) for each, argument in arguments.items() if each not in given)
        said = f"options of {name} are {options}, it takes {taken or 'none'}"
        raise TrainingError(f"{said} ({_first_line(error)})") from error


def foreign_loss_names() -> list[str]:
    """Names that `open_foreign_loss` takes, sorted.

    Raises:
        TrainingError: the extra is not installed.
    """
    return _names(_open_library())


def _open_library() -> ModuleType:
    try:
        from pytorch_metric_learning import losses
    except ImportError as error:
        raise TrainingError(
            f"losses by name need pytorch-metric-learning ({error}); run: pip install 'retrieval-engine[losses]'"
        ) from error
    return losses  # type: ignore[no-any-return]  # the library has no types


def _names(library: ModuleType) -> list[str]:
    classes = inspect.getmembers(library, inspect.isclass)
    losses = [name for name, kind in classes if issubclass(kind, library.BaseMetricLossFunction)]
    return sorted(set(losses) - _NOT_FOR_LABELS)


def _arguments(kind: type, library: ModuleType) -> dict[str, inspect.Parameter]:
    """Named arguments of a loss, those it hands on to its parents through **kwargs included."""
    arguments: dict[str, inspect.Parameter] = {}
    for parent in inspect.getmro(kind):
        if parent is library.BaseMetricLossFunction or parent is library.GenericPairLoss:
            break
        if "__init__" in vars(parent):
            named = inspect.signature(parent).parameters
            variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            arguments = {name: each for name, each in named.items() if each.kind not in variadic} | arguments
    return arguments


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
