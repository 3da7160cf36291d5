"""Which product does each picture of an index show, if a file says it in place of the index?"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from retrieval.errors import GalleryError, ManifestError, and_more
from retrieval.gallery.tables import MANIFEST_SUFFIXES, read_table, reading, table_of_cells


def read_labels(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what pictures show from a CSV, JSONL or Parquet file with the columns `key` and `product_id`.

    Returns:
        Key -> product.

    Raises:
        ManifestError: a column is missing, a value is empty, or a key stands there twice; names the line.
        GalleryError: there is no such file, or its suffix is not one of a manifest.
    """
    source = Path(os.path.abspath(path))
    with reading("labels", source):
        table = read_table(source, lambda cells: table_of_cells(source.name, cells))
    if table is None:
        raise GalleryError(f"labels {source}: the file must be one of {', '.join(MANIFEST_SUFFIXES)}")
    labels: dict[str, str] = {}
    for number, row in table.rows:
        values = [row.get(name) for name in ("key", "product_id")]
        if None in values:
            raise ManifestError(
                f"{source.name} {table.unit} {number} lacks {'key' if values[0] is None else 'product_id'}; every row "
                "names a picture of the index and its product"
            )
        key, product = map(str, values)
        if labels.setdefault(key, product) != product:
            raise ManifestError(
                f'{source.name} {table.unit} {number}: key "{key}" is of product "{labels[key]}" further up, and of '
                f'"{product}" here; keep one of the rows'
            )
    return labels


def check_keys(labels: Mapping[str, str], keys: Collection[str], index_dir: Path) -> None:
    """Raise where labels are of pictures that the index does not hold.

    Raises:
        GalleryError: names the first, and how many.
    """
    strangers = [key for key in labels if key not in keys]
    if strangers:
        raise GalleryError(
            f"index {index_dir} holds no picture {strangers[0]!r}{and_more(len(strangers))}, of which the labels say"
            " what they show; sync them first, or take them out of the labels"
        )
