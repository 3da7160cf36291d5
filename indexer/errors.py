"""What can go wrong with an index on disk, as one exception tree.

IndexerError              a message of one line: thing, value, limit, remedy
├── IndexNotFound         there is no index in that folder
├── IndexExists           there is one already, where none should be
├── IndexTooNew           written by a newer version of the software
├── IndexDamaged          a file is missing, cut or altered
├── IndexBusy             another job holds the index; names who
├── GenerationForgotten   a generation whose rows are gone; a refresh leads to one that is whole
├── IndexReadOnly         the folder cannot be written, and the call would have to
├── DiskFull              no space left; what was committed before is safe
├── ModelMismatch         vectors of another model than the index was built by
├── VectorError           vectors of the wrong shape, not finite or not of unit length
├── GpuUnavailable        a GPU is asked for and not there
├── RecipeError           a way to search that does not exist, does not fit or does not find enough
├── UnstorableValue       a key, a name or metadata that no catalog can hold; a ValueError as well
└── FilterError           a condition that is not understood, or of a field that no picture has
"""


class IndexerError(Exception):
    """Base of every error that indexer raises on purpose."""


class IndexNotFound(IndexerError):
    """There is no index in that folder."""


class IndexExists(IndexerError):
    """There is an index already, where none should be."""


class IndexTooNew(IndexerError):
    """The index was written by a newer version of the software."""


class IndexDamaged(IndexerError):
    """A file of the index is missing, cut or altered."""


class IndexBusy(IndexerError):
    """Another job holds the index; the message names it."""


class GenerationForgotten(IndexerError):
    """A generation was asked for whose rows are gone; a refresh leads to one that is whole."""


class IndexReadOnly(IndexerError):
    """The folder of the index cannot be written, and the call would have to."""


class DiskFull(IndexerError):
    """No space is left on the index's disk; what was committed before is safe."""


class ModelMismatch(IndexerError):
    """The vectors come from another model than the index was built by."""


class VectorError(IndexerError):
    """Vectors of the wrong shape, not finite or not of unit length."""


class GpuUnavailable(IndexerError):
    """A GPU is asked for that is not there."""


class RecipeError(IndexerError):
    """A way to search that FAISS does not know, that does not fit into memory, or does not find enough."""


class UnstorableValue(IndexerError, ValueError):
    """A text that is not UTF-8, or a number in metadata that is not finite: nothing was changed."""


class FilterError(IndexerError):
    """A condition on attributes that is not understood, or of a field that no picture has; says where."""
