"""When is a request sent again? Where nothing can have come of it, later and later, a few times."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

AGAIN = (429, 503)  # the server has done nothing yet


@dataclass(frozen=True)
class Retries:
    """How often, and how long to wait in between.

    Attributes:
        most: requests after the first.
        first_wait_s: before the second; twice as long before each next.
        longest_wait_s: at most, whatever the server says.
    """

    most: int = 4
    first_wait_s: float = 0.1
    longest_wait_s: float = 5.0

    def waits(self) -> Iterator[float]:
        """Seconds before each further request, each a little different from what other clients wait."""
        for number in range(self.most):
            yield min(self.longest_wait_s, self.first_wait_s * 2**number) * random.uniform(0.5, 1.0)

    def wait_of(self, own: float, retry_after: str | None) -> float:
        """As the server asks, if that is longer."""
        asked = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
        return min(self.longest_wait_s, max(own, asked))
