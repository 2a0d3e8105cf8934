"""How long do blocks take at sizes between those that were measured?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwnas.latency.table import Row
from hwnas.supernet import BlockSpec


def interpolate_rows(
    blocks: Sequence[BlockSpec], measured: Sequence[BlockSpec], rows: dict[str, Row]
) -> dict[str, Row]:
    """Return rows of blocks that were not measured, linear in the edge of the feature map between those that were."""
    by_kind: dict[BlockSpec, dict[int, Row]] = {}
    for block in measured:
        by_kind.setdefault(replace(block, in_size_px=0), {})[block.in_size_px] = rows[block.signature]
    out = {}
    for block in blocks:
        if block.signature in rows:
            continue
        known = by_kind[replace(block, in_size_px=0)]
        sizes = sorted(known)
        median_ms = float(np.interp(block.in_size_px, sizes, [known[s].median_ms for s in sizes]))
        iqr_ms = float(np.interp(block.in_size_px, sizes, [known[s].iqr_ms for s in sizes]))
        out[block.signature] = Row(median_ms, iqr_ms, 0, "interpolated")
    return out
