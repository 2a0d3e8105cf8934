"""What is measured for a latency table? Which blocks, which whole networks, how often: planned before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hwnas.errors import RecipeError
from hwnas.latency.table import block_ops
from hwnas.space import Arch, SearchSpace
from hwnas.supernet import BlockSpec, Layout
from hwnas.supernet.slot_sum import distinct_blocks

MEASURED_RESOLUTIONS = 4
"""Of a space with more resolutions, so many are measured, and the others interpolated."""

MIN_DIVIDED = 6
"""Of a space with fewer networks, all are fitted to, and no error is published."""


class TableConfig(BaseModel):
    """How much is measured for a table."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    n_networks: int = Field(default=40, ge=6, le=10_000)
    """Whole networks that correct the sum of blocks."""
    n_held_out: int = Field(default=20, ge=4, le=10_000)
    """Further whole networks on which the error is published."""
    rounds: int = Field(default=10, ge=1, le=10_000)
    """Passes over everything, each in fresh sessions."""
    block_time_s: float = Field(default=0.006, gt=0, le=3600)
    """Time for one block in one pass."""
    network_time_s: float = Field(default=0.012, gt=0, le=3600)
    """Time for one whole network in one pass."""
    resolutions: tuple[int, ...] | None = None
    """Those that are measured; blocks at others are interpolated. None: all, or 4 of them where there are more."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the whole networks."""


def measured_resolutions(space: SearchSpace, config: TableConfig) -> tuple[int, ...]:
    """Return the resolutions whose blocks are measured, ascending; the smallest and largest are among them.

    Raises:
        RecipeError: those asked for are not in the space, or leave out its ends.
    """
    options = sorted(int(str(r)) for r in space["resolution"].options)
    if config.resolutions is None:
        if len(options) <= MEASURED_RESOLUTIONS:
            return tuple(options)
        positions = np.linspace(0, len(options) - 1, MEASURED_RESOLUTIONS).round().astype(int)
        return tuple(options[i] for i in positions)
    asked = tuple(sorted(set(config.resolutions)))
    if not set(asked) <= set(options) or {options[0], options[-1]} - set(asked):
        raise RecipeError(
            f"tables.resolutions are {list(asked)}; take them from {options}, the smallest and largest among them"
        )
    return asked


@dataclass(frozen=True)
class Plan:
    """What a build measures."""

    layout: Layout
    blocks: tuple[BlockSpec, ...]
    """Every block of the space that runs an operator."""
    measured: tuple[BlockSpec, ...]
    fitted: tuple[Arch, ...]
    """Networks that the correction is fitted to; at measured resolutions."""
    held_out: tuple[Arch, ...]
    resolutions: tuple[int, ...]
    """Measured ones."""

    @property
    def archs(self) -> tuple[Arch, ...]:
        """All whole networks."""
        return self.fitted + self.held_out


def plan_build(layout: Layout, config: TableConfig) -> Plan:
    """Choose what is measured.

    Raises:
        RecipeError: resolutions that do not fit the space.
    """
    space = layout.space
    resolutions = measured_resolutions(space, config)
    others = [r for r in space["resolution"].options if r not in resolutions]
    near = space.restrict({"resolution": list(resolutions)})
    blocks = [b for b in distinct_blocks(layout) if block_ops(b)]
    known = set(distinct_blocks(replace(layout, space=near)))
    n_all = near.size
    n_fitted = config.n_networks
    if n_all < config.n_networks + 4:  # a third is kept to judge by, where that leaves enough to fit
        n_fitted = n_all if n_all < MIN_DIVIDED else -(-2 * n_all // 3)
    fitted = network_sample(near, n_fitted, config.seed, space)
    n_far = config.n_held_out // 2 if others else 0
    held_out = network_sample(near, config.n_held_out - n_far, config.seed + 1, space, fitted)
    if n_far:
        far = space.restrict({"resolution": others})
        held_out += network_sample(far, n_far, config.seed + 1, space, fitted)
    return Plan(
        layout, tuple(blocks), tuple(b for b in blocks if b in known), tuple(fitted), tuple(held_out), resolutions
    )


def network_sample(
    space: SearchSpace, n: int, seed: int, full: SearchSpace | None = None, without: Sequence[Arch] = (),
    ends: bool = True,
) -> list[Arch]:  # fmt: skip
    """Return at most ``n`` different archs, the smallest and largest first.

    Args:
        space: where they are taken from.
        n: how many.
        seed: of the sample.
        full: the space that they shall belong to, where ``space`` is a part of it.
        without: archs (of the full space) that are left out.
        ends: whether the smallest and the largest come first.
    """
    full = full or space
    found: dict[Arch, None] = {}
    candidates = [space.smallest(), space.largest()] if ends else []
    candidates += space.sample(np.random.default_rng(seed), 20 * n)
    left_out = set(without)
    for arch in candidates:
        if len(found) == n:
            break
        own = arch if full is space else full.arch(dict(arch.items))
        if own not in left_out:
            found[own] = None
    return list(found)
