"""What does a traced network compute? The same as the network, operator by operator, so that every map can be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hwnas.errors import ExportError
from hwnas.export.graph import Graph, Node

Look = Callable[[int, Tensor], None]
"""Is shown the number of a node (-1: the image) and what it computed."""


def run_graph(graph: Graph, images: Tensor, look: Look) -> Tensor:
    """Return the outputs of a traced network, and show every value on the way.

    Args:
        graph: the trace.
        images: ``(N, C, H, W)``.
        look: must not change what it is shown.
    """
    left = reads_left(graph)
    values: dict[int, Tensor] = {-1: images}
    look(-1, images)
    for number, node in enumerate(graph.nodes):
        values[number] = float_node(node, [values[i] for i in node.inputs])
        look(number, values[number])
        for i in node.inputs:
            left[i] -= 1
            if not left[i]:
                del values[i]
    return values[len(graph.nodes) - 1]


def reads_left(graph: Graph) -> dict[int, int]:
    """Return how often each value is read."""
    left: dict[int, int] = {}
    for node in graph.nodes:
        for i in node.inputs:
            left[i] = left.get(i, 0) + 1
    return left


def float_node(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Return what one operator computes in float."""
    x = inputs[0]
    weight, bias = node.tensors.get("weight"), node.tensors.get("bias")
    if node.type == "conv":
        assert weight is not None
        return F.conv2d(x, weight, bias, node.stride, node.padding, 1, node.groups)
    if node.type == "linear":
        assert weight is not None
        return F.linear(x, weight, bias)
    if node.type == "batch_norm":
        scale, shift = (node.tensors[k].float().view(1, -1, 1, 1) for k in ("scale", "shift"))
        return x * scale + shift
    if node.type == "add":
        return inputs[0] + inputs[1]
    if node.type == "mul":
        return inputs[0] * inputs[1]
    if node.type == "concat":
        return torch.cat(list(inputs), 1)
    if node.type == "avg_pool":
        return F.avg_pool2d(x, node.kernel_size, node.stride, node.padding, node.ceil_mode, False)
    if node.type == "global_avg_pool":
        return x.mean((2, 3), keepdim=True)
    return moved(node, x) if node.type in MOVES else ACTIVATIONS[node.type](x)


MOVES = ("flatten", "max_pool", "split", "item", "shuffle", "zeros")
"""Operators that only move, pick or drop values, so that they do the same to integers."""


def moved(node: Node, x: Tensor) -> Tensor:
    """Return what an operator of `MOVES` makes of values of any kind."""
    if node.type == "flatten":
        return x.flatten(1)
    if node.type == "max_pool":
        return F.max_pool2d(x, node.kernel_size, node.stride, node.padding, ceil_mode=node.ceil_mode)
    if node.type == "item":
        return x.chunk(node.groups, 1)[node.index]
    if node.type == "shuffle":
        return F.channel_shuffle(x, node.groups)
    if node.type == "zeros":
        return torch.zeros_like(x)
    if node.type == "split":
        return x  # its parts are taken one by one
    raise ExportError(f"operator {node.type} moves no values")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu, "relu6": F.relu6, "hswish": F.hardswish, "hsigmoid": F.hardsigmoid, "sigmoid": torch.sigmoid,
}  # fmt: skip
