"""Which values of a network are kept in 8 bits, and with which scales? The evaluation and the exported file both ask.

The rules of integer runtimes (Jacob et al., 2018, CVPR, section 2; Krishnamoorthi, 2018, arXiv 1806.08342): weights are
symmetric with one scale for each output channel, feature maps have 256 levels with one scale and one zero point, biases
are integers of 32 bits. Batch norm is folded before, and a relu is part of the operator before it. What only moves or
picks values (maximum, flattening, parts of a map) keeps the scale of its input. The outputs of the network stay float,
since two classes of one level would tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from hwnas.errors import ExportError, shown
from hwnas.export.graph import Graph, Node
from hwnas.export.run_graph import run_graph

LEVELS = 255
"""Steps between the 256 levels of a feature map."""
WEIGHT_LEVELS = 127
"""Steps between 0 and the largest weight of a channel."""
BIAS_LIMIT = 2.0**30
"""Largest integer of a bias: sums of products come on top of it, within 32 bits."""

MIN_IMAGES = 16
"""Fewer images say too little about the range of a map."""

KEEPS_SCALE = ("flatten", "max_pool", "item", "split", "shuffle", "zeros")
"""Operators whose output has only values of their input."""

COMPUTES_IN_FLOAT = ("hswish", "hsigmoid", "batch_norm")
"""Operators without an integer form in ONNX Runtime: between maps of 8 bits they compute in float."""

ACTIVATIONS = ("relu", "relu6")


class QuantizationConfig(BaseModel):
    """How networks are brought to 8 bits for devices that compute in them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    calibration: Literal["min_max", "percentile", "entropy"] = "min_max"
    """How the range of a map follows from its values on training images: all of them, without the few largest, or such
    that the 8-bit distribution says most about the one in float (Migacz, 2017, 8-bit Inference with TensorRT)."""
    percentile: float = Field(default=99.99, gt=50, le=100)
    """Of the absolute values, for ``percentile``."""
    images: int = Field(default=128, ge=MIN_IMAGES, le=100_000)
    """Training images, spread evenly over those that batch norms are calibrated with."""
    float_layers: tuple[str, ...] = Field(default=(), max_length=1000)
    """Layers that stay float, such as ``stem``, ``stage1.block2`` or ``stage1.block2.depthwise``: mixed precision."""


@dataclass(frozen=True)
class Scale:
    """A map in 8 bits: ``real = scale * (level - zero_point)``, levels 0 to 255."""

    scale: float
    zero_point: int

    @property
    def lowest(self) -> int:
        """Smallest level beside the zero point."""
        return -self.zero_point

    @property
    def highest(self) -> int:
        """Largest level beside the zero point."""
        return LEVELS - self.zero_point


@dataclass(frozen=True)
class QuantizedWeights:
    """Weights and bias of a convolution or linear layer as integers."""

    weight: Tensor
    """int8, as the float weights are shaped."""
    scale: Tensor
    """``(out_channels,)`` float32 of the weights."""
    bias: Tensor | None
    """``(out_channels,)`` int32; their scale is that of the input times ``scale``."""


@dataclass(frozen=True)
class Quantization:
    """What of a graph is in 8 bits."""

    graph: Graph
    scales: Mapping[int, Scale]
    """Of values, by the number of their node (-1: the image); a value that is not here is float."""
    float_nodes: frozenset[int]
    """Nodes that compute in float because somebody asked for it."""
    fused: Mapping[int, int]
    """Activations that are part of the operator before them, by the number of that one."""
    weights: Mapping[int, QuantizedWeights] = field(default_factory=dict)

    @property
    def float_operators(self) -> dict[str, int]:
        """Operators that compute in float, by type: those that were asked for, and those without an integer form."""
        found: dict[str, int] = {}
        for number, node in enumerate(self.graph.nodes):
            if number in self.float_nodes or node.type in COMPUTES_IN_FLOAT:
                found[node.type] = found.get(node.type, 0) + 1
        return found


