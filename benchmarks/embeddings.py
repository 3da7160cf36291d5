"""Embeddings of real pictures, and as many more of their kind as are asked for.

Real: the photos of Grocery and the drawings of the emoji set, 10,278 pictures, as EfficientNet-Lite0 sees them, their
1,280 values reduced by PCA to 256. More: a real embedding, moved by a part of the difference of two others from its own
neighbourhood, so along directions in which real pictures vary, and by a little noise of the whole set's covariance. How
far is fitted so that neighbourhoods are as hard to search as the real ones: `difficulty` says how alike they are.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from common import bench_data, grocery_iconic, grocery_split
from retrieval.engine import SearchEngine

Rows = NDArray[np.float32]

DIM = 256
MODEL = "efficientnet_lite0"
NEIGHBORS = 100  # of the estimates of difficulty, and of the neighbourhood that differences are drawn from
QUERIES = 500
ALONG, NOISE = 1.2, 0.35  # fitted by hand at a million
_ROWS_AT_ONCE = 50_000


class Difficulty(NamedTuple):
    """How hard neighbours are to find among vectors.

    Attributes:
        local_intrinsic_dimension: maximum likelihood of the distances to 100 neighbours. Source: Levina and Bickel
            2004, "Maximum Likelihood Estimation of Intrinsic Dimension".
        relative_contrast: the mean distance over that to the nearest. Source: He et al. 2012, "On the Difficulty of
            Nearest Neighbor Search".
    """

    local_intrinsic_dimension: float
    relative_contrast: float


def real_embeddings(cache: Path | None = None) -> Rows:
    """(N, 256) unit rows of all pictures of the benchmark data; `cache` keeps them for the next call."""
    if cache is not None and cache.is_file():
        return np.asarray(np.load(cache), np.float32)
    emoji = bench_data() / "emoji"
    paths = [one.path for name in ("train", "val", "test") for one in grocery_split(name)]
    paths += [one.path for one in grocery_iconic()] + sorted(path for path in emoji.rglob("*.*") if path.is_file())
    with tempfile.TemporaryDirectory() as folder, SearchEngine.create(Path(folder) / "index", model=MODEL) as engine:
        whole = engine.embed(paths)
    centred = whole - whole.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    rows = normalised(centred @ directions[:DIM].T)
    if cache is not None:
        np.save(cache, rows)
    return rows


def more_like(real: Rows, count: int, *, along: float = ALONG, noise: float = NOISE, seed: int = 0) -> Rows:
    """(count, 256) unit rows around real ones.

    Args:
        real: (N, 256).
        along: of the difference of two of a row's neighbours, how much it is moved by.
        noise: its length, in the covariance of the whole set.
        seed: of the drawing.
    """
    random = np.random.default_rng(seed)
    near = _nearest(real, real, NEIGHBORS + 1)[1][:, 1:]
    spread = np.linalg.cholesky(np.cov(real, rowvar=False) + 1e-9 * np.eye(real.shape[1])).astype(np.float32)
    rows = np.empty((count, real.shape[1]), np.float32)
    for start in range(0, count, _ROWS_AT_ONCE):
        n = min(_ROWS_AT_ONCE, count - start)
        origin = random.integers(0, len(real), n)
        first, second = (near[origin, random.integers(0, NEIGHBORS, n)] for _ in range(2))
        drawn = random.standard_normal((n, real.shape[1]), dtype=np.float32) @ spread.T
        moved = real[origin] + along * random.random((n, 1), dtype=np.float32) * (real[first] - real[second])
        rows[start : start + n] = normalised(moved + noise * normalised(drawn))
    return rows


def difficulty(rows: Rows, queries: Rows) -> Difficulty:
    """How hard the neighbours of (Q, 256) queries are to find among (N, 256) rows, of which they are none."""
    scores, _ = _nearest(rows, queries, NEIGHBORS)
    distances = np.sqrt(np.maximum(2 - 2 * scores.astype(np.float64), 1e-12))
    logarithms = np.log(distances[:, -1:] / distances[:, :-1])
    mean_distance = np.sqrt(np.maximum(2 - 2 * (queries @ rows[:: max(1, len(rows) // 10_000)].T), 0)).mean()
    return Difficulty(
        float(1 / logarithms.mean(axis=1).mean()),
        float(mean_distance / distances[:, 0].mean()),
    )


def normalised(rows: NDArray[np.floating]) -> Rows:
    """Rows of unit length."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _nearest(rows: Rows, queries: Rows, k: int) -> tuple[Rows, NDArray[np.int64]]:
    scores, found = faiss.knn(queries, rows, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, found
