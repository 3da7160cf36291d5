"""What can go wrong, as one exception tree.

RetrievalError                a message of one line: thing, value, limit, remedy
├── GalleryError              a folder or manifest cannot be used as a gallery
│   ├── ManifestError         a manifest's columns or values are wrong
│   ├── LabelsMissing         pictures that must say which product they show do not
│   └── RemovalsRefused       a sync would remove suspiciously much
├── PictureError              one picture cannot be used; a run sets it aside and goes on
│   ├── PictureUnreadable     its bytes could not be read; tried again at every run
│   ├── PictureUndecodable    its bytes are no picture; remembered until the file changes
│   └── PictureTooLarge       more megapixels than the limit; remembered likewise
├── ModelError                an encoder cannot be opened
│   ├── UnknownModel          no such name or model directory
│   ├── WeightsUnavailable    the weights are not at hand and could not be downloaded
│   └── ModelDamaged          weights or configuration differ from their checksum
├── TrainingError             a training cannot start or go on
│   ├── LabelConflict         the same picture under two labels, or on both sides of a split
│   ├── PicturesChanged       a training cannot be resumed with other pictures than it began with
│   ├── TrainingDiverged      the loss is no number any more
│   └── TrainingCollapsed     every picture is embedded at nearly the same place
├── RefreshError              an index cannot move to another model; it stays with its own
├── DeviceUnavailable         the device asked for is not there
├── ServiceError              a server cannot be reached, or cannot do what is asked now
│   └── RequestRefused        a server does not take a value; a ValueError, too
├── QueryError                a search says nothing to look for
├── UnknownKey                no picture of that name is in the index
└── EngineUnusable            the engine is closed, or was inherited through a fork

Errors of the index on disk are `indexer.errors.IndexerError`, a tree of its own: `indexer` knows nothing of
pictures. Libraries raise; only the command line prints and exits.
"""


class RetrievalError(Exception):
    """Base of every error that retrieval raises on purpose."""


class GalleryError(RetrievalError):
    """A folder or manifest cannot be used as a gallery."""


class ManifestError(GalleryError):
    """A manifest's columns or values are wrong; names the file, the row and the column."""


class LabelsMissing(GalleryError):
    """Pictures that must say which product they show do not."""


class RemovalsRefused(GalleryError):
    """A sync would remove suspiciously much of a source; nothing was changed."""


class PictureError(RetrievalError):
    """One picture cannot be used; `str()` is the reason, behind the name of a file that the caller named."""


class PictureUnreadable(PictureError):
    """A picture's bytes could not be read (permission, broken link, vanished)."""


class PictureUndecodable(PictureError):
    """A picture's bytes could be read but not decoded."""


class PictureTooLarge(PictureError):
    """A picture has more megapixels than the limit."""


class ModelError(RetrievalError):
    """An encoder cannot be opened."""


class UnknownModel(ModelError):
    """No model of that name, and no model directory at that path."""


class WeightsUnavailable(ModelError):
    """A model's weights are not on this machine and could not be downloaded."""


class ModelDamaged(ModelError):
    """A model's files differ from their checksum or cannot be parsed."""


class TrainingError(RetrievalError):
    """A training cannot start or go on."""


class LabelConflict(TrainingError):
    """The same picture stands under two labels, or on both sides of a split."""


class PicturesChanged(TrainingError):
    """A training cannot be resumed with other pictures than it began with."""


class TrainingDiverged(TrainingError):
    """The loss is no number any more."""


class TrainingCollapsed(TrainingError):
    """Every picture is embedded at nearly the same place."""


class RefreshError(RetrievalError):
    """An index cannot move to another model; it stays with its own."""


class DeviceUnavailable(RetrievalError):
    """The device asked for is not on this machine."""


class ServiceError(RetrievalError):
    """A server cannot be reached, or cannot do now what is asked.

    Attributes:
        status: of HTTP, or None where there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RequestRefused(ServiceError, ValueError):
    """A server does not take a value of a request; the engine raises ValueError where it does not."""


class QueryError(RetrievalError):
    """A search says nothing to look for."""


class UnknownKey(RetrievalError):
    """No picture of that key is in the index."""


class EngineUnusable(RetrievalError):
    """The engine is closed, or was inherited through a fork."""


def and_more(count: int) -> str:
    """What follows the first of `count` things in a message: " and 2 more", or nothing."""
    return f" and {count - 1} more" if count > 1 else ""