def calibrate(
    graph: Graph, images: Tensor, config: QuantizationConfig | None = None, labels: Tensor | None = None,
    output_in_8_bits: bool = False,
) -> Quantization:  # fmt: skip
    """Decide what of a network is in 8 bits, and with which scales.

    Args:
        graph: its trace, batch norms folded.
        images: ``(N, C, H, W)`` training images as the network takes them, at least `MIN_IMAGES`.
        config: how; default: `QuantizationConfig()`.
        labels: ``(N,)`` of the images, where they are classes: images of one class only are refused.
        output_in_8_bits: whether the output is in 8 bits, too: of a block inside a network.

    Raises:
        ExportError: too few images, or of one class only; a map that is not finite on them.
    """
    config = config or QuantizationConfig()
    if len(images) < MIN_IMAGES:
        raise ExportError(
            f"{len(images)} calibration images are too few to say which values maps take; give {MIN_IMAGES} or more "
            "training images, better 128"
        )
    if labels is not None and labels.dtype == torch.int64 and int(labels.min()) == int(labels.max()):
        raise ExportError(
            f"all {len(images)} calibration images are of class {int(labels[0])}; give images of every class"
        )
    float_nodes = frozenset(i for i, node in enumerate(graph.nodes) if is_named(node, config.float_layers))
    fused = fused_activations(graph, float_nodes)
    own, same = _values(graph, float_nodes, fused, output_in_8_bits)
    ranges = _ranges(graph, images, own, config)
    scales = {number: scale_of(*found) for number, found in ranges.items()}
    for number, source in same.items():
        scales[number] = scales[source]
    weights = {
        i: quantized_weights(node, scales[node.inputs[0]].scale)
        for i, node in enumerate(graph.nodes)
        if "weight" in node.tensors and i not in float_nodes
    }
    return Quantization(graph, scales, float_nodes, fused, weights)


def is_named(node: Node, layers: Sequence[str]) -> bool:
    """Say whether a node belongs to one of some layers, as `QuantizationConfig.float_layers` names them."""
    name = node.name.replace(".", "_") + "_"
    return any(name.startswith(layer.replace(".", "_") + "_") for layer in layers)


def fused_activations(graph: Graph, float_nodes: frozenset[int] = frozenset()) -> dict[int, int]:
    """Return activations that are part of the operator before them, by its number."""
    readers = _readers(graph)
    found = {}
    for number, node in enumerate(graph.nodes):
        source = node.inputs[0]
        if node.type not in ACTIVATIONS or source < 0 or len(readers[source]) != 1:
            continue
        before = graph.nodes[source]
        if before.type in (*KEEPS_SCALE, *ACTIVATIONS) or (source in float_nodes) != (number in float_nodes):
            continue
        found[source] = number
    return found


def scale_of(lowest: float, highest: float) -> Scale:
    """Return scale and zero point of a map with values between two limits; 0 is always a level.

    Raises:
        ExportError: a limit is not finite.
    """
    low, high = min(lowest, 0.0), max(highest, 0.0)
    if not (abs(low) < 1e30 and abs(high) < 1e30):
        raise ExportError("a map of the network has values that are not finite on the calibration images")
    scale = float(torch.tensor(max(high - low, 1e-8) / LEVELS, dtype=torch.float32))
    return Scale(scale, round(min(max(-low / scale, 0), LEVELS)))


def quantized_weights(node: Node, in_scale: float) -> QuantizedWeights:
    """Return weights and bias of a node as integers, symmetric, with a scale for each output channel."""
    weight = node.tensors["weight"].float()
    bias = node.tensors.get("bias")
    scale = weight.abs().flatten(1).amax(1) / WEIGHT_LEVELS
    if bias is not None:  # a channel of tiny weights must not need a bias beyond 32 bits
        scale = torch.maximum(scale, bias.abs().float() / (in_scale * BIAS_LIMIT))
    scale = scale.clamp(min=1e-12)
    levels = torch.round(weight / scale.view(-1, *[1] * (weight.dim() - 1))).clamp(-WEIGHT_LEVELS, WEIGHT_LEVELS)
    whole = None if bias is None else torch.round(bias.double() / (scale.double() * in_scale)).to(torch.int32)
    return QuantizedWeights(levels.to(torch.int8), scale, whole)


# -- inside ----------------------------------------------------------------------------------------------


def _readers(graph: Graph) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {number: [] for number in range(-1, len(graph.nodes))}
    for number, node in enumerate(graph.nodes):
        for i in node.inputs:
            found[i].append(number)
    return found


