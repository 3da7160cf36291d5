"""A better model for an index that is in use: re-embedding, the switch, and the way back."""
