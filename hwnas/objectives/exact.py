"""What is known of every arch without running it? Latency on a device, parameters and multiply-adds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import nn

from hwnas.latency.table import Device, block_ops
from hwnas.objectives.plugin import ExactObjective
from hwnas.supernet import BlockSpec, Layout, count_params
from hwnas.supernet.slot_sum import SlotSum


@dataclass(frozen=True)
class SumOverBlocks(ExactObjective):
    """An objective that adds up over the blocks of an arch; smaller is better."""

    name: str
    title: str
    sums: Callable[[Layout, Device], SlotSum]
    direction: Literal["min", "max"] = "min"

    def compile(self, layout: Layout, device: Device) -> SlotSum:
        """Return its look-ups for a whole space."""
        return self.sums(layout, device)


def macs_of_space(layout: Layout) -> SlotSum:
    """Return the multiply-adds of a whole space as look-ups; convolutions and linear layers, each counted once."""
    return SlotSum.of(layout, lambda block: float(sum(op.macs for op in block_ops(block))))


def params_of_space(layout: Layout) -> SlotSum:
    """Return the parameters of a whole space as look-ups: every trainable tensor of the extracted subnet."""
    return SlotSum.of(layout, lambda block: _block_params(replace(block, in_size_px=0)))


@lru_cache(maxsize=100_000)
def _block_params(block: BlockSpec) -> float:
    with torch.device("meta"):
        return float(count_params(block.build()))


def fvcore_macs(net: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Return the multiply-adds of a network as fvcore counts them, convolutions and linear layers, each once.

    An independent count of what `macs_of_space` adds up block by block; slower, so for models that leave only.
    fvcore's further entries, for batch norm and pooling, are left out: batch norm is folded in a deployed model.

    Args:
        net: in eval mode.
        input_shape: channels, height, width.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore uses parts of torch that announce their end
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(net, torch.zeros(1, *input_shape))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counts = analysis.by_operator()
    return int(counts.get("conv", 0) + counts.get("linear", 0))


LATENCY = SumOverBlocks("latency_ms", "latency", lambda layout, device: device.compile(layout))
PARAMS = SumOverBlocks("params", "parameters", lambda layout, device: params_of_space(layout))
MACS = SumOverBlocks("macs", "multiply-adds", lambda layout, device: macs_of_space(layout))
FALLBACK_LAYERS = SumOverBlocks(
    "fallback_layers", "layers that run elsewhere",
    lambda layout, device: device.in_each_precision(
        layout, lambda one: SlotSum.of(layout, lambda block: float(sum(one.fallback_layers(block).values())))
    ),
)  # fmt: skip
