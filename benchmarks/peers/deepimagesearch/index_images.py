"""How fast does DeepImageSearch index a folder? Run by the environment that setup.sh makes, not by ours.

Its documented modules, set as is fastest on a CPU: a flat index (nothing to train), files not verified beforehand. The
batch is the tool's own default of 64, unless another is asked for: 16 is faster on some machines, so a fair comparison
measures both. The clock covers decode, resize, embed, add and save; imports, building the network and listing the
folder stand outside it, in the tool's favour. Prints one line of JSON:
{"images", "seconds", "images_per_second", "peak_memory_bytes", "batch_size"}.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from DeepImageSearch.core.embeddings import EmbeddingManager
from DeepImageSearch.core.indexer import Indexer
from DeepImageSearch.data.loader import Load_Data
from DeepImageSearch.vectorstores.faiss_store import FAISSStore

MODEL = "tf_efficientnet_lite0"
DEFAULT_BATCH_SIZE = 64  # of SearchEngine, EmbeddingManager and Indexer alike


def main() -> None:
    """Index one folder once."""
    parser = argparse.ArgumentParser(description="Index a folder with DeepImageSearch and print the speed as JSON.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch-size", type=int, default=DEFAULT_BATCH_SIZE)
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        parser.error(f"{arguments.folder} is not a folder")
    paths = Load_Data().from_folder([str(arguments.folder)], validate=False)
    if not paths:
        parser.error(f"{arguments.folder} holds no pictures")
    images, seconds = _index(paths, arguments.batch_size)
    figures = {
        "images": images,
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 2),
        "peak_memory_bytes": _peak_memory_bytes(),
        "batch_size": arguments.batch_size,
    }
    print(json.dumps(figures))


def _index(paths: list[str], batch_size: int) -> tuple[int, float]:
    """How many pictures came into the index, and in how many seconds."""
    embedding = EmbeddingManager.create(MODEL, pretrained=False, batch_size=batch_size)
    store = FAISSStore(dimension=embedding.dimension, index_type="flat")
    indexer = Indexer(embedding=embedding, vector_store=store, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        indexer.index(paths)
        store.save(folder)
        return store.count(), time.perf_counter() - start


def _peak_memory_bytes() -> int:
    """The most this process ever held; getrusage would count its parent's memory from before the exec as well."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
