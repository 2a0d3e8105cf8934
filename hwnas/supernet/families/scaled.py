"""What would one do by hand? A family's network at another size, all of it scaled alike."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from hwnas.space import Arch
from hwnas.supernet.families.family import FAMILIES, FamilyConfig
from hwnas.supernet.layout import Layout


@runtime_checkable
class Scalable(Protocol):
    """What a family also has whose networks can be scaled beyond its space."""

    def scaled(self, config: FamilyConfig, width: float) -> FamilyConfig:
        """Return settings of one network, ``width`` times as wide as the supernet's blocks."""
        ...


def scaled_by_hand(config: FamilyConfig, width: float) -> tuple[Layout, Arch]:
    """Return the layout and the arch of a network of a family, scaled evenly.

    A family that has no ``scaled`` gives the arch of its space whose options all stand at the share ``width`` of their
    range: 0 the smallest, 1 the largest.
    """
    family = FAMILIES.get(config.family)
    if isinstance(family, Scalable):
        layout = family.layout(family.scaled(config, width))
        return layout, layout.space.largest()
    layout = family.layout(config)
    space = layout.space
    genome = np.round(min(1.0, width) * (space.n_options - 1)).astype(np.int64)
    genome[space.position("resolution")] = len(space["resolution"].options) - 1
    return layout, space.decode(space.canonical(genome[None])[0])
