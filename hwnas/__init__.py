"""hwnas: one supernet, and per target device a Pareto archive of real models.

Every public name is listed here and imported on first use, so that ``import hwnas`` and ``hwnas --help`` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwnas.errors import HwnasError as HwnasError
    from hwnas.export.bundle import load_model as load_model
    from hwnas.latency.profile import profile as profile
    from hwnas.latency.table import load_device as load_device
    from hwnas.objectives import Objective as Objective
    from hwnas.runs.recipe import load_recipe as load_recipe
    from hwnas.runs.run import open_run as open_run
    from hwnas.runs.run import run as run
    from hwnas.search.minimize import minimize as minimize
    from hwnas.space import Arch as Arch
    from hwnas.space import SearchSpace as SearchSpace
    from hwnas.supernet import build_supernet as build_supernet
    from hwnas.supernet import calibrate_bn as calibrate_bn
    from hwnas.supernet import extract_subnet as extract_subnet
    from hwnas.train import load_supernet as load_supernet

__version__ = "0.1.0"

_HOMES = {
    "Arch": "hwnas.space",
    "HwnasError": "hwnas.errors",
    "Objective": "hwnas.objectives",
    "SearchSpace": "hwnas.space",
    "build_supernet": "hwnas.supernet",
    "calibrate_bn": "hwnas.supernet",
    "extract_subnet": "hwnas.supernet",
    "load_device": "hwnas.latency.table",
    "load_model": "hwnas.export.bundle",
    "load_recipe": "hwnas.runs.recipe",
    "load_supernet": "hwnas.train",
    "minimize": "hwnas.search.minimize",
    "open_run": "hwnas.runs.run",
    "profile": "hwnas.latency.profile",
    "run": "hwnas.runs.run",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (a list of names, made from the mapping above)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hwnas' has no attribute {name!r}; its public names are {', '.join(sorted(_HOMES))}")


def __dir__() -> list[str]:
    return sorted(_HOMES)
