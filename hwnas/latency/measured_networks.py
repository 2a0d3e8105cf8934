"""Which networks did somebody time, and what are they? A CSV file names them in one of three ways.

``latency_ms`` and, in each row, one of ``arch`` (JSON, an arch of a recipe), ``network`` (a name in a list of
operators, see `hwnas.latency.op_lists`) or ``file`` (an ONNX file beside the CSV file). ``family`` and
``normalises_input`` (yes or no: the network normalises its image itself, channel by channel) may stand beside them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import HwnasError, SpaceError, TableError, UnreadableError, escaped, shown
from hwnas.export.onnx_ops import onnx_ops
from hwnas.export.op import Op
from hwnas.latency.cost_model import OpKind, kind_of
from hwnas.latency.op_lists import read_op_lists
from hwnas.latency.spreadsheet import Line, read_table
from hwnas.latency.table import block_ops
from hwnas.reading import inside, made_of, parse_json
from hwnas.space import Arch
from hwnas.space.dialects.once_for_all import parse_ofa
from hwnas.supernet import Layout

MIN_NETWORKS = 5
LEAST_MS, LARGEST_MS = 1e-6, 1e9
"""Of a network: from a nanosecond to twelve days."""
NAMING = ("arch", "network", "file")
"""Columns that name a network; the first that is filled counts."""

MAIN_KINDS: Mapping[OpKind, str] = {
    "pointwise_conv": "1x1 convolutions", "conv": "larger convolutions", "depthwise_conv": "depthwise convolutions",
}  # fmt: skip
"""What takes most of the time of the networks that are searched."""

_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False, "": False}


@dataclass(frozen=True)
class MeasuredNetwork:
    """A network and its latency on a device."""

    name: str
    ops: tuple[Op, ...]
    latency_ms: float
    family: str = ""
    """What it is akin to; empty: not known."""
    normalises_input: bool = False
    """Whether it normalises its image itself, channel by channel."""
    arch: Arch | None = None
    """Which arch it is of the space that the profile is made for; None: a network of others."""


def of_archs(layout: Layout, archs: Sequence[Arch], latency_ms: NDArray[np.float64]) -> list[MeasuredNetwork]:
    """Return archs of a recipe, with their latencies, as networks."""
    return [
        MeasuredNetwork(arch.key, arch_ops(layout, arch), float(ms), arch=arch)
        for arch, ms in zip(archs, latency_ms, strict=True)
    ]


def arch_ops(layout: Layout, arch: Arch) -> tuple[Op, ...]:
    """Return the operators of an arch, block after block."""
    return tuple(op for _, block in layout.blocks(arch) for op in block_ops(block))


def read_measured(
    path: Path, layout: Layout | None = None, operators: Path | None = None, ms_per_unit: float = 1.0,
    family_of: Callable[[str], str] | None = None,
) -> list[MeasuredNetwork]:  # fmt: skip
    """Read networks and latencies; see the head of this file for the form.

    Args:
        path: the CSV file.
        layout: of the recipe whose archs it names; None: it names none.
        operators: list of operators of the networks that it names.
        ms_per_unit: milliseconds of one of its values.
        family_of: family of a network from its name, where the file does not say; default: the letters it begins with.

    Returns:
        Each network once.

    Raises:
        TableError: a missing column, a latency that is not a positive number, a network that is not known or not
            readable, or one that stands twice with different latencies.
    """
    table = read_table(path, ("latency_ms",))
    if not set(NAMING) & {c.lower() for c in table.columns}:
        raise TableError(f"{path} lacks a column that names networks; give one of {', '.join(NAMING)}")
    lists = {} if operators is None else read_op_lists(operators)
    found: dict[str, MeasuredNetwork] = {}
    for line, value in zip(table.lines, table.numbers("latency_ms", "milliseconds"), strict=True):
        latency_ms = value * ms_per_unit
        if not LEAST_MS <= latency_ms <= LARGEST_MS:
            raise TableError(f"{line.where}: latency_ms is {latency_ms:g} ms; give {LEAST_MS:g} to {LARGEST_MS:g} ms")
        one = _network(line, latency_ms, path.parent, layout, lists, operators, family_of or first_letters)
        known = found.setdefault(one.name, one)
        if known.latency_ms != one.latency_ms:
            what = "network" if one.arch is None else "arch"
            raise TableError(f"{line.where}: {what} {escaped(one.name)} stands twice with different latencies")
    if len(found) < MIN_NETWORKS:
        raise TableError(f"{path} has {len(found)} networks; time at least {MIN_NETWORKS}, better 10 to 20")
    return list(found.values())


def check_variety(networks: Sequence[MeasuredNetwork], where: str) -> None:
    """Raise where networks are too alike to say what a device takes for others.

    Raises:
        TableError: all are of one family, and archs of no recipe; what is missing is named.
    """
    families = {n.family for n in networks}
    if len(families) != 1 or any(n.arch is not None for n in networks):
        return
    kinds = {kind_of(op) for n in networks for op in n.ops}
    missing = [said for kind, said in MAIN_KINDS.items() if kind not in kinds]
    if missing:
        raise TableError(
            f"{where}: all {len(networks)} networks are of one family ({shown(families.pop(), 60)}), without "
            f"{' and '.join(missing)}: nothing says what those take; time networks of other families that have them"
        )


def first_letters(name: str) -> str:
    """Return the letters that a name begins with, in lower case: the family of ``resnet50_224`` is ``resnet``."""
    match = re.match(r"[A-Za-z]+", name)
    return match[0].lower() if match else ""


# -- inside ----------------------------------------------------------------------------------------------


def _network(
    line: Line, latency_ms: float, folder: Path, layout: Layout | None,
    lists: Mapping[str, tuple[Op, ...] | str], operators: Path | None, family_of: Callable[[str], str],
) -> MeasuredNetwork:  # fmt: skip
    cells = {name.lower(): text for name, text in line.cells.items()}
    arch, name, file = (cells.get(column, "") for column in NAMING)
    normalises = _YES_NO.get(cells.get("normalises_input", "").lower())
    if normalises is None:
        raise TableError(f"{line.where}: normalises_input is {shown(cells['normalises_input'], 40)}; write yes or no")
    if arch and (layout is not None or not (name or file)):
        if layout is None:
            raise TableError(f"{line.where}: names an arch; say of which recipe, such as --recipe digits-mbv3")
        made = _arch(arch, layout, line)
        return MeasuredNetwork(made.key, arch_ops(layout, made), latency_ms, cells.get("family", ""), normalises, made)
    if name:
        ops = _listed(name, lists, operators, line)
    elif file:
        name, ops = Path(file).stem, _of_file(folder, file, line)
    else:
        raise TableError(f"{line.where}: names no network; fill in one of {', '.join(NAMING)}")
    return MeasuredNetwork(name, ops, latency_ms, cells.get("family") or family_of(name), normalises)


def _arch(text: str, layout: Layout, line: Line) -> Arch:
    space = layout.space
    try:
        values = parse_json(text, line.where)
        with made_of(line.where):
            return parse_ofa(values, space) if "ks" in values else space.arch(values)
    except (SpaceError, UnreadableError) as error:
        reason = error.reason if isinstance(error, UnreadableError) else str(error)
        raise TableError(f"{line.where}: arch is none of this recipe: {reason}") from None


def _listed(
    name: str, lists: Mapping[str, tuple[Op, ...] | str], operators: Path | None, line: Line
) -> tuple[Op, ...]:  # fmt: skip
    if operators is None:
        raise TableError(f"{line.where}: names network {escaped(name)}; give the list of its operators (--operators)")
    if name not in lists:
        has = ", ".join(map(escaped, sorted(lists)))[:200]
        raise TableError(f"{line.where}: network {escaped(name)} is not in {operators}; it has {has}")
    ops = lists[name]
    if isinstance(ops, str):
        raise TableError(f"{line.where}: network {escaped(name)} cannot be fitted: {ops}; leave it out")
    return ops


def _of_file(folder: Path, name: str, line: Line) -> tuple[Op, ...]:
    try:
        path = inside(folder, name)
        if not path.is_file():
            raise TableError(f"{line.where}: {path} does not exist; file is looked for beside the CSV file")
        return tuple(onnx_ops(path))
    except HwnasError as error:
        raise TableError(f"{line.where}: {error}") from None
