"""Folders and manifests as lists of pictures."""

import os
from collections.abc import Collection
from pathlib import Path

from retrieval.gallery.manifest import read_manifest
from retrieval.gallery.scan import scan_folder
from retrieval.gallery.tables import MANIFEST_SUFFIXES
from retrieval.records import Listing

__all__ = ["read_gallery", "read_manifest", "scan_folder"]


def read_gallery(
    path: str | os.PathLike[str], *, key_prefix: str = "", exclude: Collection[str | os.PathLike[str]] = ()
) -> Listing:
    """List the pictures of a folder or a manifest, whichever is there.

    Args:
        path: a folder, or a .csv, .jsonl, .ndjson or .parquet file.
        key_prefix: put in front of every key as it is.
        exclude: folders and files to pass over; a manifest names what it wants.

    Raises:
        GalleryError: it is neither, is missing or cannot be read.
        ManifestError: the manifest is wrong.
    """
    if Path(path).suffix.lower() in MANIFEST_SUFFIXES and not Path(path).is_dir():
        return read_manifest(path, key_prefix=key_prefix)
    return scan_folder(path, key_prefix=key_prefix, exclude=exclude)
