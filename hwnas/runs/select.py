"""How does a user say which models of a front are meant? One grammar, on the command line and in Python.

``RULE``, or ``RULE:LIMIT,LIMIT``: the rule picks among the models that keep the limits.

| rule | picks |
|---|---|
| ``best``, ``fastest``, ``knee``, ``all`` | the best score; the least latency; nearest to both at once; every model |
| ``least:VALUE``, ``most:VALUE`` | the model of the smallest or largest value, such as ``least:params`` |
| ``weights:VALUE=W,VALUE=W`` | the model whose place between best and worst fits the weights (pseudo-weights) |
| ``different:K`` | the K models that are most different |
| first digits of a key | that model |

Limits are those of `hwnas.Limit`; one that names a device, as ``best:local-cpu:latency_ms<=1``, makes a selection that
chooses on that device only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SearchError, shown
from hwnas.pareto import knee, most_different, pseudo_weights
from hwnas.search.limits import Limit, check_limits, limits_for

FloatArray = NDArray[np.float64]

PLAIN = ("best", "fastest", "knee", "all")
"""Rules without an argument."""
WITH_ARGUMENT = {
    "least": "least:params", "most": "most:introspectability", "weights": "weights:top1_percent=2,latency_ms=1",
    "different": "different:4",
}  # fmt: skip
"""Rules with an argument, each with an example."""
_KEY = re.compile(r"[0-9a-f]{1,64}")
_LIMIT = re.compile(r"[<>]=")


class Model(Protocol):
    """What a selection looks at."""

    @property
    def key(self) -> str:
        """Of its arch."""
        ...

    def value(self, name: str) -> float:
        """Return a value by name; ``latency_ms`` is the measured latency where it is known."""
        ...


M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Selection:
    """A rule with its argument, and the limits within which it picks."""

    rule: str
    """One of `PLAIN` or `WITH_ARGUMENT`, or ``key``."""
    argument: str
    """Such as ``params``; of ``key`` the first digits; empty: the rule has none."""
    limits: tuple[Limit, ...]
    text: str
    """As it was given."""

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Read a selection; see the grammar above.

        Raises:
            SearchError: an unknown rule, a rule without its argument, or a limit of another form.
        """
        rule, _, rest = (part.strip() for part in text.strip().partition(":"))
        argument = ""
        if rule in WITH_ARGUMENT:
            argument, _, rest = (part.strip() for part in rest.partition(":"))
            if not argument or _LIMIT.search(argument):
                raise SearchError(f"selection {shown(text)}: {rule} needs its argument, such as {WITH_ARGUMENT[rule]}")
        elif _KEY.fullmatch(rule):
            rule, argument = "key", rule
        elif rule not in PLAIN:
            allowed = ", ".join([*PLAIN, *WITH_ARGUMENT.values()])
            raise SearchError(
                f"selection {shown(text)} is unknown; give {allowed}, or the first digits of a key, each with limits "
                "behind it where wanted, such as best:latency_ms<=1,params<=1e6"
            )
        limits = tuple(Limit.parse(part) for part in rest.split(",")) if rest else ()
        check_limits(limits)
        found = cls(rule, argument, limits, text.strip())
        if rule == "weights":
            found.weights()  # a mistake is found before anything is done
        if rule == "different":
            found.count()
        return found

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices that its limits name; empty: it chooses on every device."""
        return tuple(dict.fromkeys(limit.device for limit in self.limits if limit.device is not None))

    def is_for(self, device: str) -> bool:
        """Say whether it chooses on a device."""
        return not self.devices or device in self.devices

    def weights(self) -> dict[str, float]:
        """Return the pseudo-weights by value.

        Raises:
            SearchError: another form than ``VALUE=WEIGHT``, only one, or weights that are negative or all 0.
        """
        found: dict[str, float] = {}
        for part in self.argument.split(","):
            name, equals, number = (word.strip() for word in part.partition("="))
            try:
                found[name] = float(number)
            except ValueError:
                found[name] = math.nan
            if not equals or not name or not 0 <= found[name] < math.inf:
                raise SearchError(
                    f"selection {shown(self.text)}: {shown(part)} is no weight; give them as {WITH_ARGUMENT['weights']}"
                )
        if len(found) < 2:
            raise SearchError(
                f"selection {shown(self.text)}: one weight alone weighs nothing; give two or more, or least:VALUE or "
                "most:VALUE"
            )
        if not sum(found.values()):
            raise SearchError(f"selection {shown(self.text)}: every weight is 0; give one that is larger")
        return found

    def count(self) -> int:
        """Return how many models ``different`` picks.

        Raises:
            SearchError: it is no whole number above 0.
        """
        if not self.argument.isdecimal() or not int(self.argument[:9]) > 0:
            raise SearchError(f"selection {shown(self.text)}: give how many as a whole number, such as different:4")
        return int(self.argument[:9])


@dataclass(frozen=True)
class Measures:
    """By what models of a front are compared."""

    score: str
    """Name of the task's score."""
    directions: Mapping[str, Literal["min", "max"]]
    """Of every value that a search looked at; of others less is better."""

    def losses(self, models: Sequence[Model], names: Sequence[str]) -> FloatArray:
        """Return ``(n, len(names))`` values, the smaller the better."""
        signs = [-1.0 if self.directions.get(name) == "max" else 1.0 for name in names]
        return np.array([[s * m.value(name) for s, name in zip(signs, names, strict=True)] for m in models])


