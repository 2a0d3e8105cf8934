"""The NAS-Bench-201 family: one cell of six edges, repeated in three stages of doubling width.

All cells of a network share their operators; every cell of the supernet has weights of its own for each operator of
each edge (single path). Dead edges, which do not change the output, are computed and counted as in the benchmark, so
params and MACs are the published ones; they are left out of exported files.

Reference:
    Dong and Yang, 2020, NAS-Bench-201 (ICLR), section 2.1; 16 channels, 5 cells a stage and 32x32 images are
    the published sizes, other sizes come from the recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from hwnas.space import Choice, SearchSpace
from hwnas.space.dialects.nasbench201 import EDGES, edge_name
from hwnas.supernet.blocks.cell import OPERATORS, CellOpSpec
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.norm_head import NormHeadSpec
from hwnas.supernet.blocks.reduction import ReductionSpec
from hwnas.supernet.families.builder import SlotBuilder
from hwnas.supernet.families.family import FamilyConfig, Layers, Positive
from hwnas.supernet.layout import Layout

N_STAGES = 3


class NASBench201Config(FamilyConfig):
    """Sizes of a nasbench201 supernet."""

    family: str
    """Name of the family."""
    stem_width: Positive = 16
    """Channels of the first stage; each later stage has twice as many."""
    cells_per_stage: Layers = 5
    """N of the benchmark."""
    dropout_percent: Annotated[int, Field(ge=0, lt=100)] = 0


class NASBench201:
    """The family ``nasbench201``; see `hwnas.supernet.families.family.Family`."""

    config = NASBench201Config

    @staticmethod
    def layout(config: NASBench201Config) -> Layout:
        """Return space and slots of a nasbench201 supernet; the space has ``5 ** 6`` archs for each resolution."""
        edges = [Choice(edge_name(i, j), OPERATORS, ("operator",)) for i, j in EDGES]
        # The first three edges make the inner nodes, the last three the cell's output.
        groups = tuple(tuple(c.name for c in part) for part in (edges[:3], edges[3:]))
        space = SearchSpace((Choice("resolution", config.resolutions), *edges), groups)
        builder = SlotBuilder(config.in_channels)
        width = config.stem_width
        builder.add("stem", (), lambda c, size: ConvSpec(c, config.stem_width, size, 3, 1, "none"), width, stage=0)
        for stage in range(1, N_STAGES + 1):
            if stage > 1:
                width *= 2
                builder.add(f"reduction{stage}", (), _reduction(width), width, 2)
            for cell in range(1, config.cells_per_stage + 1):
                for source, target in EDGES:
                    into = tuple(edge_name(i, target) for i in range(source + 1))
                    builder.add(f"stage{stage}.cell{cell}.{into[-1]}", into, _edge(source, target), width, stage=stage)
        builder.add("head", (), lambda c, size: NormHeadSpec(c, config.classes, size, config.dropout_percent), width)
        cell_edges = {edge_name(i, j): (i, j) for i, j in EDGES}
        return Layout(space, tuple(builder.slots), config.bn_eps, cell_edges=cell_edges)

    @staticmethod
    def scaled(config: NASBench201Config, width: float) -> NASBench201Config:
        """Return settings of another width.

        The arch of the last options is what one would take by hand: 3x3 convolutions on every edge.
        """
        return config.model_copy(update={"stem_width": max(1, round(config.stem_width * width))})


def _reduction(out_channels: int) -> Callable[[int, int], ReductionSpec]:
    return lambda channels, size_px: ReductionSpec(channels, out_channels, size_px)


def _edge(source: int, target: int) -> Callable[..., CellOpSpec | None]:
    """Return the function from channels, size and the target's operators so far to the edge's block.

    An edge with ``none`` is left out, unless it is the target's last and no other edge brings anything: nodes
    without input are zeros.
    """

    def make(channels: int, size_px: int, *operators: str) -> CellOpSpec | None:
        *before, own = operators
        adds = any(name != "none" for name in before)
        if own == "none" and (adds or source < target - 1):
            return None
        return CellOpSpec(channels, channels, size_px, own, adds, source, target)

    return make
