"""A safe home on disk for unit vectors under string keys, and the search among them."""
