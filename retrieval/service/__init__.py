"""An index behind HTTP, for a shop's backend and for people in a browser."""

from retrieval.service.access import ApiKeys, KeysError, read_keys
from retrieval.service.app import create_app
from retrieval.service.running import serve
from retrieval.service.settings import ServiceSettings

__all__ = ["ApiKeys", "KeysError", "ServiceSettings", "create_app", "read_keys", "serve"]
