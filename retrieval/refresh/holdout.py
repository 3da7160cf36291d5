"""Which pictures does a candidate not see, so that it can be judged by them? The same, refresh after refresh."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.gallery.labelled import LabelledPictures
from retrieval.training.split import lowest_of_group, place_of

PICTURE_SHARE = 0.2  # of the pictures of every product that has enough of them
PRODUCT_SHARE = 0.1  # of the products, whole
_ENOUGH = 3  # pictures, of which two stay to be trained on
_STAY = 2


def hold_out(pictures: LabelledPictures, groups: Sequence[str | None]) -> NDArray[np.int64]:
    """Choose by hashes of names alone, so that successive refreshes compare on the same pictures.

    A tenth of the products is held out whole: those stand for the ones that are still to come. Of every other product
    with three pictures or more a fifth is held out, and two at least stay.

    Args:
        pictures: N of them.
        groups: N values, such as hashes of the contents; pictures of a product with the same one fall on the same side.

    Returns:
        (H,) rows of `pictures`, ascending.
    """
    is_whole = np.array([place_of(f"product {name}") < PRODUCT_SHARE for name in pictures.names], np.bool_)
    places = np.array([place_of(record.key) for record in pictures.records])
    places = lowest_of_group(places, pictures.labels, groups)
    counts = pictures.counts()
    by_product = places[np.lexsort((places, pictures.labels))]
    # Of every product the pictures from this place on stay, whatever their places are.
    staying = np.zeros(len(counts))
    has_enough = counts >= _ENOUGH
    staying[has_enough] = by_product[np.cumsum(counts)[has_enough] - _STAY]
    is_out = (places < PICTURE_SHARE) & (places < staying[pictures.labels])
    return np.flatnonzero(is_out | is_whole[pictures.labels])
