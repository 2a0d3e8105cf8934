"""What is a network before it has weights? A space, and a row of places with the block that an arch puts there."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from hwnas.space import Arch, SearchSpace
from hwnas.supernet.blocks.block import BlockSpec, Join
from hwnas.supernet.blocks.layers import init_weights


class PlainNetwork(nn.Sequential):
    """A plain network: blocks one after the other, named by slot; a `Join` sees the stage's earlier outputs."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, classes)``."""
        earlier: list[Tensor] = []
        for name, block in self._modules.items():
            assert block is not None
            if isinstance(block, Join):
                x = block.join(x, earlier)
            else:
                x = block(x)
                earlier = [x] if name.endswith("_block1") else [*earlier, x]
        return x


@dataclass(frozen=True)
class Slot:
    """One place in the chain of blocks, and how the arch decides what stands there."""

    name: str
    """Such as ``stage2.block1``."""
    choices: tuple[str, ...]
    """The choices this place depends on; it is empty where one of them is not active."""
    spec: Callable[..., BlockSpec | None]
    """The options of ``choices``, in their order, to the block; None: these options leave the place empty."""


@dataclass(frozen=True)
class Layout:
    """What a family makes of its configuration, without weights: the space, and the chain of blocks."""

    space: SearchSpace
    slots: tuple[Slot, ...]
    bn_eps: float = 1e-5
    shares_weights: bool = True
    """False: every block that can stand in a slot has weights of its own (single path)."""

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

    def specs(self, slot: Slot) -> list[BlockSpec]:
        """Return every block that can stand in ``slot``, at the first resolution only."""
        options = [self.space[c].options[:1] if c == "resolution" else self.space[c].options for c in slot.choices]
        made = [slot.spec(*chosen) for chosen in itertools.product(*options)]
        return [spec for spec in dict.fromkeys(made) if spec is not None]

    def build_subnet(self, arch: Arch) -> PlainNetwork:
        """Return the plain network of ``arch`` with fresh weights, in train mode.

        Its children are named by slot, with ``_`` for ``.``; input ``(B, C, resolution, resolution)``.
        """
        net = PlainNetwork()
        for name, spec in self.blocks(arch):
            net.add_module(name.replace(".", "_"), spec.build())
        init_weights(net)
        set_bn_eps(net, self.bn_eps)
        return net

    def input_shape(self, arch: Arch) -> tuple[int, int, int]:
        """Return ``(channels, height, width)`` of the input of ``arch``."""
        _, first = self.blocks(arch)[0]
        return first.in_channels, first.in_size_px, first.in_size_px


def set_bn_eps(net: nn.Module, eps: float) -> None:
    """Set the constant that batch norms add to the variance."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
