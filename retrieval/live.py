"""A generation of an index and the model of its vectors: what an answer belongs to, and the way to the next."""

import threading
from contextlib import suppress
from typing import NamedTuple

from indexer.changes import Changes, Committed
from indexer.snapshot import Snapshot
from indexer.store import IndexStore
from retrieval.errors import ModelError
from retrieval.index_model import IndexModel, ModelOptions, open_index_model


class Live(NamedTuple):
    """What belongs together: a generation, and the model that its vectors are of."""

    snapshot: Snapshot
    model: IndexModel


class LiveIndex:
    """An index that is searched and changed, and whose model may be replaced meanwhile; safe in several threads.

    Whoever answers a query takes `now` once and computes with that; it stays whole while others move on.

    Args:
        store: the index.
        model: of its live space.
        options: how the models that follow are opened.
    """

    def __init__(self, store: IndexStore, model: IndexModel, options: ModelOptions) -> None:
        self.store = store
        self.now = Live(store.snapshot, model)
        self._options = options
        self._lock = threading.Lock()

    def refresh(self) -> Live:
        """Move to the newest generation that anybody has committed, and to its model.

        Raises:
            UnknownModel, ModelDamaged, ModelMismatch: that model cannot be opened; `now` stays what it was.
        """
        self.store.refresh()
        return self.follow()

    def follow(self) -> Live:
        """Move to where the store is, with the model of that generation.

        Raises:
            UnknownModel, ModelDamaged, ModelMismatch: as for `refresh`.
        """
        with self._lock:
            snapshot, model = self.store.snapshot, self.now.model
            if snapshot.space.id != model.space.id:
                former, model = model, open_index_model(self.store.index_dir, snapshot.space, self._options)
                if former.embedder.is_open:
                    _ = model.embedder.encoder  # now, not at the cost of the next query
            self.now = Live(snapshot, model)  # searches that began with the former one still hold it
            return self.now

    def commit(self, changes: Changes, note: str, *, space_id: int | None = None) -> Committed:
        """Commit, and move to what was committed.

        Raises:
            As `IndexStore.commit`. A model that cannot be opened is not among them: what was committed is safe, and
            `refresh` says what is wrong.
        """
        committed = self.store.commit(changes, note, space_id=space_id)
        with suppress(ModelError):
            self.follow()
        return committed

    def close(self) -> None:
        """Let go of the index and of the encoder."""
        self.store.close()
        self.now.model.embedder.close()
