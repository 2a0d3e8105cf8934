"""`hwnas doctor` and `hwnas plugins`: what this machine has."""

from __future__ import annotations

from hwnas.cli.options import Json
from hwnas.cli.output import show


def doctor(as_json: Json = False) -> None:
    """Say what this machine has, how quiet it is, and what is missing."""
    from hwnas.runs import doctor as facts

    found = facts.doctor()
    width = max(len(k) for k in found)
    show(as_json, found, "\n".join(f"{k:<{width}}  {v}" for k, v in found.items()))


def plugins(as_json: Json = False) -> None:
    """List the names of objectives, targets, sources, tasks, families, searchers, predictors and executors."""
    from hwnas.runs import plugins as registries

    found = registries.plugins()
    width = max(len(k) for k in found)
    text = "\n".join(f"{kind:<{width}}  {', '.join(names)}" for kind, names in found.items())
    show(as_json, found, f"{text}\n\none of your own: package.module:object, wherever a name stands")
