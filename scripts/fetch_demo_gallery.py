"""Which pictures make up the demo gallery, and where they come from: writes data/gallery, queries and gallery.csv.

The same things as drawn by three vendors, out of three npm packages: Noto and Fluent make the gallery, Twemoji the
queries. Files are taken as they are, so a second run, on any machine, writes the same bytes. Needs `npm`, nothing else.

    python scripts/fetch_demo_gallery.py            # write data/
    python scripts/fetch_demo_gallery.py --check    # compare data/ with what would be written
"""

import argparse
import csv
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).resolve().parent.parent / "data"


class Vendor(NamedTuple):
    """An npm package of pictures: where each lies in it, by code point, and the checksum of the package."""

    package: str
    picture: str
    sha256: str


VENDORS = {
    "noto": Vendor(
        package="emoji-datasource-google@16.0.0",
        picture="package/img/google/64/{}.png",
        sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    ),
    "twemoji": Vendor(
        package="emoji-datasource-twitter@16.0.0",
        picture="package/img/twitter/64/{}.png",
        sha256="f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    ),
    "fluent": Vendor(
        package="@lobehub/fluent-emoji-3d@1.1.0",
        picture="package/assets/{}.webp",
        sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
}

# label -> product_id -> code point, as the packages spell it
PRODUCTS = {
    "animal": {
        "butterfly": "1f98b",
        "crab": "1f980",
        "elephant": "1f418",
        "octopus": "1f419",
        "owl": "1f989",
        "penguin": "1f427",
        "snail": "1f40c",
        "tropical-fish": "1f420",
        "turtle": "1f422",
    },
    "clothing": {
        "backpack": "1f392",
        "crown": "1f451",
        "high-heel": "1f460",
        "running-shoe": "1f45f",
        "t-shirt": "1f455",
        "umbrella": "2614",
    },
    "food": {
        "apple": "1f34e",
        "banana": "1f34c",
        "broccoli": "1f966",
        "carrot": "1f955",
        "cherries": "1f352",
        "corn": "1f33d",
        "croissant": "1f950",
        "doughnut": "1f369",
        "grapes": "1f347",
        "hamburger": "1f354",
        "lemon": "1f34b",
        "pear": "1f350",
        "pineapple": "1f34d",
        "pizza": "1f355",
        "strawberry": "1f353",
        "watermelon": "1f349",
    },
    "household": {
        "alarm-clock": "23f0",
        "camera": "1f4f7",
        "key": "1f511",
        "light-bulb": "1f4a1",
        "scissors": "2702-fe0f",
        "teddy-bear": "1f9f8",
    },
    "music": {
        "guitar": "1f3b8",
        "violin": "1f3bb",
    },
    "plant": {
        "cactus": "1f335",
        "fir-tree": "1f332",
        "maple-leaf": "1f341",
        "sunflower": "1f33b",
    },
    "sport": {
        "basketball": "1f3c0",
        "football": "26bd",
    },
    "vehicle": {
        "bicycle": "1f6b2",
        "car": "1f697",
        "fire-engine": "1f692",
        "rocket": "1f680",
        "sailing-boat": "26f5",
    },
}

GALLERY_VENDORS = ("fluent", "noto")
QUERY_VENDOR = "twemoji"
QUERIES = (
    "apple",
    "butterfly",
    "doughnut",
    "fire-engine",
    "guitar",
    "owl",
    "pizza",
    "rocket",
    "running-shoe",
    "strawberry",
    "sunflower",
    "turtle",
)


def collect(packages: Path) -> dict[str, bytes]:
    """Read every file of the demo out of the packages.

    Args:
        packages: an empty folder that takes the downloads.

    Returns:
        Path below data/ -> content, sorted by path.

    Raises:
        SystemExit: npm is missing or failed, or a package is not the one that was pinned.
    """
    points = {product: point for products in PRODUCTS.values() for product, point in products.items()}
    drawings = {vendor: _read_pictures(vendor, list(points.values()), packages) for vendor in VENDORS}
    files = {"gallery.csv": _manifest()}
    for product, point in points.items():
        for vendor in GALLERY_VENDORS:
            files[_gallery_path(product, vendor)] = drawings[vendor][point]
    for product in QUERIES:
        suffix = Path(VENDORS[QUERY_VENDOR].picture).suffix
        files[f"queries/{product}{suffix}"] = drawings[QUERY_VENDOR][points[product]]
    return dict(sorted(files.items()))


def _gallery_path(product: str, vendor: str) -> str:
    return f"gallery/{product}/{vendor}{Path(VENDORS[vendor].picture).suffix}"


def _manifest() -> bytes:
    rows = [
        (_gallery_path(product, vendor), product, label)
        for label, products in PRODUCTS.items()
        for product in products
        for vendor in GALLERY_VENDORS
    ]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "product_id", "label"))
    writer.writerows(sorted(rows))
    return text.getvalue().encode()


def _read_pictures(name: str, points: list[str], packages: Path) -> dict[str, bytes]:
    vendor = VENDORS[name]
    archive = _download(vendor, packages / name)
    wanted = {vendor.picture.format(point): point for point in points}
    pictures: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:  # one pass: a gzipped tar has no index
        for member in tar:
            if member.name in wanted and (content := tar.extractfile(member)) is not None:
                pictures[wanted[member.name]] = content.read()
    if missing := sorted(set(points) - set(pictures)):
        sys.exit(f"{vendor.package} has no picture of {', '.join(missing)}")
    return pictures


def _download(vendor: Vendor, folder: Path) -> Path:
    folder.mkdir(parents=True)
    try:
        subprocess.run(["npm", "pack", "--silent", vendor.package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        sys.exit("npm is not installed; it comes with Node.js")
    except subprocess.CalledProcessError as error:
        sys.exit(f"npm pack {vendor.package} failed with exit code {error.returncode}")
    archive = next(folder.glob("*.tgz"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != vendor.sha256:
        sys.exit(f"{vendor.package} has sha256 {digest}, expected {vendor.sha256}")
    return archive


def _write(files: dict[str, bytes]) -> None:
    for folder in ("gallery", "queries"):
        shutil.rmtree(DATA / folder, ignore_errors=True)
    for name, content in files.items():
        path = DATA / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _differences(files: dict[str, bytes]) -> list[str]:
    present = {
        path.relative_to(DATA).as_posix()
        for folder in ("gallery", "queries")
        for path in (DATA / folder).rglob("*")
        if path.is_file()
    }
    changed = [name for name, content in files.items() if not _holds(DATA / name, content)]
    return sorted({*changed, *(present - set(files))})


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def main() -> None:
    """Fetch the packages, then write data/ or compare it."""
    parser = argparse.ArgumentParser(description="Fetch the demo gallery.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if data/ differs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = collect(Path(folder))
    if not arguments.check:
        _write(files)
    elif differences := _differences(files):
        sys.exit(f"data/ differs in {len(differences)} files: {', '.join(differences)}")
    pictures, size_bytes = len(files) - 1, sum(map(len, files.values()))
    print(f"{pictures} pictures, {size_bytes / 1e6:.2f} MB, {'equal' if arguments.check else 'written to data/'}")


if __name__ == "__main__":
    main()
