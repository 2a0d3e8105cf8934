"""Where a limit is read: ``latency_ms<=5``, for one device ``edge-tpu:latency_ms<=3``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hwnas.errors import SearchError

_FORM = re.compile(r"\s*(?:([^\s:<>=]+)\s*:\s*)?([A-Za-z_][\w.-]*)\s*(<=|>=)\s*(\S+)\s*")


@dataclass(frozen=True)
class Limit:
    """A hard bound on one value of an arch, be that value an objective or not."""

    device: str | None
    """The only device that it holds for; None: every device."""
    value: str
    """Name of the value, such as ``latency_ms`` or ``top1_percent``."""
    comparison: Literal["<=", ">="]
    bound: float
    """In the value's own unit; inside."""

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read ``VALUE<=NUMBER`` or ``VALUE>=NUMBER``, with ``DEVICE:`` before it for one device.

        Raises:
            SearchError: another form, or a bound that is not finite.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise SearchError(
                f"limit {text!r} is not of the form VALUE<=NUMBER or VALUE>=NUMBER, such as latency_ms<=5, "
                "or for one device edge-tpu:latency_ms<=5"
            )
        try:
            bound = float(match[4])
        except ValueError:
            bound = math.nan
        if not math.isfinite(bound):
            raise SearchError(f"limit {text!r}: {match[4]!r} is no finite number; give one without a unit, such as 3e4")
        return cls(match[1], match[2], "<=" if match[3] == "<=" else ">=", bound)

    def holds(self, number: float) -> bool:
        """Say whether a value of this name is within the limit; NaN is not."""
        return bool(number <= self.bound if self.comparison == "<=" else number >= self.bound)

    def __str__(self) -> str:
        device = "" if self.device is None else f"{self.device}:"
        return f"{device}{self.value}{self.comparison}{self.bound:.12g}"


def limits_for(limits: Sequence[Limit], device: str | None) -> tuple[Limit, ...]:
    """Return the limits that hold for ``device``: those of every device and its own, in their order.

    With ``None``, as where there are no devices, only those of every device.
    """
    return tuple(limit for limit in limits if limit.device in (None, device))


def check_limits(limits: Sequence[Limit]) -> None:
    """Raise where limits that hold for the same device contradict each other.

    Raises:
        SearchError: no number is within two of them; names both.
    """
    for device in dict.fromkeys(limit.device for limit in limits):
        mine = limits_for(limits, device)
        for value in dict.fromkeys(limit.value for limit in mine):
            of_value = [limit for limit in mine if limit.value == value]
            above = max((c for c in of_value if c.comparison == ">="), key=lambda c: c.bound, default=None)
            below = min((c for c in of_value if c.comparison == "<="), key=lambda c: c.bound, default=None)
            if above and below and above.bound > below.bound:
                raise SearchError(f"limits {above} and {below} contradict each other; drop or change one")
