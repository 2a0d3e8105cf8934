"""How is a network read that somebody wrote down as a list of its operators?

One row an operator in order of execution: ``network``, ``type``, ``in_channels``, ``out_channels``, ``in_size_px``,
``out_size_px``, ``kernel_size``, ``stride``, ``groups``, ``n_inputs``; where something is not square also
``in_width_px``, ``out_width_px``, ``kernel_width``. Further columns are left alone. Batch norm that follows a
convolution is part of it and has no row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hwnas.errors import TableError, escaped, shown
from hwnas.export.op import Op, OpType
from hwnas.latency.cost_model import OP_TYPES
from hwnas.latency.spreadsheet import Line, read_table

NEEDED = ("network", "type", "in_channels", "out_channels", "in_size_px", "out_size_px")
OPTIONAL = {
    "kernel_size": 1, "stride": 1, "groups": 1, "n_inputs": 1, "in_width_px": 0, "out_width_px": 0, "kernel_width": 0,
}  # fmt: skip
"""Further columns, and what a row without them has."""

LARGEST = 2**24
"""Of channels, pixels and groups: beyond it products of them would not be exact."""

ALIKE: Mapping[str, OpType] = {"relu6": "relu", "silu": "hswish", "swish": "hswish", "gelu": "hswish"}
"""Types of others that move and compute like one of `OP_TYPES`."""


def read_op_lists(path: Path) -> dict[str, tuple[Op, ...] | str]:
    """Read networks by name.

    A network with an operator that is none of hwnas (attention, an LSTM) does not make the whole file useless: in its
    place stands what is the matter with it.

    Raises:
        TableError: the file cannot be read, lacks a column, has a size that is no whole number, or a network's rows
            stand in two places.
    """
    found: dict[str, list[Op]] = {}
    unknown: dict[str, str] = {}
    last = ""
    for line in read_table(path, NEEDED).lines:
        name, given = line.cells["network"], line.cells["type"].lower()
        if not name:
            raise TableError(f"{line.where}: network is empty; name the network that the operator belongs to")
        if name in found and name != last:
            raise TableError(
                f"{line.where}: the operators of network {escaped(name)} stand in two places; list a network once"
            )
        last = name
        op_type = ALIKE.get(given, given)
        ops = found.setdefault(name, [])
        if op_type not in OP_TYPES:
            unknown.setdefault(
                name, f"{line.where}: operator type {shown(given, 40)} is none of {', '.join((*OP_TYPES, *ALIKE))}"
            )  # fmt: skip
            continue
        ops.append(_op(op_type, line))
    return {name: unknown.get(name, tuple(ops)) for name, ops in found.items()}


def _op(op_type: OpType, line: Line) -> Op:
    sizes = {name: _whole(line, name, 1) for name in NEEDED[2:]}
    further = {name: _whole(line, name, min(usual, 1), usual) for name, usual in OPTIONAL.items()}
    for width, height in (("in_width_px", "in_size_px"), ("out_width_px", "out_size_px")):
        further[width] *= further[width] != sizes[height]
    further["kernel_width"] *= further["kernel_width"] != further["kernel_size"]
    if op_type == "conv" and 1 < further["groups"] == sizes["in_channels"]:
        op_type = "depthwise_conv"
    if op_type in ("conv", "depthwise_conv") and sizes["in_channels"] % further["groups"]:
        raise TableError(
            f"{line.where}: {sizes['in_channels']} channels cannot be divided into {further['groups']} groups"
        )
    return Op(op_type, **sizes, **further)


def _whole(line: Line, column: str, least: int, usual: int | None = None) -> int:
    text = line.cells.get(column, "")
    if not text and usual is not None:
        return usual
    known = text.isascii() and text.isdecimal() and len(text) < 20
    if not known or not least <= int(text) <= LARGEST:
        raise TableError(
            f"{line.where}: {column} is {shown(text, 40)}; give a whole number from {least} to {LARGEST:,}"
        )
    return int(text)
