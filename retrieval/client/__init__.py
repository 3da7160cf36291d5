"""A served index, with the methods and types of `SearchEngine`."""

from retrieval.client.asynchronous import AsyncClient
from retrieval.client.synchronous import Client

__all__ = ["AsyncClient", "Client"]
