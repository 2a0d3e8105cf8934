"""How do block tables of others become a device? Their keys are looked up for the blocks of a recipe.

Nothing is copied that the recipe does not need, and licence and source travel with the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwnas.arguments import checked_arguments
from hwnas.errors import TableError
from hwnas.latency.device import check_profile, device_name_of
from hwnas.latency.interpolate import interpolate_rows
from hwnas.latency.keys import KEYS
from hwnas.latency.spreadsheet import read_table
from hwnas.latency.table import Device, Row, block_ops, load_device, save_device, signature_of
from hwnas.latency.units import MS_PER_UNIT, unit_warning
from hwnas.latency.values import read_values
from hwnas.supernet import BlockSpec, Layout
from hwnas.supernet.slot_sum import SlotSum, distinct_blocks

FORMATS = (*KEYS, "csv")
UNIT_YARDSTICK = "note10-cpu"
"""Shipped device whose cost model says whether the values are milliseconds at all."""


@checked_arguments
def import_table(
    layout: Layout, path: str | Path, table_format: str, source: str, licence: str, out: str | Path,
    name: str | None = None, unit: str = "ms", title: str | None = None,
) -> tuple[Device, list[str]]:  # fmt: skip
    """Read a table of others for the blocks of a space and write it as a device folder.

    Args:
        layout: the space whose blocks are looked up.
        path: the file; ``.yaml``, ``.json`` or ``.csv``; or a folder of them.
        table_format: one of `FORMATS`.
        source: whose measurements these are.
        licence: of the source.
        out: folder of the table; it becomes a device profile.
        name: of the device; default: that of the folder.
        unit: of the file's values: ``ms``, ``us`` or ``s``.
        title: the device in a few words; default: its name.

    Returns:
        The device, and what to know about it: blocks that are missing or interpolated, values in another unit.

    Raises:
        TableError: another format, damaged values, rows that disagree, or no network of the space can be priced.
        DeviceError: the name cannot be one of a device.
    """
    path, folder, name = Path(path), Path(out), device_name_of(out, name)
    if table_format not in FORMATS or unit not in MS_PER_UNIT:
        raise TableError(
            f"format {table_format!r} in {unit!r}: known are {', '.join(FORMATS)} in {', '.join(MS_PER_UNIT)}"
        )
    for what, text in (("source", source), ("licence", licence)):
        if not text.strip():
            raise TableError(
                f"say the {what} of {path} with --{what}; without it nobody can judge or share the numbers"
            )
    blocks = [b for b in distinct_blocks(layout) if block_ops(b)]
    rows = _rows(path, table_format, blocks, MS_PER_UNIT[unit])
    if not rows:
        raise TableError(f"{path} has no block of this recipe in the form of {table_format}; is it another supernet's?")
    known = [b for b in blocks if b.signature in rows]
    far = far_rows(known, rows)
    reachable = [b for b in blocks if _between(b, known)]
    rows |= interpolate_rows(reachable, known, rows)
    notes = []
    if len(reachable) > len(known):
        notes.append(f"{len(reachable) - len(known)} of {len(blocks)} blocks are interpolated between measured sizes.")
    if missing := [b for b in blocks if b.signature not in rows]:
        notes.append(_what_lacks(layout, blocks, missing, path))
    notes += [f"block [{b.signature}] takes {rows[b.signature].median_ms:.4g} ms, far from what it takes at the sizes "
              f"beside it ({expected_ms:.4g} ms); check it." for b, expected_ms in far]  # fmt: skip
    yardstick = load_device(UNIT_YARDSTICK)
    assert yardstick.profile.cost_model is not None
    values = [rows[b.signature].median_ms for b in known]
    if warning := unit_warning(known, values, yardstick.profile.cost_model, UNIT_YARDSTICK):
        notes.append(warning)
    profile = check_profile({
        "format": 1, "name": name, "title": title or name, "kind": "cpu", "runtime": "not stated by the source",
        "precision": "not stated by the source", "provider": None, "threads": None, "batch_size": 1,
        "origin": "imported", "source": source, "licence": licence, "error": None, "cost_model": None,
        "notes": ("A network is the sum of its blocks, as in the source.", *notes),
    }, f"profile of {name!r}")  # fmt: skip
    present = [b for b in blocks if b.signature in rows]
    save_device(Device(profile, rows), folder, present)
    return load_device(folder), notes


def _rows(path: Path, table_format: str, blocks: Sequence[BlockSpec], unit_ms: float) -> dict[str, Row]:
    """What the file has for the blocks of a recipe."""
    rows: dict[str, Row] = {}
    if table_format == "csv":
        wanted = {b.signature for b in blocks}
        table = read_table(path, ("kind", "median_ms"))
        values_ms = table.numbers("median_ms", "times")
        n_lines = len(table.lines)
        spreads_ms = table.numbers("iqr_ms", "times", or_zero=True) if "iqr_ms" in table.columns else [0.0] * n_lines
        counts = table.numbers("n", "whole numbers", what="counts") if "n" in table.columns else [1.0] * n_lines
        for line, ms, iqr_ms, n in zip(table.lines, values_ms, spreads_ms, counts, strict=True):
            signature = signature_of(line.cells)
            row = Row(ms * unit_ms, iqr_ms * unit_ms, int(n), "imported")
            if signature in wanted and rows.setdefault(signature, row) != row:
                raise TableError(f"{line.where}: block [{signature}] stands twice with different times")
        return rows
    values = read_values(path)
    for block in blocks:
        for form in KEYS[table_format](block):
            found = [next((values[k] for k in names if k in values), None) for names in form]
            if None not in found:
                rows[block.signature] = Row(unit_ms * sum(v for v in found if v is not None), 0.0, 1, "imported")
                break
    return rows


N_PRICED = 10_000
"""Random networks by which is told how many can be priced."""


def _what_lacks(layout: Layout, blocks: Sequence[BlockSpec], missing: Sequence[BlockSpec], path: Path) -> str:
    """Say which kinds of blocks lack, and how many networks can be priced.

    Raises:
        TableError: none can.
    """
    lacking = {b.signature for b in missing}
    kinds, of_all = Counter(b.kind for b in missing), Counter(b.kind for b in blocks)
    said = ", ".join(f"{n} of {of_all[kind]} {kind}" for kind, n in kinds.items())
    n_lacking = SlotSum.of(layout, lambda block: float(block.signature in lacking))
    space = layout.space
    archs = [space.smallest(), space.largest(), *space.sample(np.random.default_rng(0), N_PRICED)]
    can = n_lacking.of_archs(archs) == 0
    if not can.any():
        whole = [kind for kind, n in kinds.items() if n == of_all[kind]]
        what = f"every block of kind {', '.join(whole)} lacks" if whole else f"blocks lack ({said})"
        first = next(b for b in missing if not whole or b.kind in whole)
        raise TableError(
            f"{path}: no network of the recipe can be priced: {what}, such as [{first.signature}]; is it a table of "
            "this supernet, and the right --format?"
        )
    sizes = [r for r in space["resolution"].options if not can[[a["resolution"] == r for a in archs]].any()]
    at = f"; none at resolutions {', '.join(map(str, sizes))}" if sizes else ""
    return (
        f"{len(missing)} of {len(blocks)} blocks of the recipe are not in the file ({said}): about "
        f"{100 * can.mean():.3g} % of its networks can be priced{at}."
    )


FAR_RATIO = 2.0
"""A block is far from its neighbours where it takes this many times what they say."""


def far_rows(known: Sequence[BlockSpec], rows: Mapping[str, Row]) -> list[tuple[BlockSpec, float]]:
    """Return blocks that take far longer or shorter than the same at the sizes beside them, and what these say.

    Only blocks with a smaller and a larger one are judged; between, times follow a power of the size.
    """
    families: dict[BlockSpec, list[BlockSpec]] = {}
    for block in known:
        families.setdefault(replace(block, in_size_px=0), []).append(block)
    found = []
    for family in families.values():
        family.sort(key=lambda b: b.in_size_px)
        ms = [rows[b.signature].median_ms for b in family]
        for i in range(1, len(family) - 1):
            sizes = np.log([family[j].in_size_px for j in (i - 1, i, i + 1)])
            expected_ms = float(np.exp(np.interp(sizes[1], sizes[[0, 2]], np.log([ms[i - 1], ms[i + 1]]))))
            if not 1 / FAR_RATIO < ms[i] / expected_ms < FAR_RATIO:
                found.append((family[i], expected_ms))
    return found


def _between(block: BlockSpec, known: Sequence[BlockSpec]) -> bool:
    """Whether a block, or the same at sizes on both sides, is known."""
    sizes = [k.in_size_px for k in known if replace(k, in_size_px=block.in_size_px) == block]
    return bool(sizes) and min(sizes) <= block.in_size_px <= max(sizes)
