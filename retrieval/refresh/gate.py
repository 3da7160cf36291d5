"""May a candidate take the live model's place? What it must reach on pictures that it never trained on."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from retrieval.errors import RefreshError
from retrieval.results import METRIC_TITLES

DEFAULT_GATE = "recall_at_1 >= current"

_CONDITION = re.compile(r"(\w+)\s*(>=|>)\s*(?:(current)\s*(?:([+-])\s*(\d*\.?\d+))?|(\d*\.?\d+))")
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {">=": operator.ge, ">": operator.gt}


@dataclass(frozen=True, slots=True)
class Condition:
    """One figure and what it must reach.

    Attributes:
        figure: a name of `METRIC_TITLES`.
        comparison: ">=" or ">".
        is_relative: `value` is added to the live model's figure.
        value: in the figure's units, 0 to 1.
    """

    figure: str
    comparison: str
    is_relative: bool
    value: float

    def limit(self, current: Mapping[str, float]) -> float:
        """What must be reached, given the live model's figures."""
        return self.value + (current[self.figure] if self.is_relative else 0.0)

    def is_met(self, candidate: Mapping[str, float], current: Mapping[str, float]) -> bool:
        """Whether the candidate's figure reaches it."""
        return _COMPARE[self.comparison](candidate[self.figure], self.limit(current))


@dataclass(frozen=True, slots=True)
class Gate:
    """All that must be met.

    Attributes:
        text: as it was given.
        conditions: of it.
    """

    text: str
    conditions: tuple[Condition, ...]

    def unmet(self, candidate: Mapping[str, float], current: Mapping[str, float]) -> list[str]:
        """What is not reached, in words; empty where the candidate may go live.

        Args:
            candidate, current: figures by the names of `METRIC_TITLES`, on the same queries.
        """
        return [
            f"{one.figure} is {candidate[one.figure]:.4f}, {one.comparison} {one.limit(current):.4f} is asked for"
            for one in self.conditions
            if not one.is_met(candidate, current)
        ]


def parse_gate(text: str) -> Gate:
    """Read `FIGURE >= current`, `FIGURE > current + 0.01`, `FIGURE >= 0.9`, or several of them joined by `and`.

    Raises:
        RefreshError: names what is not understood, and where.
    """
    return Gate(text, tuple(_condition(part, text) for part in re.split(r"\band\b", text)))


def _condition(part: str, text: str) -> Condition:
    found = _CONDITION.fullmatch(part.strip())
    if found is None:
        raise RefreshError(
            f'gate "{text}": "{part.strip()}" is no condition; write "FIGURE >= current", "FIGURE >= current + 0.01" '
            'or "FIGURE >= 0.9", several joined by "and"'
        )
    figure, comparison, current, sign, offset, absolute = found.groups()
    if figure not in METRIC_TITLES:
        raise RefreshError(f'gate "{text}": there is no figure "{figure}"; there are {", ".join(METRIC_TITLES)}')
    value = float(absolute or offset or 0.0)
    return Condition(figure, comparison, current is not None, -value if sign == "-" else value)
