"""What is one subnet?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hwnas.errors import SpaceError
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
        """Return the ``ks``/``e``/``d``/``r`` lists of once-for-all; absent blocks hold a legal filler."""
        blocks = _ofa_blocks(space)
        out: dict[str, Any] = {"ks": [], "e": [], "d": [], "r": self["resolution"]}
        for depth_name, names in blocks:
            out["d"].append(self[depth_name])
            for name in names:
                choice = space[name]
                option = self.get(name, choice.options[0])
                assert option is not None
                out["ks"].append(choice.field_value(option, "kernel_size"))
                out["e"].append(choice.field_value(option, "expand_ratio"))
        return out

    @classmethod
    def from_ofa(cls, config: Mapping[str, Any], space: SearchSpace) -> Arch:
        """Read the once-for-all dialect: ``ks`` and ``e`` for every block slot, ``d`` per stage, ``r`` pixels.

        Args:
            config: the lists; entries of blocks beyond a stage's depth are ignored. ``r`` may be a
                number or a list of one; it may be left out where the space has one resolution.
            space: a space of stages with ``kernel_size`` and ``expand_ratio``.

        Raises:
            SpaceError: a list of the wrong length, an unknown key, or a value the space does not have.
        """
        blocks = _ofa_blocks(space)
        n_slots = sum(len(names) for _, names in blocks)
        config = {k: v for k, v in config.items() if not (k == "w" or k == "wid")}
        if unknown := sorted(set(config) - {"ks", "e", "d", "r", "image_size"}):
            raise SpaceError(f"unknown keys {unknown} in an OFA config; known are ks, e, d, r")
        resolution = config.get("r", config.get("image_size"))
        if isinstance(resolution, Sequence) and not isinstance(resolution, str):
            resolution = resolution[0]
        if resolution is None:
            if len(space["resolution"].options) > 1:
                raise SpaceError(f"the OFA config has no r; choose one of {list(space['resolution'].options)}")
            resolution = space["resolution"].options[0]
        for name, length in (("ks", n_slots), ("e", n_slots), ("d", len(blocks))):
            if name not in config or len(config[name]) != length:
                given = len(config[name]) if name in config else "none"
                raise SpaceError(f"the OFA config needs {length} entries in {name!r}, got {given}")
        values: dict[str, Option] = {"resolution": resolution}
        slot = 0
        for (depth_name, names), depth in zip(blocks, config["d"], strict=True):
            values[depth_name] = depth
            for i, name in enumerate(names):
                if i < depth:
                    entries = {"kernel_size": config["ks"][slot], "expand_ratio": config["e"][slot]}
                    values[name] = tuple(entries[f] for f in space[name].fields)
                slot += 1
        return space.arch(values)


def _ofa_blocks(space: SearchSpace) -> list[tuple[str, list[str]]]:
    """Depth choice and block choices of every stage, or an error where the space has another form."""
    names = [c.name for c in space.choices]
    out: list[tuple[str, list[str]]] = []
    for depth_name in (n for n in names if n.endswith(".depth")):
        prefix = depth_name.removesuffix("depth") + "block"
        block_names = [n for n in names if n.startswith(prefix)]
        if any(set(space[n].fields) != {"kernel_size", "expand_ratio"} for n in block_names):
            out = []
            break
        out.append((depth_name, block_names))
    if not out or "resolution" not in names:
        raise SpaceError(
            "this space has no ks/e/d/r form: it needs a resolution, and stages of blocks with "
            "kernel_size and expand_ratio; use SearchSpace.arch with the choices by name"
        )
    return out