def selected(models: Sequence[M], selection: Selection, device: str, measures: Measures) -> list[M]:
    """Return the models of one front that a selection means, in the front's order; none where it is not for the device.

    Args:
        models: of the front.
        selection: what is meant.
        device: whose front it is.
        measures: by what models are compared.

    Raises:
        SearchError: the front is empty, models have no such value, or none keeps the limits (it says how near they
            come). A key that no model has is no error.
    """
    if not selection.is_for(device):
        return []
    if not models:
        raise SearchError(f"the front of {device} is empty; search it with `hwnas search`")
    kept = within(models, selection.limits, device)
    losses = measures.losses(kept, (measures.score, "latency_ms"))
    match selection.rule:
        case "all":
            return kept
        case "key":
            return [m for m in kept if m.key.startswith(selection.argument)]
        case "best":
            return [kept[int(np.lexsort((losses[:, 1], losses[:, 0]))[0])]]
        case "fastest":
            return [kept[int(np.argmin(losses[:, 1]))]]
        case "knee":
            return [kept[knee(losses)]]
        case "least" | "most":
            sign = 1.0 if selection.rule == "least" else -1.0
            return [min(kept, key=lambda m: sign * m.value(selection.argument))]
        case "weights":
            weights = selection.weights()
            found = pseudo_weights(measures.losses(kept, tuple(weights)))
            wanted = np.array(list(weights.values())) / sum(weights.values())
            return [kept[int(np.argmin(np.abs(found - wanted).sum(axis=1)))]]
        case _:
            every = tuple(dict.fromkeys([measures.score, "latency_ms", *measures.directions]))
            return [kept[i] for i in most_different(measures.losses(kept, every), selection.count())]


def within(models: Sequence[M], limits: Sequence[Limit], device: str) -> list[M]:
    """Return the models that keep the limits which hold for a device.

    Raises:
        SearchError: none does; it says how near they come.
    """
    kept = list(models)
    for limit in limits_for(tuple(limits), device):
        known = {m.key: m.value(limit.value) for m in kept}
        left = [m for m in kept if limit.holds(known[m.key])]
        if not left:
            best = (min if limit.comparison == "<=" else max)(known.values(), default=math.nan)
            raise SearchError(f"no model of {device} keeps {limit}; the nearest has {best:.6g}")
        kept = left
    return kept
