"""What are the models of a front made of, and what does each block cost on a device? Plain values for the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from hwnas.latency.cost_model import OpCost, kind_of
from hwnas.latency.table import Device, block_ops
from hwnas.report.data import Pieces
from hwnas.space import Arch
from hwnas.supernet import BlockSpec, Layout
from hwnas.supernet.layout import PRECISION
from hwnas.supernet.slot_sum import SlotSum

ASSUMED = "assumed"
"""With this word the source of an operator's constants begins that no measurement of such operators stands behind; see
latency_tables/README.md."""


def pieces_of(
    layout: Layout, archs: Iterable[Arch], by_layer: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> tuple[list[BlockSpec], dict[str, Pieces]]:
    """Return every different block of some archs, and each arch as numbers of its blocks.

    Args:
        layout: of the archs.
        archs: such as those of all fronts.
        by_layer: by the arch's key: values that are known for each slot or layer, by their name.
    """
    numbers: dict[BlockSpec, int] = {}
    pieces = {}
    for arch in archs:
        blocks = [(slot, numbers.setdefault(spec, len(numbers))) for slot, spec in layout.blocks(arch)]
        pieces[arch.key] = Pieces(blocks, by_layer.get(arch.key, {}), arch.get(PRECISION) == "int8")
    return list(numbers), pieces


def by_layer_of(metrics: Mapping[str, object], layout: Layout) -> dict[str, dict[str, float]]:
    """Return what a bundle's numbers say of single slots or layers: every mapping from their names to numbers.

    A layer is called as in the network: by the slot's module, then by what is in it, such as ``stem.conv``.
    """
    slots = {slot.name for slot in layout.slots}
    modules = {slot.module_name for slot in layout.slots}
    return {
        name: {str(part): float(v) for part, v in values.items() if isinstance(v, int | float)}
        for name, values in metrics.items()
        if isinstance(values, Mapping) and values
        and all(str(part) in slots or str(part).split(".")[0] in modules for part in values)
    }  # fmt: skip


def unfitted_shares(layout: Layout, device: Device, archs: Sequence[Arch]) -> list[float]:
    """Return for each arch the share (0 to 1) of its latency that is outside of what the profile was fitted to.

    That are operators whose constants are assumptions, and blocks whose time was interpolated between measured sizes.
    """
    total = device.compile(layout).of_archs(archs)
    outside = device.in_each_precision(
        layout, lambda one: SlotSum.of(layout, lambda block: _unfitted_ms(one, block))
    ).of_archs(archs)
    return [float(share) for share in np.clip(outside / np.maximum(total, 1e-12), 0.0, 1.0)]


def _unfitted_ms(device: Device, block: BlockSpec) -> float:
    row, model = device.rows.get(block.signature), device.profile.cost_model
    if row is not None:
        return max(0.0, device.block_ms(block)) if row.origin == "interpolated" else 0.0
    if model is None:
        return 0.0
    return sum(
        model.op_ms(op)
        for op in block_ops(block)
        if model.ops.get(kind_of(op), model.ops.get(op.type, _UNKNOWN)).source.startswith(ASSUMED)
    )


_UNKNOWN = OpCost(fused=True, source="unknown")
"""Of an operator without constants, which is an error before it comes here."""
