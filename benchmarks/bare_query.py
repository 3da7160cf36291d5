"""The least that a process must do to embed one JPEG: bench_latency.py measures `retrieve query` against it.

    python bare_query.py PICTURE COMPILED_MODEL INPUT_PX RESIZE_PX

Imports numpy, faiss and openvino, loads a compiled model from the cache, decodes, resizes and encodes.
"""

import sys

import faiss
import numpy as np
import openvino
import PIL.Image
import simplejpeg

CHECKSUM_BYTES = 16  # follow the compiled model in its file


def main() -> None:
    picture, compiled, input_px, resize_px = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    blob = np.memmap(compiled, dtype=np.uint8, mode="c")[:-CHECKSUM_BYTES]
    model = openvino.Core().import_model(openvino.Tensor(blob, shared_memory=True), "CPU", {})
    with open(picture, "rb") as file:  # noqa: PTH123 - pathlib is not needed for anything else here
        content = file.read()
    image = PIL.Image.fromarray(
        simplejpeg.decode_jpeg(content, min_height=resize_px, min_width=resize_px, min_factor=1)
    )
    width, height = image.size
    side = min(width, height) * input_px / resize_px
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    pixels = np.asarray(image.resize((input_px, input_px), PIL.Image.Resampling.BICUBIC, box=box))
    request = model.create_infer_request()
    request.infer({0: np.ascontiguousarray(pixels.transpose(2, 0, 1))[np.newaxis]})
    print(faiss.__version__, request.get_output_tensor(0).data.shape)


if __name__ == "__main__":
    main()
