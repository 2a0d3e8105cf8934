"""How do block tables of others become a device? Their keys are looked up for the blocks of a recipe.

Nothing is copied that the recipe does not need, and licence and source travel with the rows.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from hwnas.errors import TableError, UnreadableError, one_line, shown
from hwnas.latency.device import check_profile, device_name_of
from hwnas.latency.interpolate import interpolate_rows
from hwnas.latency.table import Device, Row, block_ops, load_device, read_rows, save_device
from hwnas.latency.units import MS_PER_UNIT, unit_warning
from hwnas.reading import TEXT_BYTES, parse_json, parse_yaml, read_text
from hwnas.supernet import BlockSpec, Layout
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.mbconv import MBConvSpec
from hwnas.supernet.families.builder import size_after
from hwnas.supernet.slot_sum import distinct_blocks

TableFormat = Literal["once-for-all", "nn-meter", "nsganetv2", "csv"]
FORMATS: tuple[str, ...] = get_args(TableFormat)
UNIT_YARDSTICK = "note10-cpu"
"""Shipped device whose cost model says whether the values are milliseconds at all."""

Keys = Sequence[Sequence[str]]
"""Parts that a block is the sum of; of each part, the names it may have."""


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
        TableError: another format, damaged values, rows that disagree, or no block of the space is in the file.
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
    reachable = [b for b in blocks if _between(b, known)]
    rows |= interpolate_rows(reachable, known, rows)
    notes = []
    if len(reachable) > len(known):
        notes.append(f"{len(reachable) - len(known)} of {len(blocks)} blocks are interpolated between measured sizes.")
    if missing := [b for b in blocks if b.signature not in rows]:
        sizes = _resolutions(layout, {b.signature for b in missing})
        notes.append(
            f"{len(missing)} of {len(blocks)} blocks of the recipe are not in the file; networks at resolutions "
            f"{', '.join(map(str, sizes))} may lack a time."
        )
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
    if table_format == "csv":
        wanted = {b.signature for b in blocks}
        return {s: Row(r.median_ms * unit_ms, r.iqr_ms * unit_ms, r.n, "imported")
                for s, r in read_rows(path, plain=True).items() if s in wanted}  # fmt: skip
    keys_of: Callable[[BlockSpec], Keys | None] = {
        "once-for-all": once_for_all_keys, "nsganetv2": nsganetv2_keys, "nn-meter": nn_meter_keys,
    }[table_format]  # fmt: skip
    values = read_values(path)
    rows = {}
    for block in blocks:
        parts = keys_of(block)
        found = [next((values[k] for k in names if k in values), None) for names in parts or ()]
        if parts and None not in found:
            rows[block.signature] = Row(unit_ms * sum(v for v in found if v is not None), 0.0, 1, "imported")
    return rows


def _between(block: BlockSpec, known: Sequence[BlockSpec]) -> bool:
    """Whether a block, or the same at sizes on both sides, is known."""
    sizes = [k.in_size_px for k in known if replace(k, in_size_px=block.in_size_px) == block]
    return bool(sizes) and min(sizes) <= block.in_size_px <= max(sizes)


def _resolutions(layout: Layout, missing: set[str]) -> list[int]:
    """Resolutions at which a block is missing."""
    out = []
    for resolution in layout.space["resolution"].options:
        one = replace(layout, space=layout.space.restrict({"resolution": [resolution]}))
        if any(b.signature in missing for b in distinct_blocks(one)):
            out.append(int(str(resolution)))
    return out


# -- keys of others --------------------------------------------------------------------------------------


def _shape(size: int, channels: int) -> str:
    return f"{size}x{size}x{channels}"


def once_for_all_keys(block: BlockSpec) -> Keys | None:
    """Return the keys of once-for-all's tables for a block of a MobileNetV3; None where they have none.

    Shapes are height x width x channels; ``expand`` holds channels. The head is the sum of pooling, feature mix and
    classifier.
    """
    size = block.in_size_px
    if isinstance(block, MBConvSpec):
        out = size_after(size, (block.stride,))
        return [[
            f"expanded_conv-input:{_shape(size, block.in_channels)}-output:{_shape(out, block.out_channels)}"
            f"-expand:{block.mid_channels}-kernel:{block.kernel_size}-stride:{block.stride}"
            f"-idskip:{int(block.residual)}-se:{int(block.se)}-hs:{int(block.act == 'hswish')}"
        ]]  # fmt: skip
    return _ends(block)


def nsganetv2_keys(block: BlockSpec) -> Keys | None:
    """Return the keys of NSGANetV2's tables; ``expand`` may be the ratio or the channels."""
    size = block.in_size_px
    if isinstance(block, MBConvSpec):
        out = size_after(size, (block.stride,))
        ratio = block.mid_channels / block.in_channels
        return [[
            f"MBConv-input:{_shape(size, block.in_channels)}-output:{_shape(out, block.out_channels)}"
            f"-expand:{expand}-kernel:{block.kernel_size}-stride:{block.stride}"
            f"-idskip:{int(block.residual)}-se:{int(block.se)}"
            for expand in (block.mid_channels, f"{ratio:g}")
        ]]  # fmt: skip
    return _ends(block)


