"""Pictures to unit vectors."""
