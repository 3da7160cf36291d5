"""A better model for an index that is in use: re-embedding, the switch, and the way back."""

from retrieval.refresh.moving import history, move_to_model, prune, rollback

__all__ = ["history", "move_to_model", "prune", "rollback"]
