"""A path, bytes, an array or a Pillow image as an upright RGB picture."""

from retrieval.files import read_bytes
from retrieval.images.decoding import DEFAULT_LIMITS, TRUNCATED, DecodeLimits, decode, may_pass_now

__all__ = ["DEFAULT_LIMITS", "TRUNCATED", "DecodeLimits", "decode", "may_pass_now", "read_bytes"]
