"""How many elements of feature maps are in memory at once, while a network runs in the order of its trace?

Counted is what a runtime without a clever planner needs: an operator's inputs and its output are there together; a map
stays until its last reader has run, so a residual stays over its whole block; the image is there until it is read.
A relu is executed inside the operator before it where nobody else reads that one's map. Flattening, and taking one part
of a split, move nothing: the parts are one map.
"""

from __future__ import annotations

from hwnas.export.graph import Graph

IN_PLACE = ("relu", "relu6")
VIEWS = ("flatten", "item")


def peak_elements(graph: Graph, in_channels: int, in_size_px: int) -> int:
    """Return the elements of all maps that are alive at once, at most, for one image.

    Args:
        graph: a traced network or block.
        in_channels: of its input.
        in_size_px: height and width of its input.
    """
    shapes = graph.shapes(in_channels, in_size_px)
    readers: dict[int, int] = {}
    for node in graph.nodes:
        for i in node.inputs:
            readers[i] = readers.get(i, 0) + 1
    last = len(graph.nodes) - 1
    buffer = {-1: -1}  # a value's number to that of the value whose memory it lies in
    for number, node in enumerate(graph.nodes):
        source = node.inputs[0]
        shares = node.type in VIEWS or (node.type in IN_PLACE and readers[source] == 1)
        buffer[number] = buffer[source] if shares else number
    until = dict.fromkeys(buffer.values(), -1)
    for number, node in enumerate(graph.nodes):
        for i in node.inputs:
            until[buffer[i]] = number
    until[buffer[last]] = last + 1
    elements = {b: shapes[b][0] * shapes[b][1] ** 2 for b in until}
    peak = alive = elements[-1]
    ends: dict[int, list[int]] = {}
    for b, end in until.items():
        ends.setdefault(end, []).append(b)
    for number in range(len(graph.nodes)):
        if buffer[number] == number:
            alive += elements[number]
        peak = max(peak, alive)
        alive -= sum(elements[b] for b in ends.get(number, ()))
    return peak
