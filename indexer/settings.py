"""How the segments of an index are to be searched: what was asked for last, kept in the catalog."""

import sqlite3
from dataclasses import dataclass

from indexer.errors import RecipeError
from indexer.recipe import AUTO, DEFAULT_RECALL, EXACT, empty_index


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What a compaction builds.

    Attributes:
        recipe: `auto`, `exact` or a FAISS factory string.
        recall: of the true ten nearest, the share to find at least, above 0 and at most 1.
        memory_bytes: what first stages may take; None: as much as there is.

    Raises:
        RecipeError: the recall is out of its range.
    """

    recipe: str = AUTO
    recall: float = DEFAULT_RECALL
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise RecipeError(f"recall is {self.recall}; it must be above 0 and at most 1, such as {DEFAULT_RECALL}")


def check_recipe(said: str, dim: int) -> None:
    """Refuse a recipe that vectors of this length can never be searched by, however many there are.

    Raises:
        RecipeError
    """
    if said not in (AUTO, EXACT):
        empty_index(said, dim)


def read_settings(connection: sqlite3.Connection) -> SearchSettings:
    """What was asked for last, or the defaults."""
    said = dict(connection.execute("SELECT name, value FROM settings").fetchall())
    default = SearchSettings()
    memory = said.get("memory_bytes")
    return SearchSettings(
        said.get("recipe", default.recipe),
        float(said.get("recall", default.recall)),
        None if memory is None else int(memory),
    )


def write_settings(connection: sqlite3.Connection, settings: SearchSettings) -> None:
    """Keep what is asked for, inside the write transaction that the caller holds."""
    said = {"recipe": settings.recipe, "recall": settings.recall, "memory_bytes": settings.memory_bytes}
    connection.executemany("DELETE FROM settings WHERE name = ?", [(name,) for name in said])
    connection.executemany(
        "INSERT INTO settings VALUES (?, ?)", [(name, str(value)) for name, value in said.items() if value is not None]
    )
