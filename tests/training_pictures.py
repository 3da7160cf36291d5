"""What trainings in tests start from: folders of many views of the demo gallery's things, and quick settings."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import pictures
from retrieval.training import Augmentation, TrainConfig

_PICTURE = "noto.png"
_SIDE_PX = 80


def things_of(demo_gallery: Path) -> list[str]:
    """Names of the 50 things, sorted."""
    return sorted(picture.parent.name for picture in demo_gallery.glob(f"*/{_PICTURE}"))


def write_views(
    demo_gallery: Path, folder: Path, things: Sequence[str] | None = None, *, views: int = 6, seed: int = 0
) -> Path:
    """Write `folder`/THING/NUMBER.png: every thing on white, 80 pixels a side, turned by angles drawn from the seed.

    Args:
        demo_gallery: where the things are from.
        folder: to make.
        things: their names; None for all.
        views: pictures of each.
        seed: another one turns each thing by other angles.
    """
    for number, thing in enumerate(things_of(demo_gallery) if things is None else things):
        upright = pictures.on_white(demo_gallery / thing / _PICTURE).resize((_SIDE_PX, _SIDE_PX))
        angles = np.random.default_rng([seed, number]).uniform(0, 360, views)
        (folder / thing).mkdir(parents=True)
        for view, angle in enumerate(angles):
            turned = upright.rotate(float(angle), Image.Resampling.BICUBIC, fillcolor="white")
            turned.save(folder / thing / f"{view}.png")
    return folder


def quick(source: Path, out: Path, **changes: Any) -> TrainConfig:
    """One epoch, some tenths of a second."""
    config = TrainConfig(
        str(source),
        str(out),
        from_model="tiny_cnn",
        epochs=1,
        classes_per_batch=4,
        pictures_per_class=4,
        head_rate=1e-3,
        refit=False,
        augmentation=Augmentation(crop_area=0.7, rotation_degrees=180),
    )
    return dataclasses.replace(config, **changes)
