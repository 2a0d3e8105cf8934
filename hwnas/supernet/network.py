"""How does one set of weights compute every subnet of its space?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hwnas.errors import SpaceError
from hwnas.space import Arch, SearchSpace
from hwnas.supernet.blocks.block import BlockSpec, ElasticBlock, ElasticMultiInputBlock
from hwnas.supernet.blocks.elastic import elastic_block
from hwnas.supernet.blocks.layers import init_weights
from hwnas.supernet.families.family import FamilyConfig
from hwnas.supernet.layout import Layout, set_bn_eps


class SuperNet(nn.Module):
    """Every subnet of a space in one set of weights.

    ``supernet(x, arch)`` computes the subnet ``arch``; nothing about an arch is remembered between calls.
    Weights live in elastic blocks, one a slot; what an arch leaves out is simply not computed.
    """

    def __init__(self, config: FamilyConfig, layout: Layout) -> None:
        """Make a supernet with fresh weights; users call `build_supernet`.

        Args:
            config: the family's settings, kept for checkpoints.
            layout: space and slots; every slot gets an elastic block for everything that can stand in it.
        """
        super().__init__()
        self.config = config
        self.layout = layout
        # The elastic blocks by slot; their tensors are called `parts...` in every checkpoint.
        self.parts = nn.ModuleDict()
        for slot in layout.slots:
            block = elastic_block(layout.specs(slot), layout.shares_weights)
            block.begins_stage = slot.begins_stage
            self.parts[slot.module_name] = block
        init_weights(self)
        set_bn_eps(self, layout.bn_eps)
        self._blocks: dict[Arch, list[tuple[ElasticBlock, BlockSpec]]] = {}
        self._exits: dict[Arch, dict[int, list[tuple[ElasticBlock, BlockSpec]]]] = {}

    @property
    def elastic_blocks(self) -> dict[str, ElasticBlock]:
        """The elastic block of every slot, by the slot's name."""
        found = {}
        for slot in self.layout.slots:
            block = self.parts[slot.module_name]
            assert isinstance(block, ElasticBlock)
            found[slot.name] = block
        return found

    @property
    def space(self) -> SearchSpace:
        """The archs that this supernet holds."""
        return self.layout.space

    def blocks(self, arch: Arch) -> list[tuple[ElasticBlock, BlockSpec]]:
        """Return the elastic block and the spec of every place of ``arch``, from input to output."""
        found = self._blocks.get(arch)
        if found is None:
            if len(self._blocks) > 4096:
                self._blocks.clear()
                self._exits.clear()
            self.space.encode(arch)  # raises where the arch is of another space
            elastic = self.elastic_blocks
            found = [(elastic[name], spec) for name, spec in self.layout.blocks(arch)]
            self._blocks[arch] = found
        return found

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """Compute the logits of one subnet.

        Args:
            x: ``(B, C, resolution, resolution)`` images at the resolution of ``arch``.
            arch: the subnet.

        Returns:
            ``(B, classes)`` logits.

        Raises:
            SpaceError: ``arch`` is of another space, or ``x`` is not of its resolution.
        """
        return self._logits(x, arch, {})[-1]

    def exits(self, x: Tensor, arch: Arch) -> list[Tensor]:
        """Compute the logits of every exit up to that of ``arch``, first to last, in one pass; see `forward`.

        The choices of ``arch`` hold for all of them. Where the space has no exits there is one tensor.
        """
        return self._logits(x, arch, self._branches(arch))

    def _branches(self, arch: Arch) -> dict[int, list[tuple[ElasticBlock, BlockSpec]]]:
        """Blocks of the earlier exits, by how many blocks of ``arch`` come before them."""
        found = self._exits.get(arch)
        if found is None:
            found, blocks = {}, self.blocks(arch)
            exits = self.space["exit"].options if "exit" in arch else ()
            for exit_ in itertools.takewhile(lambda e: e != arch["exit"], exits):
                branch = self.blocks(self.space.arch({**arch.as_dict(), "exit": exit_}))
                shared = next(i for i, (a, b) in enumerate(zip(blocks, branch, strict=False)) if a != b)
                found[shared] = branch[shared:]
            self._exits[arch] = found
        return found

    def _logits(self, x: Tensor, arch: Arch, branches: dict[int, list[tuple[ElasticBlock, BlockSpec]]]) -> list[Tensor]:
        blocks = self.blocks(arch)
        first = blocks[0][1]
        if tuple(x.shape[1:]) != (first.in_channels, first.in_size_px, first.in_size_px):
            raise SpaceError(
                f"arch {arch.key} takes images of {first.in_channels} x {first.in_size_px} x {first.in_size_px}, "
                f"got {' x '.join(map(str, x.shape[1:]))}; resize them to its resolution"
            )
        out = []
        earlier: list[Tensor] = []  # outputs of the stage or cell so far, for blocks that read several
        for number, (block, spec) in enumerate(blocks):
            if number in branches:
                y = x
                for exit_block, exit_spec in branches[number]:
                    y = exit_block(y, exit_spec)
                out.append(y)
            if isinstance(block, ElasticMultiInputBlock):
                x = block.combine(x, earlier, spec)
            else:
                x = block(x, spec)
                earlier = [x] if block.begins_stage else [*earlier, x]
        return [*out, x]

    def sort_channels(self, trained: Sequence[SearchSpace] = ()) -> None:
        """Order the channels of every block by importance, so that narrower forms keep the best ones.

        Args:
            trained: parts of the space that have been trained. The channels of every form in them stay first, so that
                trained subnets compute the same as before; the largest one always does.
        """
        elastic = self.elastic_blocks
        for slot in self.layout.slots:
            known = dict.fromkeys(spec for part in trained for spec in self.layout.specs(slot, part))
            elastic[slot.name].sort_channels(list(known))

    def fill(self, subnet: nn.Sequential, arch: Arch) -> None:
        """Copy the weights and BN statistics of ``arch`` into its plain network."""
        for plain, (block, spec) in zip(subnet, self.blocks(arch), strict=True):
            block.fill(plain, spec)


def extract_subnet(supernet: SuperNet, arch: Arch) -> nn.Sequential:
    """Cut one subnet out of a supernet.

    In eval mode it computes exactly what ``supernet(x, arch)`` computes. Its BN statistics are still those that
    many subnets shared in training: recalibrate them with `calibrate_bn` before using its accuracy.

    Args:
        supernet: the weights.
        arch: which subnet.

    Returns:
        A plain network in eval mode, channels-last, with its own copy of the weights.

    Raises:
        SpaceError: ``arch`` is of another space.

    Reference:
        Cai et al., 2020, Once-for-All, section 3; Sarti et al., 2023, NATv2, section III (extraction).
    """
    subnet = supernet.layout.build_subnet(arch, fresh_weights=False)
    supernet.fill(subnet, arch)
    return subnet.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]
