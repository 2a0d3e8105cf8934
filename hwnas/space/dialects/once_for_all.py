"""How does once-for-all write an arch? Lists ``ks`` and ``e`` for every block slot, ``d`` per stage, ``r`` pixels.

ResNets have no ``ks``, but ``w``: the index of the width multiplier of stem and stages. Where supernets of several
widths stand side by side, ``wid`` is the index of the supernet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.errors import SpaceError, shown
from hwnas.space.arch import Arch
from hwnas.space.choice import WIDTH, Option
from hwnas.space.space import SearchSpace


def format_ofa(arch: Arch, space: SearchSpace) -> dict[str, Any]:
    """Return an arch as once-for-all writes it; absent blocks hold a legal filler.

    Raises:
        SpaceError: ``space`` has no stages of blocks with a kernel size or an expand ratio.
    """
    form = _Form.of(space)
    out: dict[str, Any] = {name: [] for name in form.lists}
    for depth_name, names in form.stages:
        out["d"].append(form.depth_out(arch[depth_name], names))
        for name in names:
            choice = space[name]
            option = arch.get(name, choice.options[0])
            assert option is not None
            for field_name in choice.fields:
                out[LISTS[field_name]].append(choice.field_value(option, field_name))
    for name in form.widths:
        out["w"].append(space[name].index(arch[name]))
    if WIDTH in space:
        out["wid"] = space[WIDTH].index(arch[WIDTH])
    out["r"] = arch["resolution"]
    return out


def parse_ofa(config: Mapping[str, Any], space: SearchSpace) -> Arch:
    """Read an arch that once-for-all wrote.

    Args:
        config: the lists; entries of blocks beyond a stage's depth are ignored. ``r`` may be a number or a list of one;
            it may be left out where the space has one resolution.
        space: a space of stages of blocks with a kernel size or an expand ratio.

    Raises:
        SpaceError: a list of the wrong length, an unknown key, or a value the space does not have.
    """
    form = _Form.of(space)
    if not isinstance(config, Mapping):
        raise SpaceError(f"an OFA config is a mapping of ks, e, d and r, got {shown(config)}")
    if unknown := sorted({str(name) for name in config} - {"ks", "e", "d", "w", "wid", "r", "image_size"}):
        raise SpaceError(f"unknown keys {unknown} in an OFA config; known are {', '.join((*form.lists, 'r'))}")
    resolution = config.get("r", config.get("image_size"))
    if isinstance(resolution, Sequence) and not isinstance(resolution, str):
        if len(resolution) != 1:
            raise SpaceError(f"the OFA config has r {shown(resolution)}; give one number")
        resolution = resolution[0]
    if resolution is None:
        if len(space["resolution"].options) > 1:
            raise SpaceError(f"the OFA config has no r; choose one of {list(space['resolution'].options)}")
        resolution = space["resolution"].options[0]
    for name, length in form.lists.items():
        given = config.get(name)
        if not isinstance(given, Sequence) or len(given) != length:
            entries = len(given) if isinstance(given, Sequence) else "none"
            raise SpaceError(f"the OFA config needs {length} entries in {name!r}, got {entries}")
    values: dict[str, Any] = {"resolution": resolution}
    slot = 0
    for (depth_name, names), depth in zip(form.stages, config["d"], strict=True):
        values[depth_name] = form.depth_in(depth, names)
        for name in names:
            fields = space[name].fields
            option = tuple(config[LISTS[f]][slot] for f in fields)
            if space[name].parent is None or values[depth_name] in space[name].active_for:
                values[name] = option if len(fields) > 1 else option[0]
            slot += 1
    for name, index in zip(form.widths, config.get("w", ()) if form.widths else (), strict=True):
        options = space[name].options
        if not isinstance(index, int) or not 0 <= index < len(options):
            raise SpaceError(f"the OFA config has {shown(index)} in 'w'; give numbers from 0 to {len(options) - 1}")
        values[name] = options[index]
    if WIDTH in space:
        options, index = space[WIDTH].options, config.get("wid")
        if not isinstance(index, int) or not 0 <= index < len(options):
            raise SpaceError(
                f"the OFA config has wid {shown(index)}; give 0 to {len(options) - 1}, for {list(options)}"
            )
        values[WIDTH] = options[index]
    return space.arch(values)


LISTS = {"kernel_size": "ks", "expand_ratio": "e"}


@dataclass(frozen=True)
class _Form:
    """How the choices of a space stand in the lists of once-for-all."""

    stages: tuple[tuple[str, tuple[str, ...]], ...]
    """Depth choice and block choices of every stage."""
    widths: tuple[str, ...]
    lists: dict[str, int]
    """Length of each list."""
    largest_depth: int

    @classmethod
    def of(cls, space: SearchSpace) -> _Form:
        names = [c.name for c in space.choices]
        stages = []
        for depth in (c for c in space.choices if c.fields == ("depth",)):
            stages.append((depth.name, tuple(c.name for c in space.choices if c.parent == depth.name)))
        blocks = [space[n] for _, found in stages for n in found]
        if not blocks or "resolution" not in names or any(set(b.fields) - set(LISTS) for b in blocks):
            raise SpaceError(
                "this space has no ks/e/d/r form: it needs a resolution, and stages of blocks with "
                "kernel_size or expand_ratio; use SearchSpace.arch with the choices by name"
            )
        widths = tuple(c.name for c in space.choices if c.fields == ("width",))
        lists = {
            short: len(blocks) for field_name, short in LISTS.items() if any(field_name in b.fields for b in blocks)
        }
        lists["d"] = len(stages)
        if widths:
            lists["w"] = len(widths)
        depths = [o for name, found in stages if found for o in space[name].options]
        return cls(tuple(stages), widths, lists, max(d for d in depths if isinstance(d, int)))

    def depth_in(self, depth: int, blocks: tuple[str, ...]) -> int:
        """A depth without blocks is the stem's, whose middle layer is kept where ``d`` is the largest of a stage."""
        return depth if blocks else int(depth == self.largest_depth)

    def depth_out(self, depth: Option, blocks: tuple[str, ...]) -> Option:
        return depth if blocks else (self.largest_depth if depth else 0)
