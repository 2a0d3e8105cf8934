"""How is a cell of NAS-Bench-201 written in one line?

``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``: nodes 1, 2, 3 are joined by ``+``; each lists its edges as
``operator~source``. This is the form of the benchmark's files (Dong and Yang, 2020).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hwnas.errors import SpaceError, shown
from hwnas.space.arch import Arch
from hwnas.space.choice import Option
from hwnas.space.space import SearchSpace

EDGES: tuple[tuple[int, int], ...] = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Source and target node of every edge, in the benchmark's order."""

EXAMPLE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"


def edge_name(source: int, target: int) -> str:
    """Return the name of an edge's choice."""
    return f"edge{source}to{target}"


def parse_cell(text: str) -> dict[str, str]:
    """Return the operator of every edge by the name of its choice.

    Raises:
        SpaceError: another form, or edges missing or out of order.
    """
    nodes = text.strip().split("+")
    found: dict[str, str] = {}
    for target, node in enumerate(nodes, 1):
        entries = re.fullmatch(r"\|((?:[^|~+]+~[0-9]{1,3}\|)+)", node)
        if entries is None:
            raise SpaceError(f"cell {shown(text)} is not of the form {EXAMPLE}")
        for entry in entries[1].rstrip("|").split("|"):
            operator, source = entry.split("~")
            found[edge_name(int(source), target)] = operator
    expected = [edge_name(*edge) for edge in EDGES]
    if list(found) != expected:
        raise SpaceError(f"cell {shown(text)} has edges {shown(list(found))}; it needs {expected}, as in {EXAMPLE}")
    return found


def format_cell(operators: Mapping[str, str]) -> str:
    """Write the operators of all edges, by the names of their choices, as `parse_cell` reads them."""
    nodes = ["".join(f"{operators[edge_name(i, j)]}~{i}|" for i, j in EDGES if j == target) for target in range(1, 4)]
    return "+".join(f"|{node}" for node in nodes)


def format_nasbench201(arch: Arch) -> str:
    """Return the cell of an arch as NAS-Bench-201 writes it, such as ``|nor_conv_3x3~0|+|...|``.

    Raises:
        SpaceError: the arch is not of a space with the six edges of such a cell.
    """
    names = [edge_name(*edge) for edge in EDGES]
    if missing := [name for name in names if name not in arch]:
        raise SpaceError(f"arch {arch.key} has no choice {missing[0]!r}; such cells have {', '.join(names)}")
    return format_cell({name: str(arch[name]) for name in names})


def parse_nasbench201(text: str, space: SearchSpace, resolution: Option | None = None) -> Arch:
    """Read a cell as NAS-Bench-201 writes it.

    Args:
        text: such as ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|``.
        space: of the family ``nasbench201``.
        resolution: pixels; may be left out where the space has one.

    Raises:
        SpaceError: another form, an unknown operator, or a space without such cells.
    """
    values: dict[str, Any] = dict(parse_cell(text))
    if "resolution" in space:
        options = space["resolution"].options
        if resolution is None and len(options) > 1:
            raise SpaceError(f"a cell says no resolution; choose one of {list(options)}")
        values["resolution"] = options[0] if resolution is None else resolution
    return space.arch(values)
