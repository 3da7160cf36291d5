"""A better model for an index that is in use: training, the judgement, re-embedding, the switch, and the way back."""

from retrieval.refresh.loop import RefreshConfig, refresh
from retrieval.refresh.moving import history, move_to_model, prune, rollback

__all__ = ["RefreshConfig", "history", "move_to_model", "prune", "refresh", "rollback"]
