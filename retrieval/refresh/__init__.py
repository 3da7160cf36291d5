"""A better model for an index that is in use: training, the judgement, re-embedding, the switch, and the way back."""

from retrieval.refresh.former import history, prune, rollback
from retrieval.refresh.loop import RefreshConfig, refresh
from retrieval.refresh.moving import move_to_model

__all__ = ["RefreshConfig", "history", "move_to_model", "prune", "refresh", "rollback"]
