"""What is one subnet?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hwnas.errors import SpaceError
from hwnas.space.cell_text import format_cell, parse_cell
from hwnas.space.choice import Option

if TYPE_CHECKING:
    from hwnas.space.space import SearchSpace


@dataclass(frozen=True)
class Arch:
    """One subnet, in canonical form: equal archs are equal networks.

    Choices that the arch switches off (the kernel size of a skipped block, say) do not exist in it.
    Make one with `SearchSpace.arch`, `SearchSpace.decode`, `SearchSpace.sample` or `Arch.from_ofa`.
    """

    items: tuple[tuple[str, Option], ...]
    """``(choice name, option)`` of every active choice, in the order of the space."""
    space: SearchSpace | None = field(default=None, compare=False, repr=False)
    """The space it was made in; not part of its identity."""

    @cached_property
    def _by_name(self) -> dict[str, Option]:
        return dict(self.items)

    @cached_property
    def key(self) -> str:
        """Twelve hexadecimal digits that name this arch in files and tables; stable over versions."""
        text = json.dumps(self.items, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __hash__(self) -> int:
        return hash(self.items)

    def __getitem__(self, name: str) -> Option:
        try:
            return self._by_name[name]
        except KeyError:
            raise SpaceError(f"{name!r} is not an active choice of arch {self.key}; active: {list(self)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def get(self, name: str, default: Option | None = None) -> Option | None:
        """Return the option of choice ``name``, or ``default`` where the choice is not active."""
        return self._by_name.get(name, default)

    def int(self, name: str) -> int:
        """Return the option of ``name`` as an integer."""
        value = self[name]
        if not isinstance(value, int):
            raise SpaceError(f"choice {name!r} of arch {self.key} is {value!r}, not an integer")
        return value

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values by choice name; `SearchSpace.arch` reads them back."""
        return {n: list(o) if isinstance(o, tuple) else o for n, o in self.items}

    def as_ofa(self, space: SearchSpace) -> dict[str, Any]:
        """Return the ``ks``/``e``/``d``/``r`` (and ``w``) of once-for-all; absent blocks hold a legal filler."""
        form = _OfaForm.of(space)
        out: dict[str, Any] = {name: [] for name in form.lists}
        for depth_name, names in form.stages:
            out["d"].append(form.depth_out(self[depth_name], depth_name))
            for name in names:
                choice = space[name]
                option = self.get(name, choice.options[0])
                assert option is not None
                for field_name in choice.fields:
                    out[OFA_LISTS[field_name]].append(choice.field_value(option, field_name))
        for name in form.widths:
            out["w"].append(space[name].index(self[name]))
        out["r"] = self["resolution"]
        return out

    @classmethod
    def from_ofa(cls, config: Mapping[str, Any], space: SearchSpace) -> Arch:
        """Read the once-for-all dialect: ``ks`` and ``e`` for every block slot, ``d`` per stage, ``r`` pixels.

        Args:
            config: the lists; entries of blocks beyond a stage's depth are ignored. ``r`` may be a number or a list of
                one; it may be left out where the space has one resolution. ResNets have no ``ks``, but ``w``: the
                index of the width multiplier of stem and stages.
            space: a space of stages of blocks with a kernel size or an expand ratio.

        Raises:
            SpaceError: a list of the wrong length, an unknown key, or a value the space does not have.
        """
        form = _OfaForm.of(space)
        if unknown := sorted(set(config) - {"ks", "e", "d", "w", "wid", "r", "image_size"}):
            raise SpaceError(f"unknown keys {unknown} in an OFA config; known are {', '.join((*form.lists, 'r'))}")
        resolution = config.get("r", config.get("image_size"))
        if isinstance(resolution, Sequence) and not isinstance(resolution, str):
            resolution = resolution[0]
        if resolution is None:
            if len(space["resolution"].options) > 1:
                raise SpaceError(f"the OFA config has no r; choose one of {list(space['resolution'].options)}")
            resolution = space["resolution"].options[0]
        for name, length in form.lists.items():
            given = config.get(name)
            if not isinstance(given, Sequence) or len(given) != length:
                shown = len(given) if isinstance(given, Sequence) else "none"
                raise SpaceError(f"the OFA config needs {length} entries in {name!r}, got {shown}")
        values: dict[str, Any] = {"resolution": resolution}
        slot = 0
        for (depth_name, names), depth in zip(form.stages, config["d"], strict=True):
            values[depth_name] = form.depth_in(depth, depth_name)
            for name in names:
                fields = space[name].fields
                entries = tuple(config[OFA_LISTS[f]][slot] for f in fields)
                if space[name].parent is None or values[depth_name] in space[name].active_for:
                    values[name] = entries if len(fields) > 1 else entries[0]
                slot += 1
        for name, index in zip(form.widths, config.get("w", ()) if form.widths else (), strict=True):
            values[name] = space[name].options[index]
        return space.arch(values)

    def as_nasbench201(self) -> str:
        """Return the cell as NAS-Bench-201 writes it, such as ``|nor_conv_3x3~0|+|...|``.

        Raises:
            SpaceError: the arch is not of a space with the six edges of such a cell.
        """
        return format_cell({name: str(self[name]) for name in self if name.startswith("edge")})

    @classmethod
    def from_nasbench201(cls, text: str, space: SearchSpace, resolution: Option | None = None) -> Arch:
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


OFA_LISTS = {"kernel_size": "ks", "expand_ratio": "e"}


@dataclass(frozen=True)
class _OfaForm:
    """How the choices of a space stand in the lists of once-for-all."""

    stages: tuple[tuple[str, tuple[str, ...]], ...]
    """Depth choice and block choices of every stage."""
    widths: tuple[str, ...]
    lists: dict[str, int]
    """Length of each list."""
    largest_depth: int

    @classmethod
    def of(cls, space: SearchSpace) -> _OfaForm:
        names = [c.name for c in space.choices]
        stages = []
        for depth_name in (n for n in names if n.endswith(".depth")):
            prefix = depth_name.removesuffix("depth") + "block"
            stages.append((depth_name, tuple(n for n in names if n.startswith(prefix))))
        blocks = [space[n] for _, found in stages for n in found]
        if not blocks or "resolution" not in names or any(set(b.fields) - set(OFA_LISTS) for b in blocks):
            raise SpaceError(
                "this space has no ks/e/d/r form: it needs a resolution, and stages of blocks with "
                "kernel_size or expand_ratio; use SearchSpace.arch with the choices by name"
            )
        widths = tuple(c.name for c in space.choices if c.fields == ("width",))
        lists = {
            short: len(blocks) for field_name, short in OFA_LISTS.items() if any(field_name in b.fields for b in blocks)
        }
        lists["d"] = len(stages)
        if widths:
            lists["w"] = len(widths)
        depths = [o for name, found in stages if found for o in space[name].options]
        return cls(tuple(stages), widths, lists, max(d for d in depths if isinstance(d, int)))

    def depth_in(self, depth: int, name: str) -> int:
        """once-for-all keeps the stem's middle layer exactly where its depth is the largest of any stage."""
        return int(depth == self.largest_depth) if name == "stem.depth" else depth

    def depth_out(self, depth: Option, name: str) -> Option:
        return (self.largest_depth if depth else 0) if name == "stem.depth" else depth
