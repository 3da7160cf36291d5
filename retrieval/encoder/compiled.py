"""How does a model become ready to run on this CPU, and how is that kept for the next process?"""

import hashlib
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash

from retrieval.encoder.artifact import Artifact
from retrieval.encoder.backbones import user_cache
from retrieval.encoder.openvino_import import import_openvino
from retrieval.errors import DeviceUnavailable, ModelError

Precision = Literal["auto", "f32", "bf16"]
Hint = Literal["LATENCY", "THROUGHPUT"]

_BLOB_VERSION = 1  # raise it when the options of a compilation change
_DIGEST_BYTES = 16
_UNUSED_AFTER_S = 30 * 24 * 3600.0


def cpu_precision(wanted: Precision) -> Literal["f32", "bf16"]:
    """Choose the precision of inference on this CPU.

    Args:
        wanted: "auto" takes bfloat16 where the CPU computes in it.

    Raises:
        DeviceUnavailable: bfloat16 was asked for and this CPU has none.
    """
    if wanted == "f32":
        return "f32"
    has_bf16 = "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted == "bf16" and not has_bf16:
        raise DeviceUnavailable("this CPU does not compute in bfloat16; use precision f32 or auto")
    return "bf16" if has_bf16 else "f32"


class CompiledModel:
    """A model compiled for one batch size on this CPU.

    A compilation is kept in the user's cache and loaded by the next process in about half the time (measured for
    Lite2: 0.09 s against 0.17 s). OpenVINO's own CACHE_DIR is as fast, but needs the portable model to be read and
    reshaped before it can look, and says nothing of two writers or a damaged file. A file that does not fit is made
    anew; a cache that cannot be written is done without.

    Args:
        artifact: the portable model.
        batch_size: pictures in a request.
        hint: "LATENCY" for one picture at a time, "THROUGHPUT" for several requests in flight.
        precision: of inference.
        threads: OpenVINO's.

    Raises:
        ModelDamaged: the portable model had to be read and differs from its checksum.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        batch_size: int,
        hint: Hint,
        precision: Literal["f32", "bf16"],
        threads: int,
    ) -> None:
        self.batch_size = batch_size
        options = {
            "PERFORMANCE_HINT": hint,
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
        }
        core = import_openvino().Core()
        path = _blob_path(core, artifact, batch_size, options)
        # The weights stay in the file that is mapped here; the memory must outlive the model.
        self._blob = _read_blob(path)
        model = None if self._blob is None else _import_blob(core, self._blob, options)
        if model is None:
            model = _compile(core, artifact, batch_size, options)
            _write_blob(path, model)
        self._model = model
        self.requests_in_flight = int(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def create_request(self) -> Any:
        """Make an inference request; each belongs to one thread at a time."""
        return self._model.create_infer_request()


def _compile(core: Any, artifact: Artifact, batch_size: int, options: dict[str, Any]) -> Any:
    side = artifact.description.preprocessing.input_px
    try:
        model = core.read_model(artifact.verified_ir())
        model.reshape([batch_size, 3, side, side])  # a fixed batch runs faster than a dynamic one
        return core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"OpenVINO cannot run {artifact.description.name} on this CPU ({reason})") from error


def _blob_path(core: Any, artifact: Artifact, batch_size: int, options: dict[str, Any]) -> Path:
    machine = [
        import_openvino().get_version(),
        core.get_property("CPU", "FULL_DEVICE_NAME"),
        list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        platform.machine(),
        _cpu_flags(),
    ]
    origin = [_BLOB_VERSION, dict(artifact.checksums), machine, options]
    key = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:16]
    stem = f"{artifact.description.fingerprint[:16]}-{batch_size}"
    return user_cache() / "compiled" / f"{stem}-{key}.blob"


def _cpu_flags() -> str:
    """The CPU's instruction sets: in a virtual machine its name may hide them."""
    try:
        with Path("/proc/cpuinfo").open() as lines:
            return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        return ""


def _read_blob(path: Path) -> Any:
    """Map a kept compilation, or None if there is none or it is damaged: compiled model, then its xxh3_128."""
    try:
        mapped = np.memmap(path, dtype=np.uint8, mode="c")  # copy on write: OpenVINO insists on writable memory
    except (OSError, ValueError):  # ValueError: empty
        return None
    blob, digest = mapped[:-_DIGEST_BYTES], mapped[-_DIGEST_BYTES:]
    return blob if xxhash.xxh3_128_digest(blob.data) == digest.tobytes() else None


def _import_blob(core: Any, blob: Any, options: dict[str, Any]) -> Any:
    try:
        return core.import_model(import_openvino().Tensor(blob, shared_memory=True), "CPU", options)
    except RuntimeError:  # whatever this build of OpenVINO dislikes: compiling is always possible
        return None


def _write_blob(path: Path, model: Any) -> None:
    blob = model.export_model()
    content = blob if isinstance(blob, bytes) else blob.getvalue()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.write(xxhash.xxh3_128_digest(content))
            Path(aside).replace(path)
        finally:
            Path(aside).unlink(missing_ok=True)
        _remove_outdated(path)
    except OSError:
        return  # a cache; the next process compiles again


def _remove_outdated(fresh: Path) -> None:
    """Remove this model's compilations of long ago: every release of OpenVINO leaves one behind."""
    stem = fresh.name.rpartition("-")[0]
    for path in fresh.parent.glob(f"{stem}-*.blob"):
        if path != fresh and path.stat().st_mtime < time.time() - _UNUSED_AFTER_S:
            path.unlink(missing_ok=True)
