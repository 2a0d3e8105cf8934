"""An executor: what failed is tried again, as where a machine loses its network for a moment."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any


class Retry:
    """Works in this process; an item is given up after so many tries."""

    def __init__(self, tries: int = 2) -> None:
        self.tries = tries

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """Yield the results in the order of the items."""
        for item in items:
            yield self._tried(function, item)

    def _tried(self, function: Callable[[Any], Any], item: Any) -> Any:
        for left in range(self.tries - 1, -1, -1):
            try:
                return function(item)
            except ConnectionError:
                if not left:
                    raise
        raise ValueError(f"tries is {self.tries}; give at least 1")