def _values(
    graph: Graph, float_nodes: frozenset[int], fused: Mapping[int, int], output_in_8_bits: bool
) -> tuple[list[int], dict[int, int]]:  # fmt: skip
    """Values with a scale of their own, and those that have that of another one."""
    readers, last = _readers(graph), len(graph.nodes) - 1
    own: dict[int, None] = {}
    same: dict[int, int] = {}
    for number in range(-1, last + 1):
        if number in fused or (number == last and not output_in_8_bits):
            continue
        made_in_float = number < 0 or number in float_nodes
        if made_in_float and all(r in float_nodes for r in readers[number]) and number != last:
            continue
        node = graph.nodes[number] if number >= 0 else None
        source = node.inputs[0] if node is not None else -1
        known = source in same or source in own
        if node is not None and node.type in KEEPS_SCALE and number not in float_nodes and known:
            same[number] = same.get(source, source)
        else:
            own[number] = None
    return list(own), same


def _ranges(
    graph: Graph, images: Tensor, own: Sequence[int], config: QuantizationConfig
) -> dict[int, tuple[float, float]]:  # fmt: skip
    """Limits of values on images."""
    wanted = set(own)
    limits: dict[int, tuple[float, float]] = {}

    def look(number: int, value: Tensor) -> None:
        if number in wanted:
            low, high = (float(v) for v in torch.aminmax(value))
            before = limits.get(number, (low, high))
            limits[number] = min(low, before[0]), max(high, before[1])

    with torch.inference_mode():
        for part in images.split(BATCH):
            run_graph(graph, part, look)
    if config.calibration == "min_max":
        return limits
    counts: dict[int, Tensor] = {}

    def count(number: int, value: Tensor) -> None:
        if number in wanted:
            top = max(abs(v) for v in limits[number]) or 1.0
            counts[number] = counts.get(number, 0) + torch.histc(value.abs().float(), BINS, 0.0, top)

    with torch.inference_mode():
        for part in images.split(BATCH):
            run_graph(graph, part, count)
    found = {}
    for number, (low, high) in limits.items():
        top = max(abs(low), abs(high)) or 1.0
        share = _percentile(counts[number], config.percentile)
        if config.calibration == "entropy":
            share = _least_divergence(counts[number])
        found[number] = max(low, -share * top), min(high, share * top)
    return found


BATCH = 64
BINS = 2048
"""Of a histogram of absolute values."""
STEPS = 128
"""Levels of absolute values: half of 256, as for a map of both signs."""


def _percentile(counts: Tensor, percent: float) -> float:
    """Share of the range below which so much of the values lies."""
    reached = torch.cumsum(counts, 0) >= counts.sum() * (percent / 100 - 1e-12)
    return (int(torch.argmax(reached.int())) + 1) / len(counts)


def _least_divergence(counts: Tensor) -> float:
    """Share of the range that is best kept: the 8-bit distribution then has the least divergence from the whole one.

    Migacz, 2017: for every limit, what lies above is counted into the last bin; the bins are joined to `STEPS` levels,
    and each level is spread again over its bins that had values.
    """
    best, best_divergence = len(counts), float("inf")
    counts = counts.double()
    for limit in range(STEPS, len(counts) + 1, STEPS // 4):
        inside = counts[:limit]
        whole = inside.clone()
        whole[-1] += counts[limit:].sum()
        level = (torch.arange(limit) * STEPS) // limit
        filled = (inside > 0).double()
        total = torch.zeros(STEPS, dtype=torch.float64).scatter_add_(0, level, inside)
        bins = torch.zeros(STEPS, dtype=torch.float64).scatter_add_(0, level, filled)
        spread = (total / bins.clamp(min=1))[level] * filled
        p, q = whole / whole.sum(), spread / spread.sum().clamp(min=1e-12)
        some = p > 0
        divergence = float((p[some] * torch.log(p[some] / q[some].clamp(min=1e-12))).sum())
        if divergence < best_divergence:
            best, best_divergence = limit, divergence
    return best / len(counts)


def check_layers(layers: Sequence[str], slots: Sequence[str]) -> None:
    """Raise where a layer that is to stay float begins with the name of no block.

    Raises:
        ExportError: it is named, with the blocks.
    """
    known = [slot.replace(".", "_") + "_" for slot in slots]
    for layer in layers:
        name = layer.replace(".", "_") + "_"
        if not any(name.startswith(slot) for slot in known):
            raise ExportError(f"float_layers names {shown(layer)}; the blocks are {', '.join(slots)}")
