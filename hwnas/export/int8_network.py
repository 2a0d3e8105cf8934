"""How well does a network do in 8 bits? Computed in PyTorch with the integers that ONNX Runtime computes with.

Levels are whole numbers in float32 tensors, counted from the zero point, so that padding with 0 is right. Sums of their
products are exact below 2^24, whatever the order, as those of integers are; scaling and rounding follow ONNX Runtime
(half to even). So it is fast, and equal to the exported file but for rounding of what computes in float.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.export.graph import Graph, Node
from hwnas.export.quantization import KEEPS_SCALE, Quantization, QuantizationConfig, Scale, calibrate
from hwnas.export.run_graph import ACTIVATIONS, float_node, moved, reads_left


class Int8Network(nn.Module):
    """A traced network in 8 bits; takes images and gives float outputs, as the network does."""

    def __init__(self, quantization: Quantization) -> None:
        """Prepare integers and factors of every layer."""
        super().__init__()
        self.quantization = quantization
        self._left = reads_left(quantization.graph)
        self._whole: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._factors: dict[int, Tensor] = {}
        for number, found in quantization.weights.items():
            weight = found.weight.float()
            if weight.dim() == 4:
                weight = weight.contiguous(memory_format=torch.channels_last)
            self._whole[number] = weight, None if found.bias is None else found.bias.float()
            node = quantization.graph.nodes[number]
            factor = torch.tensor(quantization.scales[node.inputs[0]].scale) * found.scale
            made = quantization.scales.get(quantization.fused.get(number, number))
            if made is not None:
                factor = factor / torch.tensor(made.scale)
            self._factors[number] = factor.view(1, -1, *[1] * (weight.dim() - 2))

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(N, k)`` float outputs of ``(N, C, H, W)`` images."""
        graph, scales = self.quantization.graph, self.quantization.scales
        left = dict(self._left)
        values: dict[int, Tensor] = {-1: _levels(images, scales[-1]) if -1 in scales else images}
        taken = set(self.quantization.fused.values())
        for number, node in enumerate(graph.nodes):
            if number in taken:
                continue
            made = self._computed(number, node, [values[i] for i in node.inputs])
            values[self.quantization.fused.get(number, number)] = made
            for i in node.inputs:
                left[i] -= 1
                if not left[i]:
                    del values[i]
        return values[len(graph.nodes) - 1]

    def _computed(self, number: int, node: Node, inputs: list[Tensor]) -> Tensor:
        """Levels of a node's output, its activation included; float where it has no scale."""
        q = self.quantization
        out_number = q.fused.get(number, number)
        act = q.graph.nodes[out_number].type if out_number != number else ""
        made = q.scales.get(out_number)
        if number in q.float_nodes:
            return _finished(float_node(node, [self._real(i, x) for i, x in zip(node.inputs, inputs, strict=True)]),
                             act, made)  # fmt: skip
        if number in self._whole:
            weight, bias = self._whole[number]
            if node.type == "conv":
                out = F.conv2d(inputs[0], weight, bias, node.stride, node.padding, 1, node.groups)
            else:
                out = F.linear(inputs[0], weight, bias)
            out.mul_(self._factors[number])
            return _finished(out, act, None) if made is None else _bounded(out, act, made)
        scales = [q.scales.get(i) for i in node.inputs]
        if made is None or any(s is None for s in scales):
            return _finished(float_node(node, [self._real(i, x) for i, x in zip(node.inputs, inputs, strict=True)]),
                             act, made)  # fmt: skip
        given = [s for s in scales if s is not None]
        if node.type in KEEPS_SCALE:
            return moved(node, inputs[0])
        if node.type == "add":
            out = inputs[0] * _ratio(given[0], made)
            return _bounded(out.add_(inputs[1], alpha=_ratio(given[1], made)), act, made)
        if node.type == "mul":
            small, large = sorted(inputs, key=torch.numel)  # a gate of one value a channel, or of equal size
            return _bounded(large * (small * (given[0].scale * given[1].scale / made.scale)), act, made)
        if node.type == "concat":
            parts = [
                x if s == made else _bounded(x * _ratio(s, made), "", made) for x, s in zip(inputs, given, strict=True)
            ]
            return torch.cat(parts, 1)
        if node.type in ("avg_pool", "global_avg_pool", "relu", "relu6"):
            if node.type in ACTIVATIONS:
                return _bounded(inputs[0] * _ratio(given[0], made), node.type, made)
            return _bounded(float_node(node, inputs).mul_(_ratio(given[0], made)), act, made)
        real = inputs[0] * given[0].scale
        made_real = IN_PLACE[node.type](real) if node.type in IN_PLACE else float_node(node, [real])
        return _bounded(made_real.mul_(1.0 / made.scale), act, made)

    def _real(self, number: int, value: Tensor) -> Tensor:
        scale = self.quantization.scales.get(number)
        return value if scale is None else value * scale.scale


IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "hswish": partial(F.hardswish, inplace=True), "hsigmoid": partial(F.hardsigmoid, inplace=True),
    "sigmoid": torch.sigmoid_,
}  # fmt: skip


def int8_network(
    graph: Graph, images: Tensor, config: QuantizationConfig | None = None, labels: Tensor | None = None
) -> Int8Network:  # fmt: skip
    """Return a network in 8 bits, calibrated on training images; see `hwnas.export.quantization.calibrate`."""
    return Int8Network(calibrate(graph, images, config, labels))


def _ratio(given: Scale, made: Scale) -> float:
    return given.scale / made.scale


def _finished(out: Tensor, act: str, made: Scale | None) -> Tensor:
    """A float value after its activation, as levels where it has a scale."""
    if act:
        out = ACTIVATIONS[act](out)
    return out if made is None else _levels(out, made)


def _levels(real: Tensor, made: Scale) -> Tensor:
    """Levels of a real value; it may be read again, so it stays as it is."""
    return real.div(made.scale).round_().clamp_(made.lowest, made.highest)


def _bounded(out: Tensor, act: str, made: Scale) -> Tensor:
    """Round to levels, in place, within those of the map and of an activation."""
    lowest, highest = made.lowest, made.highest
    if act:
        lowest = 0
    if act == "relu6":
        highest = min(highest, round(6.0 / made.scale))
    return out.round_().clamp_(lowest, highest)
