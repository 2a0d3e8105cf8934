"""How does one set of weights compute every subnet of its space?"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hwnas.errors import SpaceError
from hwnas.space import Arch, SearchSpace
from hwnas.supernet.blocks import BlockSpec, Chain, init_weights
from hwnas.supernet.elastic import ElasticBlock, ElasticJoin, elastic_block


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
        object.__setattr__(self, "space", replace(self.space, chain=self.chain))

    def chain(self, arch: Arch) -> list[tuple[str, BlockSpec]]:
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

    def build_subnet(self, arch: Arch) -> Chain:
        """Return the plain network of ``arch`` with fresh weights, in train mode.

        Its children are named by slot, with ``_`` for ``.``; input ``(B, C, resolution, resolution)``.
        """
        net = Chain()
        for name, spec in self.chain(arch):
            net.add_module(name.replace(".", "_"), spec.build())
        init_weights(net)
        set_bn_eps(net, self.bn_eps)
        return net

    def input_shape(self, arch: Arch) -> tuple[int, int, int]:
        """Return ``(channels, height, width)`` of the input of ``arch``."""
        _, first = self.chain(arch)[0]
        return first.in_channels, first.in_size_px, first.in_size_px


def set_bn_eps(net: nn.Module, eps: float) -> None:
    """Set the constant that batch norms add to the variance."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps


class SuperNet(nn.Module):
    """Every subnet of a space in one set of weights.

    ``supernet(x, arch)`` computes the subnet ``arch``; nothing about an arch is remembered between calls.
    Weights live in elastic blocks, one a slot; what an arch leaves out is simply not computed.
    """

    def __init__(self, config: Any, layout: Layout) -> None:
        """Make a supernet with fresh weights; users call `build_supernet`.

        Args:
            config: the family's settings, kept for checkpoints.
            layout: space and slots; every slot gets the elastic block that holds all its specs.
        """
        super().__init__()
        self.config = config
        self.layout = layout
        self.parts = nn.ModuleDict(
            {
                slot.name.replace(".", "_"): elastic_block(layout.specs(slot), layout.shares_weights)
                for slot in layout.slots
            }
        )
        for name, part in self.parts.items():
            assert isinstance(part, ElasticBlock)
            part.begins_stage = name.endswith("_block1")
        init_weights(self)
        set_bn_eps(self, layout.bn_eps)
        self._chains: dict[Arch, list[tuple[ElasticBlock, BlockSpec]]] = {}
        self._exits: dict[Arch, dict[int, list[tuple[ElasticBlock, BlockSpec]]]] = {}

    @property
    def space(self) -> SearchSpace:
        """The archs that this supernet holds."""
        return self.layout.space

    def blocks(self, arch: Arch) -> list[tuple[ElasticBlock, BlockSpec]]:
        """Return the elastic block and the spec of every place of ``arch``, from input to output."""
        found = self._chains.get(arch)
        if found is None:
            if len(self._chains) > 4096:
                self._chains.clear()
                self._exits.clear()
            self.space.encode(arch)  # raises where the arch is of another space
            found = []
            for name, spec in self.layout.chain(arch):
                part = self.parts[name.replace(".", "_")]
                assert isinstance(part, ElasticBlock)
                found.append((part, spec))
            self._chains[arch] = found
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
            found, chain = {}, self.blocks(arch)
            exits = self.space["exit"].options if "exit" in arch else ()
            for exit_ in itertools.takewhile(lambda e: e != arch["exit"], exits):
                branch = self.blocks(self.space.arch({**arch.as_dict(), "exit": exit_}))
                shared = next(i for i, (a, b) in enumerate(zip(chain, branch, strict=False)) if a != b)
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
        earlier: list[Tensor] = []  # outputs of the stage or cell so far, for blocks that join them
        for number, (block, spec) in enumerate(blocks):
            if number in branches:
                y = x
                for exit_block, exit_spec in branches[number]:
                    y = exit_block(y, exit_spec)
                out.append(y)
            if isinstance(block, ElasticJoin):
                x = block.join(x, earlier, spec)
            else:
                x = block(x, spec)
                earlier = [x] if block.begins_stage else [*earlier, x]
        return [*out, x]

    def sort_channels(self) -> None:
        """Order the channels of every block by importance, so that narrower forms keep the best ones."""
        for part in self.parts.values():
            assert isinstance(part, ElasticBlock)
            part.sort_channels()

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
    subnet = supernet.layout.build_subnet(arch)
    supernet.fill(subnet, arch)
    return subnet.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


@torch.no_grad()
def calibrate_bn(subnet: nn.Module, batches: Sequence[Tensor]) -> None:
    """Recompute the BN statistics of a plain network, in place, as the mean over batches of images.

    Args:
        subnet: any network; only its batch norms change, and it ends in the mode it came in.
        batches: ``(B, C, H, W)`` images each, of the training split; once-for-all uses 2,000 images in all.

    Reference:
        Cai et al., 2020, Once-for-All, section 3; as there, the variance is the mean of the batches' variances.
    """
    norms = [m for m in subnet.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms or not batches:
        return
    was_training = subnet.training
    momenta = [m.momentum for m in norms]
    subnet.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean over the batches
        norm.train()
    fresh = [act for act in _activations_of_norms(subnet) if not act.inplace]
    for act in fresh:
        act.inplace = True  # spares a new tensor each
    for batch in batches:
        subnet(batch)
    for act in fresh:
        act.inplace = False
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    subnet.train(was_training)


def fold_bn(network: nn.Module) -> nn.Module:
    """Return a copy for inference alone: batch norms folded into convolutions, activations after them in place.

    What it computes differs by rounding. Hooks on its convolutions would see folded outputs.

    Args:
        network: in eval mode; only what follows one another in a `nn.Sequential` is joined.
    """
    network = copy.deepcopy(network)
    for act in _activations_of_norms(network):
        act.inplace = True
    for sequence in [m for m in network.modules() if isinstance(m, nn.Sequential)]:
        for (name, conv), (norm_name, norm) in itertools.pairwise(list(sequence.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and not norm.training:
                setattr(sequence, name, fuse_conv_bn_eval(conv, norm))
                setattr(sequence, norm_name, nn.Identity())
    return network


def _activations_of_norms(network: nn.Module) -> list[Any]:
    """Activations that directly follow a batch norm, whose output nothing else reads, and that can work in place."""
    sequences = [m for m in network.modules() if isinstance(m, nn.Sequential)]
    pairs = [pair for sequence in sequences for pair in itertools.pairwise(sequence)]
    return [act for norm, act in pairs if isinstance(norm, nn.BatchNorm2d) and hasattr(act, "inplace")]
