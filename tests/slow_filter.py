"""The slow obvious way to ask whether one picture meets a condition: look at its attributes, one after the other."""

from collections.abc import Mapping
from typing import Any

from indexer.conditions import Condition, Every, Missing, Not, OneOf, Some, Value


def slowly_meets(condition: Condition, fields: Mapping[str, Any]) -> bool:
    """Whether a picture with these fields, `key`, `product_id` and `label` among them, meets a condition."""
    if isinstance(condition, Every):
        return all(slowly_meets(part, fields) for part in condition.parts)
    if isinstance(condition, Some):
        return any(slowly_meets(part, fields) for part in condition.parts)
    if isinstance(condition, Not):
        return not slowly_meets(condition.part, fields)
    held = fields.get(condition.field)
    several = held if isinstance(held, list) else [held]
    if isinstance(condition, Missing):
        return (held is None) != condition.is_negated
    if held is None:
        return False
    if isinstance(condition, OneOf):
        return any(_is_equal(one, value) for one in several for value in condition.values) != condition.is_negated
    if condition.operator in ("=", "!="):
        return any(_is_equal(one, condition.value) for one in several) == (condition.operator == "=")
    return any(_is_in_order(one, condition.operator, condition.value) for one in several)


def _is_equal(held: Any, value: Value) -> bool:
    return _kind(held) == _kind(value) and held == value


def _is_in_order(held: Any, operator: str, value: Any) -> bool:
    if _kind(held) != _kind(value):
        return False
    if held == value:
        return operator in ("<=", ">=")
    return (held < value) == (operator in ("<", "<="))


def _kind(value: object) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__
