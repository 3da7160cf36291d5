"""Making an index equal to a gallery."""

from retrieval.sync.run import OnProgress, Progress, SyncOptions, sync

__all__ = ["OnProgress", "Progress", "SyncOptions", "sync"]
