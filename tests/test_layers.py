"""Who may import whom: the layers of the design, read from the sources and enforced.

The tables are the documentation. A module belongs to the longest name that it begins with, so `evaluation.metrics` may
lie below the rest of `evaluation`. Imports inside functions and under TYPE_CHECKING count for the layers as well.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from reading_imports import Import, find_imports, read_sources

REPOSITORY = Path(__file__).resolve().parent.parent

# Highest first. A module imports from the lines below its own and from its own package, never from its neighbours.
# The packages themselves (`retrieval`, `indexer`) only hand out public names: they lie above everything.
LAYERS = {
    "retrieval": (
        "cli",
        "service",
        "refresh client repair",
        "engine training",
        "sync evaluation feedback answer prepared",
        "live",
        "index_model",
        "pipeline embedder calibration report",
        "encoder gallery images rerank evaluation.metrics",
        "results",  # an IndexReport lists what was Skipped
        "files",
        "errors records threads",
    ),
    "indexer": (
        "store",
        "integrity backup compaction",
        "sealing ranking duplicates columns",
        "snapshot kept lookup place",
        "growth",
        "open_segment building",
        "gpu",
        "approximation",
        "forgetting",
        "catalog segments tail changes locks feedback column settings fields",
        "recipe spaces filters rescoring",
        "filter_text",
        "exact contract files gate schema conditions",
        "vectors",
        "errors",
    ),
}

# Arrays, strings and plain values are all that `indexer` is given.
FOREIGN_TO_INDEXER = {"retrieval", "torch", "torchvision", "timm", "PIL", "simplejpeg", "openvino", "click", "rich"}

# torch costs 0.8 GB and seconds: a query on a CPU never loads it, so only these modules may name it,
TORCH = {"torch", "torchvision", "timm"}
TORCH_USERS = (
    "encoder.twin encoder.tiny_cnn encoder.weights encoder.library encoder.timm_models encoder.torchvision_models "
    "encoder.names encoder.convert encoder.torch_runtime training"
)
# and these only inside functions.
TORCH_BORROWERS = "encoder.backbones encoder.checkpoint"
# What a query on a CPU loads; neither these nor what they import when they are loaded may load torch.
LOADED_BY_A_QUERY = (
    "retrieval",
    "retrieval.cli",
    "retrieval.cli.query",
    "retrieval.engine",
    "retrieval.encoder.runtime",
)

NEVER_LOADED_BY_IMPORT = ("torch", "torchvision", "faiss", "openvino")


def place(module: str) -> tuple[int, str] | None:
    """Height of a module's layer (0 is the lowest) and the unit it belongs to; None if no line of `LAYERS` holds it."""
    package, _, name = module.partition(".")
    layers = LAYERS[package]
    if not name:
        return len(layers), package
    heights = {unit: len(layers) - 1 - depth for depth, line in enumerate(layers) for unit in line.split()}
    unit = max((unit for unit in heights if _is_within(name, unit)), key=len, default=None)
    return None if unit is None else (heights[unit], f"{package}.{unit}")


def _is_within(name: str, units: str) -> bool:
    return any(f"{name}.".startswith(f"{unit}.") for unit in units.split())


def find_violations(sources: Mapping[str, str]) -> list[str]:
    """Imports within a package that point upwards or sideways, one line each."""
    violations = []
    for found in find_imports(sources):
        package = found.importer.partition(".")[0]
        if found.importer == package or found.target.partition(".")[0] != package:
            continue
        importer, target = place(found.importer), place(found.target)
        if importer is None or target is None or importer[1] == target[1] or target[0] < importer[0]:
            continue
        violations.append(f"{found}, {'a neighbour in its layer' if target[0] == importer[0] else 'a higher layer'}")
    return violations


def find_torch(sources: Mapping[str, str]) -> list[str]:
    """Imports of torch where it may not be, one line each; lazily allowed where the module is a borrower."""
    violations = []
    for found in find_imports(sources):
        if found.target.partition(".")[0] not in TORCH:
            continue
        name = found.importer.partition(".")[2]
        is_borrowed = _is_within(name, TORCH_BORROWERS) and not found.is_at_load
        if not (_is_within(name, TORCH_USERS) or is_borrowed):
            violations.append(str(found))
    return violations


def find_loaded(sources: Mapping[str, str], roots: tuple[str, ...]) -> dict[str, str]:
    """Everything that loading the roots loads, ours and foreign: name -> why."""
    loads: dict[str, list[Import]] = {}
    for found in find_imports(sources):
        if found.is_at_load:
            loads.setdefault(found.importer, []).append(found)
    why: dict[str, str] = {}
    waiting = [(root, "a query loads it") for root in roots if root in sources]
    while waiting:
        module, reason = waiting.pop()
        if module in why:
            continue
        why[module] = reason
        parent = module.rpartition(".")[0]
        waiting += [(parent, f"{module} lies in it")] if parent in sources else []
        waiting += [(found.target, str(found)) for found in loads.get(module, [])]
    return why


SOURCES = read_sources(REPOSITORY, LAYERS)


def test_every_module_is_in_a_layer() -> None:
    lost = [name for name in SOURCES if place(name) is None]
    assert not lost, f"in no layer: {', '.join(lost)}; add each to LAYERS here, at the lowest line that fits"


