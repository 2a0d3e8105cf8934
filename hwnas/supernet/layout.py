"""What is a network before it has weights? A space, and a sequence of slots with the block that an arch puts there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from hwnas.space import Arch, SearchSpace
from hwnas.supernet.blocks.block import BlockSpec, MultiInputBlock
from hwnas.supernet.blocks.layers import WithoutInitialisation, init_weights

PRECISION = "precision"
"""Choice of the number format in which a network computes; it is no part of the network, and of few spaces."""


class PlainNetwork(nn.Sequential):
    """A network without elastic layers: blocks one after the other, each child named by its slot.

    A `MultiInputBlock` among them also gets the earlier outputs of its stage.
    """

    stage_starts: frozenset[str] = frozenset()
    """Names of the children with which a stage begins."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, classes)``."""
        earlier: list[Tensor] = []
        for name, block in self._modules.items():
            assert block is not None
            if isinstance(block, MultiInputBlock):
                x = block.combine(x, earlier)
            else:
                x = block(x)
                earlier = [x] if name in self.stage_starts else [*earlier, x]
        return x


@dataclass(frozen=True)
class Slot:
    """One place in the sequence of blocks, and how the arch decides what stands there."""

    name: str
    """Unique in its layout, such as ``stage2.block1``."""
    choices: tuple[str, ...]
    """The choices this place depends on; it is empty where one of them is not active."""
    spec: Callable[..., BlockSpec | None]
    """The options of ``choices``, in their order, to the block; None: these options leave the place empty."""
    stage: int | None = None
    """Number of its stage: 1, 2, ...; 0 before the first stage; None between or after stages, as exits and heads are.

    Stages can be frozen in training; what has None always learns."""
    begins_stage: bool = False
    """Whether a later `MultiInputBlock` gets the outputs from this slot on, and none before it."""

    @property
    def module_name(self) -> str:
        """Its name in networks: modules cannot have dots in theirs."""
        return self.name.replace(".", "_")


@dataclass(frozen=True)
class Layout:
    """What a family makes of its settings, without weights: the space, the slots, and what other rooms ask of them."""

    space: SearchSpace
    slots: tuple[Slot, ...]
    """From input to output."""
    bn_eps: float = 1e-5
    shares_weights: bool = True
    """False: every block that can stand in a slot has weights of its own (single path)."""
    first_stage: int | None = None
    """Number of the stage (`Slot.stage`) whose choices are ``space.stages[0]``; the groups after it belong to the next
    stages. None: the groups are no stages of the network, as where all stages repeat one cell."""
    cell_edges: Mapping[str, tuple[int, int]] | None = field(default=None, hash=False)
    """Where the network repeats one cell: source and target node of each edge, by the edge's choice; else None.

    Node 0 is the cell's input, the last node its output. Predictors then read the cell as a graph."""
    ofa_names: Mapping[str, Mapping[str, str]] | None = field(default=None, hash=False)
    """Where once-for-all has published such networks: by slot, its modules to their published names, as
    `hwnas.supernet.weights.ofa_names.fold` writes them; else None."""

    def __post_init__(self) -> None:
        # Archs carry their space, and the space leads to their blocks: a device needs nothing else.
        object.__setattr__(self, "space", replace(self.space, blocks=self.blocks))

    def blocks(self, arch: Arch) -> list[tuple[str, BlockSpec]]:
        """Return the blocks of ``arch`` from input to output, each with its slot's name."""
        found = [
            (slot.name, slot.spec(*(arch[c] for c in slot.choices)))
            for slot in self.slots
            if all(c in arch for c in slot.choices)
        ]
        return [(name, spec) for name, spec in found if spec is not None]

    def specs(self, slot: Slot, space: SearchSpace | None = None) -> list[BlockSpec]:
        """Return every block that can stand in ``slot``, at the first resolution only.

        Args:
            slot: one of these.
            space: a part of the layout's space; None: all of it.
        """
        space = space or self.space
        options = [space[c].options[:1] if c == "resolution" else space[c].options for c in slot.choices]
        made = [slot.spec(*chosen) for chosen in itertools.product(*options)]
        return [spec for spec in dict.fromkeys(made) if spec is not None]

    def stage_of_choice(self, name: str) -> int | None:
        """Return the stage that a choice shapes (0: what stands before the first); None where it shapes no single one.

        Raises:
            SpaceError: the space has no such choice.
        """
        choice = self.space[name].name
        if self.first_stage is None:
            return None
        return next((s for s, names in enumerate(self.space.stages, self.first_stage) if choice in names), None)

    def build_subnet(self, arch: Arch, fresh_weights: bool = True) -> PlainNetwork:
        """Return the plain network of ``arch``, in train mode.

        Its children are named by slot, with ``_`` for ``.``; input ``(B, C, resolution, resolution)``.

        Args:
            arch: which network.
            fresh_weights: whether weights are drawn; else they are whatever is in memory, and every one must be set.
        """
        net = PlainNetwork()
        modules = {slot.name: slot.module_name for slot in self.slots}
        with nullcontext() if fresh_weights else WithoutInitialisation():
            for name, spec in self.blocks(arch):
                net.add_module(modules[name], spec.build())
        net.stage_starts = frozenset(slot.module_name for slot in self.slots if slot.begins_stage)
        if fresh_weights:
            init_weights(net)
        set_bn_eps(net, self.bn_eps)
        return net

    def input_shape(self, arch: Arch) -> tuple[int, int, int]:
        """Return ``(channels, height, width)`` of the input of ``arch``."""
        _, first = self.blocks(arch)[0]
        return first.in_channels, first.in_size_px, first.in_size_px


def of_networks(layout: Layout) -> Layout:
    """Return a layout without the choice of the precision, so that different archs are different networks."""
    choices = tuple(choice for choice in layout.space.choices if choice.name != PRECISION)
    return layout if choices == layout.space.choices else replace(layout, space=replace(layout.space, choices=choices))


def set_bn_eps(net: nn.Module, eps: float) -> None:
    """Set the constant that batch norms add to the variance."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
