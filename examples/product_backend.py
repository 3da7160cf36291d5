"""A shop's product backend: products come, change their price, are found by a photo, and go.

    python examples/product_backend.py [INDEX] [--data DIR]

INDEX is the folder of the index, made at the first start and opened again at the next; without it, a temporary one.
The products are those of the demo gallery; a photo of one, drawn by somebody else, plays the customer's.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from indexer.errors import IndexNotFound
from retrieval import SearchEngine, SearchResult

DATA = Path(__file__).resolve().parent.parent / "data"
SOUGHT = "butterfly"  # what the customer has photographed
REFRESH = "refresh"


@dataclass(frozen=True)
class Product:
    """One product as the shop's own database knows it."""

    product_id: str
    name: str
    price_cents: int
    photo: bytes

    @property
    def metadata(self) -> dict[str, Any]:
        """What comes back with each hit; plain JSON values."""
        return {"name": self.name, "price_cents": self.price_cents}


def open_or_create(index_dir: Path) -> SearchEngine:
    """Open the shop's index; make it at the first start."""
    try:
        return SearchEngine.open(index_dir)
    except IndexNotFound:
        return SearchEngine.create(index_dir, model="efficientnet_lite0")  # the fast preset


def put(engine: SearchEngine, product: Product) -> int:
    """Add a product, or put it in place of its former self; durable on return.

    One photo a product, so its id is the key. With several, give each a key, say `<product id>/<number>`, and all the
    same `product_id`. The photo's bytes are kept in the index: there is no file to look after.
    """
    return engine.upsert(product.product_id, product.photo, product_id=product.product_id, metadata=product.metadata)


def set_price(engine: SearchEngine, product: Product, price_cents: int) -> int:
    """Change a price: no picture is decoded and no vector written."""
    return engine.update_metadata(product.product_id, metadata=replace(product, price_cents=price_cents).metadata)


def storefront(index_dir: Path, requests: "Connection[Any, Any]") -> None:
    """Answer photos in a process of its own, until None comes.

    Its engine stays in one generation, so that a page of hits and the page after it agree, and moves on when it is
    told to; a web worker would refresh before each request, which costs microseconds where nothing has changed.
    """
    with SearchEngine.open(index_dir) as engine:
        for request in iter(requests.recv, None):
            requests.send(engine.refresh() if request == REFRESH else engine.search(request, k=1).to_dict())


@contextmanager
def running_storefront(index_dir: Path) -> Iterator["Connection[Any, Any]"]:
    """Run `storefront` beside this process; yields the line to it."""
    context = multiprocessing.get_context("spawn")  # an engine does not survive a fork, nor do its libraries' threads
    ours, theirs = context.Pipe()
    process = context.Process(target=storefront, args=(index_dir, theirs))
    process.start()
    theirs.close()  # ours alone is left: should the process end, waiting for its answer ends, too
    try:
        yield ours
    finally:
        ours.send(None)
        process.join()


def ask(storefront: "Connection[Any, Any]", photo: bytes) -> str:
    """What the storefront finds, and in which generation."""
    storefront.send(photo)
    answer = storefront.recv()  # the stable shape, the same as of `retrieve query --json`
    return f"{answer['hits'][0]['product_id']}, generation {answer['generation']}"


def show(result: SearchResult) -> None:
    """Print hits as a shop's page would list them."""
    for hit in result.hits:
        print(f"  {hit.rank}. {hit.score:.3f}  {hit.metadata['name']}, {hit.metadata['price_cents'] / 100:.2f}")


def read_products(data: Path) -> dict[str, Product]:
    """The demo gallery's things as products, with prices made up."""
    photos = sorted((data / "gallery").glob("*/fluent.webp"))
    names = [photo.parent.name for photo in photos]
    return {
        name: Product(name, name.replace("-", " ").title(), 250 + 50 * number, photo.read_bytes())
        for number, (name, photo) in enumerate(zip(names, photos, strict=True))
    }


def run(engine: SearchEngine, data: Path) -> None:
    """A day in the shop."""
    products, photo = read_products(data), (data / "queries" / f"{SOUGHT}.png").read_bytes()
    info = engine.info()
    print(f"opened {engine.index_dir}: {info.products} products, generation {info.generation}")

    for product in products.values():
        generation = put(engine, product)
    print(f"put {len(products)} products: generation {generation}")

    found = engine.search(products[SOUGHT].photo, k=1)  # a writer reads its own writes
    print(f"found {found.hits[0].key} by its own picture, score {found.hits[0].score:.3f}")

    generation = set_price(engine, products[SOUGHT], 199)
    print(f"new price of {SOUGHT}: generation {generation}")
    print("the customer's photo looks like:")
    show(engine.search(photo, k=3))
    print("and for less than 10.00, one picture a product:")
    show(engine.search(photo, k=3, where={"price_cents": {"<": 1000}}, group_by="product_id"))

    with running_storefront(engine.index_dir) as worker:
        print(f"storefront finds {ask(worker, photo)}")
        print(f"removed {SOUGHT}: generation {engine.remove(SOUGHT)}")
        print(f"storefront still finds {ask(worker, photo)}")
        worker.send(REFRESH)
        print(f"storefront refreshes: generation {worker.recv()}")
        print(f"storefront now finds {ask(worker, photo)}")

    info = engine.info()
    print(f"closed with {info.products} products, generation {info.generation}")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", nargs="?", type=Path, metavar="INDEX", help="the index; default: a temporary one")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="default: the demo gallery's folder")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_or_create(arguments.index or Path(scratch, "shop.index")) as engine,
    ):
        run(engine, arguments.data)


if __name__ == "__main__":  # a spawned process imports this file
    main()
