"""The command line: one small module a verb, loaded when it is called."""

from retrieval.cli.app import main

__all__ = ["main"]
