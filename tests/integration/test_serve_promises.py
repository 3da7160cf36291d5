"""The service keeps what its OpenAPI promises, whatever is sent; and no bytes of a picture bring it down."""

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import PIL.Image
import pytest

from retrieval.engine import SearchEngine
from serving import Served, serving

APPLE = "apple/noto.png"
CONFIG = Path(__file__).resolve().parent.parent / "schemathesis.toml"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
RSS_MARGIN_BYTES = 150_000_000  # allocators keep what large pictures took


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("shop")
    with SearchEngine.create(folder / "index", model="efficientnet_lite0") as engine:
        for thing in ("apple", "car"):
            engine.upsert(f"{thing}/noto.png", demo_gallery / thing / "noto.png", metadata={"price": 3})
    with serving(folder / "index", log=folder / "log") as served:
        yield served


def asked_by_schemathesis(served: Served, examples: int) -> None:
    command = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert command
    done = subprocess.run(
        [
            command, "--config-file", str(CONFIG), "run", f"{served.url}/v1/openapi.json",
            "--max-examples", str(examples), "--seed", "1", "--generation-database", "none", "--no-color",
        ],
        capture_output=True, text=True, timeout=3000, cwd=served.log.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_it_keeps_what_its_openapi_promises(served: Served) -> None:
    asked_by_schemathesis(served, examples=15)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_it_keeps_it_under_many_examples(served: Served) -> None:
    asked_by_schemathesis(served, examples=300)


def mutated(content: bytes, random_: random.Random) -> bytes:
    """A picture file with some bytes changed, cut out, repeated or left away."""
    said = bytearray(content)
    for _ in range(random_.randint(1, 8)):
        place = random_.randrange(max(1, len(said)))
        length = random_.randint(1, 64)
        match random_.randrange(5):
            case 0:
                said[place : place + 1] = bytes([random_.randrange(256)])
            case 1:
                del said[place : place + length]
            case 2:
                said[place:place] = said[place : place + length]
            case 3:
                said[place : place + length] = random_.randbytes(length)
            case 4:
                del said[max(16, place) :]
    return bytes(said) or b"x"


def pictures(demo_gallery: Path, folder: Path) -> list[bytes]:
    found = []
    with PIL.Image.open(demo_gallery / APPLE) as image:
        for kind in FORMATS:
            path = folder / f"a.{kind.lower()}"
            image.convert("RGB").save(path, kind)
            found.append(path.read_bytes())
    return found


def rss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def fuzz(served: Served, demo_gallery: Path, folder: Path, count: int) -> None:
    originals = pictures(demo_gallery, folder)

    def ask(number: int) -> int:
        random_ = random.Random(number)
        content = mutated(originals[number % len(originals)], random_)
        headers = {"content-type": "image/*"}
        return served.client.post("/v1/search?k=1", content=content, headers=headers).status_code

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(100)))  # what is loaded when first needed
        before = rss_bytes(served.process.pid)
        statuses = list(pool.map(ask, range(count)))
    assert set(statuses) <= {200, 413, 422}
    assert 200 in statuses
    assert 422 in statuses
    assert served.process.poll() is None
    assert rss_bytes(served.process.pid) < before + RSS_MARGIN_BYTES
    assert httpx2.get(f"{served.url}/readyz").status_code == 200


def test_mutated_pictures_are_answered(served: Served, demo_gallery: Path, tmp_path: Path) -> None:
    fuzz(served, demo_gallery, tmp_path, 500)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_very_many_mutated_pictures_are_answered(served: Served, demo_gallery: Path, tmp_path: Path) -> None:
    fuzz(served, demo_gallery, tmp_path, 20_000)
