"""A device with the limits of a GPU and none of its speed, to search "on" where there is none."""

import threading
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.gpu import DEEPEST, Device, Gpus
from indexer.store import IndexStore


class StrictFlat:
    """An index that refuses what FAISS on a GPU refuses, ignores or does wrong: depth, selectors, a second thread."""

    def __init__(self, dim: int) -> None:
        self._index = faiss.IndexFlatIP(dim)
        self._thread = threading.get_ident()
        self.calls: list[int] = []

    def add(self, vectors: NDArray[np.float32]) -> None:
        assert threading.get_ident() == self._thread
        self._index.add(vectors.astype(np.float16).astype(np.float32))

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        assert threading.get_ident() == self._thread
        if k > DEEPEST:
            raise RuntimeError(f"GPU index only supports k up to {DEEPEST}, requested {k}")
        self.calls.append(len(queries))
        return self._index.search(queries.astype(np.float16).astype(np.float32), k)


class LikeAGpu:
    """One GPU.

    Args:
        room: for vectors; more than that do not fit.
    """

    def __init__(self, room: int = 10**9) -> None:
        self.room = room
        self.flat: Any = None

    def flats(self, dim: int) -> list[Any]:
        self.flat = StrictFlat(dim)
        added, add = 0, self.flat.add

        def limited(vectors: NDArray[np.float32]) -> None:
            nonlocal added
            added += len(vectors)
            if added > self.room:
                raise RuntimeError("Error in cudaMalloc:\nout of memory")
            add(vectors)

        self.flat.add = limited
        return [self.flat]

    def copy_of(self, index: Any, probed_lists: int) -> Any:
        copied = faiss.clone_index(index)
        faiss.ParameterSpace().set_index_parameter(copied, "nprobe", probed_lists)
        return copied


class TwoLikeGpus(LikeAGpu):
    """Two, each with half of the rows."""

    def flats(self, dim: int) -> list[Any]:
        return [faiss.IndexFlatIP(dim), faiss.IndexFlatIP(dim)]


def placed_store(store: IndexStore, device: Device) -> IndexStore:
    """The index again, searched on a device, once all is there."""
    again = IndexStore(store.index_dir, gpus=Gpus(device))
    for one in again.snapshot.segments:
        assert one.placed is not None
        assert one.placed.is_ready.wait(60)
    return again
