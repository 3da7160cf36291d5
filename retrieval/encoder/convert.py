"""The child process that needs torch: a model's weights -> OpenVINO's portable format.

`python -m retrieval.encoder.convert MODEL FOLDER` writes model.xml, model.bin and model.json into FOLDER. It takes
about ten seconds and 1.2 GB, which the process that indexes or queries should never hold.
"""

import hashlib
import sys
from pathlib import Path

from retrieval.encoder.artifact import IR_FILES, write_description
from retrieval.encoder.child import answer_parent
from retrieval.encoder.openvino_import import import_openvino


def convert(model: str, folder: str) -> None:
    """Write a model in OpenVINO's format, weights in float32, with any batch size.

    Args:
        model: a name or a model directory.
        folder: an existing, empty directory.

    Raises:
        ModelError: the model is unknown, its weights are not at hand, or they are damaged.
        OSError: the folder cannot be written.
    """
    import torch

    from retrieval.encoder.weights import load_twin

    openvino = import_openvino()
    twin = load_twin(model)
    side = twin.config.preprocessing.input_px
    example = torch.zeros(2, 3, side, side, dtype=torch.uint8)  # one picture would make the batch a constant
    program = torch.export.export(twin, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},))
    paths = [Path(folder) / name for name in IR_FILES]
    openvino.save_model(openvino.convert_model(program), paths[0], compress_to_fp16=False)
    checksums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    write_description(Path(folder), twin.config, twin.fingerprint(), checksums)


if __name__ == "__main__":
    sys.exit(answer_parent(convert))
