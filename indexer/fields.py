"""What can conditions be made of? Labels, products and the fields of the metadata, and what these commonly hold."""

import sqlite3
import sys
from dataclasses import dataclass, field

from indexer.conditions import BUILT_IN

SAMPLE = 50_000  # pictures: a tenth of a second
_MOST_TEXTS = 24
_MOST = sys.float_info.max
# Metadata that is not JSON, and numbers beyond floats, were once let in.
_VALUES = f"""
WITH newest AS (
    SELECT product_id, label, metadata FROM attributes WHERE until IS NULL ORDER BY picture_id DESC LIMIT {SAMPLE}
), held (name, type, value) AS (
    SELECT v.key, v.type, v.value FROM newest a, json_each(CASE WHEN json_valid(a.metadata) THEN a.metadata END) v
    WHERE v.type != 'null'
    AND (v.type NOT IN ('integer', 'real') OR v.value BETWEEN -{_MOST} AND {_MOST})
    AND v.key NOT IN ({", ".join(f"'{name}'" for name in BUILT_IN)})
    UNION ALL SELECT 'label', 'text', label FROM newest WHERE label IS NOT NULL
    UNION ALL SELECT 'product_id', 'text', product_id FROM newest WHERE product_id IS NOT NULL
)"""
_KINDS = {"integer": "number", "real": "number", "text": "text", "true": "boolean", "false": "boolean"}


@dataclass(slots=True)
class FieldSummary:
    """One field that pictures have.

    Attributes:
        name: of the field.
        kinds: of its values: "number", "text", "boolean", "list".
        pictures: of those that were looked at, how many have it.
        least, greatest: of its numbers; None where it has none.
        texts: the commonest, those first that the most pictures have.
    """

    name: str
    kinds: list[str] = field(default_factory=list)
    pictures: int = 0
    least: float | None = None
    greatest: float | None = None
    texts: list[str] = field(default_factory=list)


def summarise_fields(connection: sqlite3.Connection) -> list[FieldSummary]:
    """The fields of the newest `SAMPLE` pictures, by name, inside the read transaction that the caller holds."""
    found: dict[str, FieldSummary] = {}
    rows = connection.execute(f"{_VALUES} SELECT name, type, count(*), min(value), max(value) FROM held GROUP BY 1, 2")
    for name, kind, pictures, least, greatest in rows:
        one = found.setdefault(name, FieldSummary(name))
        one.pictures += pictures
        said = _KINDS.get(kind, "list")
        if said not in one.kinds:
            one.kinds.append(said)
        if said == "number":
            one.least = float(least) if one.least is None else min(one.least, float(least))
            one.greatest = float(greatest) if one.greatest is None else max(one.greatest, float(greatest))
    texts = connection.execute(
        f"{_VALUES} SELECT name, value, count(*) FROM held WHERE type = 'text' GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2"
    )
    for name, text, _ in texts:
        if len(found[name].texts) < _MOST_TEXTS:
            found[name].texts.append(text)
    return sorted(found.values(), key=lambda one: one.name)
