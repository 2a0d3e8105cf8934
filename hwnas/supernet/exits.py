"""A plain network that can end at several places, each with a head of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.errors import SpaceError
from hwnas.space import Arch
from hwnas.supernet.blocks.block import BlockSpec
from hwnas.supernet.layout import PlainNetwork
from hwnas.supernet.network import SuperNet, extract_subnet

Ordering = Literal["uniform", "ascending", "descending", "mix"]
"""Weights of exits, first to last: equal; growing; falling; or falling for losses and growing for outputs."""


class ExitNetwork(nn.Module):
    """Segments one after the other, some of them with a head: what they answer together is a weighted sum of logits.

    Reference:
        Sarti, Lomurno, Falanti and Matteucci, 2023, Anticipate, Ensemble and Prune (AEP, arXiv 2301.12168).
    """

    def __init__(
        self, segments: Sequence[PlainNetwork], heads: Mapping[int, PlainNetwork], names: Mapping[int, int],
        blocks: Sequence[Sequence[BlockSpec]], head_blocks: Mapping[int, Sequence[BlockSpec]],
        ordering: Ordering = "uniform",
    ) -> None:  # fmt: skip
        """Make it of its parts; `extract_exits` does.

        Args:
            segments: of the trunk, from input to output.
            heads: by the number of the segment that they follow; the last segment has one.
            names: of the exits, as the space counts them, by segment.
            blocks: specs of the blocks of each segment.
            head_blocks: the same of each head.
            ordering: how exits are weighed.
        """
        super().__init__()
        self.segments = nn.ModuleList(segments)
        self.heads = nn.ModuleDict({str(i): head for i, head in sorted(heads.items())})
        self.names = dict(sorted(names.items()))
        self.blocks = tuple(tuple(of) for of in blocks)
        self.head_blocks = {i: tuple(of) for i, of in sorted(head_blocks.items())}
        self.ordering: Ordering = ordering

    @property
    def loss_weights(self) -> list[float]:
        """Weight of each exit's loss, first to last; they add up to 1."""
        return _weights("descending" if self.ordering == "mix" else self.ordering, len(self.names))

    @property
    def output_weights(self) -> list[float]:
        """Weight of each exit's outputs in what all answer together; they add up to 1."""
        return output_weights(self.ordering, len(self.names))

    def parts(self) -> Iterator[tuple[nn.Module, nn.Module | None]]:
        """Yield every segment with its head, or None where it has none."""
        for i, segment in enumerate(self.segments):
            yield segment, self.heads[str(i)] if i in self.names else None

    def exits(self, x: Tensor) -> list[Tensor]:
        """``(B, C, H, W)`` to the ``(B, classes)`` logits of every exit, first to last."""
        out = []
        for segment, head in self.parts():
            x = segment(x)
            if head is not None:
                out.append(head(x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, classes)``: the weighted sum of the exits' logits."""
        outputs = self.exits(x)
        total = outputs[0] * self.output_weights[0]
        for output, weight in zip(outputs[1:], self.output_weights[1:], strict=True):
            total = total + output * weight
        return total

    def with_exits(self, names: Sequence[int]) -> ExitNetwork:
        """Return a copy that has only these exits, and ends at the last of them.

        Raises:
            SpaceError: an exit that it does not have, or none at all.
        """
        if not names or set(names) - set(self.names.values()):
            raise SpaceError(f"exits {list(names)} are to be kept; there are {list(self.names.values())}")
        kept = {i: name for i, name in self.names.items() if name in names}
        end = max(kept) + 1
        whole = copy.deepcopy(self)
        return ExitNetwork(
            [s for s in whole.segments if isinstance(s, PlainNetwork)][:end],
            {i: head for i in kept if isinstance(head := whole.heads[str(i)], PlainNetwork)}, kept,
            self.blocks[:end], {i: self.head_blocks[i] for i in kept}, self.ordering,
        )  # fmt: skip


def output_weights(ordering: Ordering, n: int) -> list[float]:
    """Return the weight of the outputs of each of ``n`` exits, first to last; they add up to 1."""
    return _weights("ascending" if ordering == "mix" else ordering, n)


def _weights(ordering: str, n: int) -> list[float]:
    shares = {"ascending": range(1, n + 1), "descending": range(n, 0, -1), "uniform": [1] * n}[ordering]
    return [share / sum(shares) for share in shares]


def extract_exits(supernet: SuperNet, arch: Arch, ordering: Ordering = "uniform") -> ExitNetwork:
    """Cut one subnet out of a supernet with every exit up to its own.

    In eval mode its exits compute exactly what ``supernet.exits(x, arch)`` computes. Recalibrate its batch norms with
    `calibrate_bn` before using its accuracy.

    Args:
        supernet: of a space with a choice ``exit``.
        arch: which subnet; it ends at the last exit.
        ordering: how exits are weighed.

    Raises:
        SpaceError: the space has no exits, or the arch is of another space.

    Reference:
        Sarti, Lomurno and Matteucci, 2023, NATv2, post-processing (b): all exits before the chosen one are attached
        again with their weights.
    """
    if "exit" not in arch:
        raise SpaceError(f"arch {arch.key} has no choice 'exit'; only supernets with early exits have several")
    options = supernet.space["exit"].options
    ends = options[: options.index(arch["exit"]) + 1]
    stages = {slot.module_name: slot.stage for slot in supernet.layout.slots}
    names = {slot.name: slot.module_name for slot in supernet.layout.slots}
    segments: list[PlainNetwork] = []
    of_segments: list[list[BlockSpec]] = []
    heads: dict[int, PlainNetwork] = {}
    of_heads: dict[int, list[BlockSpec]] = {}
    done = 0
    for number, end in enumerate(ends):
        ending = supernet.space.arch({**arch.as_dict(), "exit": end})
        subnet = extract_subnet(supernet, ending)
        assert isinstance(subnet, PlainNetwork)
        specs = {names[name]: spec for name, spec in supernet.layout.blocks(ending)}
        trunk = [name for name, _ in subnet.named_children() if stages[name] is not None]
        head = [name for name, _ in subnet.named_children() if stages[name] is None]
        segments.append(_part(subnet, trunk[done:]))
        of_segments.append([specs[name] for name in trunk[done:]])
        heads[number], of_heads[number] = _part(subnet, head), [specs[name] for name in head]
        done = len(trunk)
    numbers = {i: int(str(end)) for i, end in enumerate(ends)}
    made: nn.Module = ExitNetwork(segments, heads, numbers, of_segments, of_heads, ordering)
    made = made.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    assert isinstance(made, ExitNetwork)
    return made


def _part(subnet: PlainNetwork, names: Sequence[str]) -> PlainNetwork:
    """Some children of a network, in a row of their own."""
    made, children = PlainNetwork(), dict(subnet.named_children())
    made.stage_starts = subnet.stage_starts
    for name in names:
        made.add_module(name, children[name])
    return made