def test_imports_point_downwards() -> None:
    violations = find_violations(SOURCES)
    assert not violations, "\n".join(violations)


def test_indexer_knows_nothing_of_pictures_and_models() -> None:
    violations = [
        str(found)
        for found in find_imports(SOURCES)
        if found.importer.partition(".")[0] == "indexer" and found.target.partition(".")[0] in FOREIGN_TO_INDEXER
    ]
    assert not violations, "\n".join(violations)


def test_torch_is_named_only_where_models_are_built() -> None:
    violations = find_torch(SOURCES)
    assert not violations, "\n".join(violations)


def test_a_cpu_query_does_not_load_torch() -> None:
    loaded = find_loaded(SOURCES, LOADED_BY_A_QUERY)
    reasons = [reason for name, reason in loaded.items() if name.partition(".")[0] in TORCH]
    assert not reasons, "\n".join(reasons)


def test_importing_retrieval_loads_no_heavy_library() -> None:
    program = "import json, sys, retrieval; print(json.dumps(sorted(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert not set(json.loads(child.stdout)) & set(NEVER_LOADED_BY_IMPORT)


# The reader itself, on small sources: each breach must be seen, each permitted import must pass.

SMALL = {
    "retrieval": "",
    "retrieval.errors": "",
    "retrieval.images": "",
    "retrieval.gallery": "",
    "retrieval.gallery.scan": "",
    "retrieval.encoder": "",
    "retrieval.encoder.twin": "import torch",
    "retrieval.encoder.runtime": "",
    "retrieval.evaluation": "",
    "retrieval.evaluation.metrics": "",
    "retrieval.engine": "",
    "indexer": "",
    "indexer.errors": "",
    "indexer.store": "",
}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("retrieval.images", "import retrieval.engine"),
        ("retrieval.images", "from retrieval import engine"),
        ("retrieval.images", "from retrieval.engine import SearchEngine"),
        ("retrieval.images", "from retrieval import SearchEngine"),
        ("retrieval.images", "from . import engine"),
        ("retrieval.images", "from .engine import SearchEngine"),
        ("retrieval.gallery.scan", "from ..engine import SearchEngine"),
        ("retrieval.gallery", "from ..engine import SearchEngine"),
        ("retrieval.images", "def late():\n    import retrieval.engine"),
        ("retrieval.images", "if TYPE_CHECKING:\n    from retrieval.engine import SearchEngine"),
        ("retrieval.images", "importlib.import_module('retrieval.engine')"),
        ("retrieval.images", "from retrieval.gallery.scan import scan"),
        ("retrieval.evaluation.metrics", "import retrieval.evaluation"),
        ("indexer.errors", "from indexer.store import Store"),
    ],
)
def test_an_import_upwards_or_sideways_is_seen(module: str, source: str) -> None:
    assert len(find_violations({**SMALL, module: source})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("retrieval.engine", "from retrieval.gallery.scan import scan"),
        ("retrieval.engine", "from indexer.store import Store"),
        ("retrieval.gallery", "from .scan import scan"),
        ("retrieval.gallery.scan", "from retrieval.gallery import GALLERY"),
        ("retrieval.evaluation", "from retrieval.evaluation.metrics import recall_at_k"),
        ("retrieval", "if TYPE_CHECKING:\n    from retrieval.engine import SearchEngine"),
        ("retrieval.images", "import numpy"),
    ],
)
def test_an_import_downwards_or_within_a_package_passes(module: str, source: str) -> None:
    assert find_violations({**SMALL, module: source}) == []


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("retrieval.images", "def late():\n    import torch", 1),
        ("retrieval.encoder.backbones", "import timm", 1),
        ("retrieval.encoder.backbones", "def late():\n    import timm", 0),
        ("retrieval.encoder.twin", "from torch import nn", 0),
        ("retrieval.training.losses", "import torch", 0),
    ],
)
def test_torch_outside_its_modules_is_seen(module: str, source: str, count: int) -> None:
    assert len(find_torch({module: source})) == count


@pytest.mark.parametrize(
    ("source", "is_loaded"),
    [
        ("from retrieval.encoder.twin import TwinEncoder", True),
        ("from retrieval.encoder import twin", True),
        ("try:\n    import retrieval.encoder.twin\nexcept ImportError:\n    pass", True),
        ("def late():\n    import retrieval.encoder.twin", False),
        ("if TYPE_CHECKING:\n    import retrieval.encoder.twin", False),
    ],
)
def test_torch_in_reach_of_a_query_is_seen(source: str, is_loaded: bool) -> None:
    sources = {**SMALL, "retrieval.engine": "import retrieval.encoder.runtime", "retrieval.encoder.runtime": source}
    assert ("torch" in find_loaded(sources, ("retrieval.engine",))) is is_loaded


def test_a_package_that_loads_torch_is_seen_through_its_modules() -> None:
    sources = {**SMALL, "retrieval.encoder": "import torch", "retrieval.engine": "import retrieval.encoder.runtime"}
    assert "torch" in find_loaded(sources, ("retrieval.engine",))


def test_a_module_without_a_layer_is_seen() -> None:
    assert place("retrieval.utils") is None
    assert place("retrieval.engineering") is None
