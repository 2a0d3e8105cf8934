"""What is known of every arch without running it? Latency on a device, parameters and multiply-adds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import nn

from hwnas.export.graph import Graph
from hwnas.latency.table import Device, block_graph, block_ops
from hwnas.objectives.plugin import ExactObjective
from hwnas.supernet import BlockSpec, Layout, count_params
from hwnas.supernet.slot_sum import SlotSum


@dataclass(frozen=True)
class SumOverBlocks(ExactObjective):
    """An objective that adds up over the blocks of an arch."""

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


def entropy_of_space(layout: Layout) -> SlotSum:
    """Return the entropy of a whole space as look-ups: how much the layers, one after the other, can tell apart.

    A convolution of k x k, whose output channels each read c input channels (1 where it is depthwise), adds
    ``log sqrt(k * k * c)``: the logarithm of the spread of its output for random weights and inputs. Deep networks have
    much of it, wide ones little more than narrow ones. Of branches side by side within a block the longest counts;
    blocks add up, and so do the edges of a cell. Convolutions of one pixel (gates of squeeze-and-excitation) and linear
    layers add nothing.

    Reference:
        Shen et al., 2023, DeepMAD, section 3. There the sum is multiplied by the logarithm of the size of the last
        feature map, which is nearly the same for all archs of a space; here the sum adds up over blocks.
    """
    return SlotSum.of(layout, lambda block: _graph_entropy(block_graph(block), block.in_channels, block.in_size_px))


def _graph_entropy(graph: Graph, in_channels: int, in_size_px: int) -> float:
    """Of the longest path through a block."""
    shapes = graph.shapes(in_channels, in_size_px)
    longest = {-1: 0.0}
    for number, node in enumerate(graph.nodes):
        before = [longest[i] for i in node.inputs]
        channels, _ = shapes[node.inputs[0]]
        _, size_px = shapes[number]
        own = 0.0
        if node.type == "conv" and size_px > 1:
            own = 0.5 * math.log(node.kernel_size**2 * channels / node.groups)
        longest[number] = -math.inf if node.type == "zeros" else max(before) + own
    return max(0.0, *(longest[i] for i in graph.outputs or (len(graph.nodes) - 1,)))


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
ENTROPY = SumOverBlocks("entropy", "entropy", lambda layout, device: entropy_of_space(layout), direction="max")
FALLBACK_LAYERS = SumOverBlocks(
    "fallback_layers", "layers that run elsewhere",
    lambda layout, device: device.in_each_precision(
        layout, lambda one: SlotSum.of(layout, lambda block: float(sum(one.fallback_layers(block).values())))
    ),
)  # fmt: skip