def _ends(block: BlockSpec) -> Keys | None:
    """Stem, last expansion and head, which the once-for-all and the NSGANetV2 form share."""
    size = block.in_size_px
    if isinstance(block, ConvSpec):
        out = size_after(size, (block.stride,))
        kind = "Conv" if block.kernel_size > 1 else "Conv_1"
        return [[f"{kind}-input:{_shape(size, block.in_channels)}-output:{_shape(out, block.out_channels)}"]]
    if isinstance(block, HeadSpec):
        mixed = block.feature_channels or block.in_channels
        parts = [[f"AvgPool2D-input:{_shape(size, block.in_channels)}-output:{_shape(1, block.in_channels)}"]]
        if block.feature_channels:
            parts.append([f"Conv_2-input:{_shape(1, block.in_channels)}-output:{_shape(1, mixed)}"])
        return [*parts, [f"Logits-input:{_shape(1, mixed)}-output:{_shape(1, block.out_channels)}"]]
    return None


def nn_meter_keys(block: BlockSpec) -> Keys | None:
    """Return nn-Meter's block keys, in the form of its ONNX Runtime and of its phone tables."""
    size, cin, cout = block.in_size_px, block.in_channels, block.out_channels
    if isinstance(block, MBConvSpec):
        ratio = f"{block.mid_channels / cin:g}"
        kind = "MobileNetV3ResBlock" if block.se else "MobileNetV2ResBlock"
        act = "hard_swish" if block.act == "hswish" else block.act
        se = "se" if block.se else "nose"
        return [[
            f"{kind}_{size}_{cin}_{cout}_{block.kernel_size}_{ratio}_{block.stride}_{block.act}",
            f"conv_{size}_{cin}_{cout}_{ratio}_{block.stride}_{act}_{block.kernel_size}_{se}",
        ]]  # fmt: skip
    if isinstance(block, ConvSpec):
        kind = "FirstConvBlock" if block.kernel_size > 1 else "FinalExpandBlock"
        return [[
            f"{kind}_{size}_{cin}_{cout}_{block.kernel_size}_None_{block.stride}_{block.act}",
            f"firstconv_{size}_{cin}_{cout}_{block.stride}_{block.kernel_size}",
        ]]  # fmt: skip
    if isinstance(block, HeadSpec):
        mixed = block.feature_channels or cin
        parts = [[f"LogitsBlock_1_{mixed}_{cout}_None_None_None_None"]]
        if block.feature_channels:
            parts.append([f"FeatureMixBlock_{s}_{cin}_{mixed}_1_None_1_{block.act}" for s in (1, size)])
        return parts
    return None


# -- files -----------------------------------------------------------------------------------------------


def read_values(path: Path) -> dict[str, float]:
    """Read a mapping of keys to times: YAML or JSON (a number, or a mapping with ``mean``), or CSV of two columns.

    Of a folder all files are read, such as once-for-all's one table a resolution; a key that stands in several of them
    was timed several times, and its mean counts.

    Raises:
        TableError: it cannot be read, a value is not a positive number, or a key stands twice in one file with
            different values.
    """
    if path.is_dir():
        found: dict[str, list[float]] = {}
        for file in sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml", ".json", ".csv")):
            for key, value in read_values(file).items():
                found.setdefault(key, []).append(value)
        if not found:
            raise TableError(f"{path} holds no .yaml, .json or .csv tables")
        return {key: sum(values) / len(values) for key, values in found.items()}
    try:
        return _read_values(path, read_text(path))
    except UnreadableError as error:
        raise TableError(f"{path} cannot be read: {error.reason}; give the table as its tool wrote it") from None


def _read_values(path: Path, text: str) -> dict[str, float]:
    if path.suffix == ".csv":
        try:
            lines = [line for line in csv.reader(text.splitlines()) if line]
        except csv.Error as error:
            raise UnreadableError(str(path), f"it is no CSV: {error}") from None
        if not lines or len(lines[0]) < 2:
            raise TableError(f"{path} must have a column of keys and one of times")
        pairs: Iterable[tuple[Any, Any]] = [(line[0], line[1] if len(line) > 1 else "") for line in lines[1:]]
    elif path.suffix == ".json":
        pairs = _flat(parse_json(text, str(path), _Pairs))
    else:
        pairs = _flat(parse_yaml(text, str(path), TEXT_BYTES, _pairs_of))
    return _checked(path, pairs)


def _checked(path: Path, pairs: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    out: dict[str, float] = {}
    for key, given in pairs:
        key = one_line(str(key), 400)
        try:
            value = float(given)
        except (TypeError, ValueError, OverflowError):
            raise TableError(f"{path}: {key} has {shown(given)}, which is no time") from None
        if not (math.isfinite(value) and value > 0):
            raise TableError(f"{path}: {key} has {value}; times must be positive numbers")
        if out.setdefault(str(key), value) != value:
            raise TableError(f"{path}: {key} stands twice, with {out[str(key)]} and {value}; keep the right one")
    if not out:
        raise TableError(f"{path} holds no times")
    return out


class _Pairs(list[tuple[Any, Any]]):
    """A mapping whose repeated keys are kept."""


def _flat(value: Any) -> list[tuple[Any, Any]]:
    """Pairs of keys and times; tables may lie in a mapping, and a time in a mapping with ``mean``."""
    if not isinstance(value, _Pairs):
        return []
    out: list[tuple[Any, Any]] = []
    for key, inner in value:
        if isinstance(inner, _Pairs):
            entry: Mapping[Any, Any] = dict(inner)
            if "mean" in entry or "latency" in entry:
                out.append((key, entry.get("mean", entry.get("latency"))))
            else:
                out += _flat(inner)
        else:
            out.append((key, inner))
    return out


def _pairs_of(loader: Any, node: yaml.Node) -> Any:
    """Values of a YAML node with repeated keys kept, which YAML would silently drop."""
    if isinstance(node, yaml.MappingNode):
        return _Pairs((_pairs_of(loader, key), _pairs_of(loader, value)) for key, value in node.value)
    return loader.construct_object(node, deep=True)
