"""How much memory does an arch need on a device, for feature maps and for weights? Exact, in the device's precision.

``model_size_kib`` adds up over blocks. ``peak_memory_kib`` is a maximum: where blocks only pass one map on, the peak of
a network is that of its worst block, and a look-up for whole populations. Blocks that read several earlier maps (dense
skips, cells), and those that begin with a batch norm, which a runtime folds into the block before, need the network
as a whole: it is traced once for each arch, without weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.export.graph import Graph, trace
from hwnas.export.liveness import peak_elements
from hwnas.latency.number_format import NumberFormat, number_format
from hwnas.latency.table import Device
from hwnas.objectives.plugin import ExactObjective, ValuesOfArchs
from hwnas.space import Arch
from hwnas.supernet import BlockSpec, Layout
from hwnas.supernet.blocks.block import MultiInputBlock
from hwnas.supernet.slot_sum import SlotSum, distinct_blocks

BYTES_PER_KIB = 1024


@dataclass(frozen=True)
class MemoryObjective(ExactObjective):
    """A size in KiB; smaller is better."""

    name: str
    title: str
    of_graph: Callable[[Graph, int, int, NumberFormat], float]
    """Bytes of a traced network or block, from channels and size of its input."""
    together: Literal["sum", "max"]
    """How the bytes of blocks make those of a network."""
    direction: Literal["min", "max"] = "min"

    def compile(self, layout: Layout, device: Device) -> ValuesOfArchs:
        """Return its look-ups for a whole space, in KiB."""
        if not adds_up(layout):

            def of_network(arch: Arch, graph: Graph, channels: int, size_px: int) -> float:
                numbers = number_format(device.computing(arch).profile.precision)
                return self.of_graph(graph, channels, size_px, numbers) / BYTES_PER_KIB

            return WholeNetworks(layout, of_network)

        def look_ups(device: Device) -> SlotSum:
            numbers = number_format(device.profile.precision)

            def of_block(block: BlockSpec) -> float:
                return self.of_graph(_traced(block), block.in_channels, block.in_size_px, numbers) / BYTES_PER_KIB

            return SlotSum.of(layout, of_block) if self.together == "sum" else SlotMax.of(layout, of_block)

        return device.in_each_precision(layout, look_ups)


def adds_up(layout: Layout) -> bool:
    """Say whether the memory of a network follows from that of its blocks, one after the other."""
    blocks = dict.fromkeys(replace(b, in_size_px=0) for b in distinct_blocks(layout))
    return not any(_reads_several(b) or _begins_with_batch_norm(_traced(b)) for b in blocks)


@dataclass(frozen=True)
class SlotMax(SlotSum):
    """The largest of one value per block, looked up by the genes that each slot depends on."""

    @staticmethod
    def _joined(total: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(total, values)

    def _of_chunk(self, genomes: NDArray[np.int64]) -> NDArray[np.float64]:
        space = self.layout.space
        active = space.active(genomes)
        total = np.full(len(genomes), self.constant)
        for positions, values in self.tables:
            found = values[tuple(genomes[:, p] for p in positions)]
            total = np.maximum(total, np.where(active[:, positions].all(axis=1), found, 0.0))
        return total


@dataclass(frozen=True)
class WholeNetworks:
    """Values of archs whose networks are traced as a whole; each arch once."""

    layout: Layout
    of_graph: Callable[[Arch, Graph, int, int], float]
    known: dict[Arch, float] = field(default_factory=dict, compare=False)

    def of_archs(self, archs: Sequence[Arch]) -> NDArray[np.float64]:
        """Return ``(n,)`` values."""
        for arch in archs:
            if arch not in self.known:
                channels, size_px, _ = self.layout.input_shape(arch)
                with torch.device("meta"):
                    network = self.layout.build_subnet(arch, fresh_weights=False)
                self.known[arch] = self.of_graph(arch, trace(network), channels, size_px)
        return np.array([self.known[arch] for arch in archs], dtype=float)

    def of_genomes(self, genomes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return ``(n,)`` values of ``(n, n_choices)`` genomes."""
        return self.of_archs(self.layout.space.decode_many(genomes))


def peak_bytes(graph: Graph, in_channels: int, in_size_px: int, numbers: NumberFormat) -> float:
    """Return the bytes of feature maps that are alive at once, at most; see `hwnas.export.liveness`."""
    return float(peak_elements(graph, in_channels, in_size_px) * numbers.activation)


def weight_bytes(graph: Graph, in_channels: int, in_size_px: int, numbers: NumberFormat) -> float:
    """Return the bytes of what a device keeps of a network: weights, biases, scales of quantised channels."""
    total = 0
    for node in graph.nodes:
        for name, tensor in node.tensors.items():
            total += tensor.numel() * (numbers.weight if name == "weight" else numbers.bias)
        total += numbers.channel * node.out_channels * ("weight" in node.tensors)
    return float(total)


def _begins_with_batch_norm(graph: Graph) -> bool:
    return any(node.type == "batch_norm" and -1 in node.inputs for node in graph.nodes)


@lru_cache(maxsize=100_000)
def _reads_several(block: BlockSpec) -> bool:
    with torch.device("meta"):
        return isinstance(block.build(), MultiInputBlock)


def _traced(block: BlockSpec) -> Graph:
    return _traced_any_size(replace(block, in_size_px=0))


@lru_cache(maxsize=100_000)
def _traced_any_size(block: BlockSpec) -> Graph:
    with torch.device("meta"):
        return trace(block.build())


PEAK_MEMORY = MemoryObjective("peak_memory_kib", "peak memory", peak_bytes, "max")
MODEL_SIZE = MemoryObjective("model_size_kib", "model size", weight_bytes, "sum")
