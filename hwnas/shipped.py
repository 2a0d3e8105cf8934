"""Where are the data files that ship with hwnas: device profiles and supernet recipes?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hwnas.errors import OutputError


def shipped_folder(name: Literal["latency_tables", "supernets"]) -> Path:
    """Return the shipped data folder ``name``: beside the package in a checkout, inside it in a wheel.

    Raises:
        OutputError: neither place holds the folder; the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    places = (package / "shipped" / name, package.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise OutputError(f"the shipped folder {name!r} is at neither of {[str(p) for p in places]}; install hwnas again")
