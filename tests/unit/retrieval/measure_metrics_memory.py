"""Run as a script: prints by how many bytes scoring N embeddings against themselves grew the process beyond them."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from retrieval.evaluation.metrics import score_ranking

count, dim, a_class = int(sys.argv[1]), 128, 10
generator = np.random.default_rng(0)
labels = np.arange(count) // a_class
embeddings = generator.standard_normal((count, dim), np.float32)
for start in range(0, count, a_class):  # in place: copies would raise the peak before anything is measured
    embeddings[start : start + a_class] += generator.standard_normal(dim, np.float32)
    embeddings[start : start + a_class] /= np.linalg.norm(embeddings[start : start + a_class], axis=1, keepdims=True)


def kilobytes(name: str) -> int:
    """A figure of this process; the peak of `getrusage` would be that of the parent, had it been larger."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


resident = kilobytes("VmRSS")
scores = score_ranking(embeddings, labels, embeddings, labels, own_rows=np.arange(count))
assert len(scores.rows) == count
print(1024 * (kilobytes("VmHWM") - resident))
