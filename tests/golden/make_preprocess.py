"""Write the pictures and pixels that test_preprocess.py compares with; run again only when they are meant to change.

python tests/golden/make_preprocess.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from retrieval.encoder.preprocess import Preprocessing, decode_min_side, preprocess
from retrieval.images import decode

HERE = Path(__file__).resolve().parent
HOW = Preprocessing(28, 30, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))


def main() -> None:
    generator = np.random.default_rng(20261123)
    rows, columns = np.mgrid[:240, :320].astype(np.float64)
    rings = 127 + 90 * np.sin(np.hypot(rows - 90, columns - 200)[..., None] / np.array([3.0, 5.0, 9.0]))
    pixels = np.clip(rings + generator.normal(0, 12, rings.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    image.save(HERE / "rings.jpg", quality=80)
    image.resize((80, 60)).save(HERE / "rings.png", optimize=True)
    scaled = decode(HERE / "rings.jpg", min_side_px=decode_min_side(HOW))
    assert scaled.shape == (60, 80, 3), "meant to be decoded at a quarter"
    golden = {
        "jpeg_scaled": preprocess(scaled, HOW),
        "jpeg_full": preprocess(decode(HERE / "rings.jpg"), HOW),
        "png": preprocess(decode(HERE / "rings.png"), HOW),
    }
    np.savez_compressed(HERE / "preprocess.npz", **golden)


if __name__ == "__main__":
    main()
