"""What does a condition say that is written as a text? A small grammar, read into a tree; no value is ever run.

    category = 'shoe' and price < 50 and (colour in ('red', 'blue') or [on sale] = true) and stock is not missing

A condition compares one field with values: `=`, `!=`, `<`, `<=`, `>`, `>=`, `in (...)`, `not in (...)`, `is missing`,
`is not missing`; `not`, `and`, `or`, in this order of strength, and parentheses join conditions. A field is `key`,
`product_id`, `label` or a name of the metadata, in brackets where it is not one word. Texts stand in single or double
quotes, a quote inside is doubled; numbers, `true` and `false` stand as they are.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from indexer.conditions import (
    MOST_DEPTH,
    OPERATORS,
    SYNONYMS,
    Compare,
    Condition,
    Every,
    Missing,
    Not,
    OneOf,
    Some,
    Value,
    joined,
)
from indexer.errors import FilterError

MOST_CHARACTERS = 100_000

_RESERVED = {"and", "or", "not", "in", "is", "missing", "true", "false"}
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")"
    r"|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))"
    r"|(?P<word>[^\W\d][\w.\-]*)"
    r"|(?P<name>\[[^\]]+\])"
    r"|(?P<sign><=|>=|!=|<>|==|[=<>(),])"
    r"|(?P<wrong>\S))"
)


def parse_filter(text: str) -> Condition:
    """Read a condition from a text; the grammar stands at the top of this module.

    Raises:
        FilterError: names what is not understood and where it stands, counted from 1.
    """
    if len(text) > MOST_CHARACTERS:
        raise FilterError(f"filter of {len(text)} characters; at most {MOST_CHARACTERS} are read, give a dict instead")
    parser = _Parser(text)
    condition = parser.some(0)
    if parser.next.kind != "end":
        parser.expected("`and`, `or` or the end")
    return condition


class _Token(NamedTuple):
    kind: str
    text: str  # as written; of a word in lower case
    at: int
    value: Value = ""  # of a text, a number, a name or a word


def _tokens(text: str) -> Iterator[_Token]:
    end = 0
    while found := _TOKEN.match(text, end):
        kind = found.lastgroup or ""
        said, start, end = found.group(kind), found.start(kind), found.end()
        if kind == "text":
            yield _Token(kind, said, start, said[1:-1].replace(said[0] * 2, said[0]))
        elif kind == "number":
            if math.isinf(float(said)):
                raise FilterError(f"filter, position {start + 1}: {said} is too large a number")
            yield _Token(kind, said, start, float(said))
        elif kind == "name":
            yield _Token("field", said, start, said[1:-1].strip())
        elif kind == "word":
            yield _Token("word" if said.lower() in _RESERVED else "field", said.lower(), start, said)
        elif kind == "sign":
            yield _Token(kind, SYNONYMS.get(said, said), start)
        elif said in "'\"[":
            what = "name" if said == "[" else "text"
            raise FilterError(f"filter, position {start + 1}: the {what} that begins here is never closed")
        else:
            raise FilterError(f"filter, position {start + 1}: {said!r} has no meaning; texts stand in quotes")
    yield _Token("end", "the end", len(text))


class _Parser:
    """One token ahead; each method reads one rule of the grammar, from the loosest to the tightest."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self.next = next(self._tokens)

    def some(self, depth: int) -> Condition:
        """Some rule: every {or every}."""
        return joined(Some, self._list_of(self._every, "or", depth))

    def _every(self, depth: int) -> Condition:
        return joined(Every, self._list_of(self._single, "and", depth))

    def _list_of(self, rule: Callable[[int], Condition], word: str, depth: int) -> list[Condition]:
        parts = [rule(depth)]
        while self._take("word", word):
            parts.append(rule(depth))
        return parts

    def _single(self, depth: int) -> Condition:
        if depth > MOST_DEPTH:
            self._fail(f"nested more than {MOST_DEPTH} deep; write it flatter")
        if self._take("word", "not"):
            return Not(self._single(depth + 1))
        if self._take("sign", "("):
            inner = self.some(depth + 1)
            self._need("sign", ")")
            return inner
        return self._comparison()

    def _comparison(self) -> Condition:
        at = self.next.at + 1
        name = str(self._need("field").value)
        if self._take("word", "is"):
            is_negated = self._take("word", "not")
            self._need("word", "missing")
            return Missing(name, is_negated, at)
        if self.next.text in ("not", "in") and self.next.kind == "word":
            is_negated = self._take("word", "not")
            self._need("word", "in")
            return OneOf(name, self._list(), is_negated, at)
        if self.next.text not in OPERATORS:
            self.expected("a comparison (=, !=, <, <=, >, >=, in, not in, is missing)")
        operator = self._advance().text
        value = self._value()
        if isinstance(value, bool) and operator not in ("=", "!="):
            raise FilterError(f"filter, position {at}: {operator} has no meaning with true and false; use = or !=")
        return Compare(name, operator, value, at)

    def _list(self) -> tuple[Value, ...]:
        self._need("sign", "(")
        values = [self._value()]
        while self._take("sign", ","):
            values.append(self._value())
        self._need("sign", ")")
        return tuple(values)

    def _value(self) -> Value:
        if self.next.kind in ("text", "number"):
            return self._advance().value
        if self.next.text in ("true", "false") and self.next.kind == "word":
            return self._advance().text == "true"
        self.expected("a value: a text in quotes, a number, true or false")

    def _advance(self) -> _Token:
        token, self.next = self.next, next(self._tokens, self.next)
        return token

    def _take(self, kind: str, text: str) -> bool:
        is_there = (self.next.kind, self.next.text) == (kind, text)
        if is_there:
            self._advance()
        return is_there

    def _need(self, kind: str, text: str | None = None) -> _Token:
        if self.next.kind != kind or text not in (None, self.next.text):
            self.expected("a field" if text is None else f"`{text}`")
        return self._advance()

    def expected(self, what: str) -> NoReturn:
        """Raise for the next token."""
        found = self.next.text if self.next.kind == "end" else repr(self.next.text[:40])
        self._fail(f"{what} expected, {found} found")

    def _fail(self, why: str) -> NoReturn:
        raise FilterError(f"filter, position {self.next.at + 1}: {why}")
