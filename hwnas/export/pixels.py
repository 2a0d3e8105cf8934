"""How does a model take images as cameras give them? Its preparation of images becomes part of its graph.

The graph takes bytes in the order height, width, channel and does what `hwnas.data.inputs.as_input` does: floats in
0..1, resized, shifted and scaled. ``Resize`` with ``exclude_outside`` is the filter of PyTorch's and Pillow's bilinear
resizing with antialiasing; without it ONNX repeats the border, which is up to 13 levels off there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from hwnas.data.inputs import as_input
from hwnas.errors import ExportError
from hwnas.export.onnx_check import INT8_TOLERANCE, run_onnx, session
from hwnas.export.onnx_file import write_onnx
from hwnas.export.onnx_nodes import IR_VERSION, OPSET

INPUT = "image"
LEVELS_TOLERANCE = 0.01
"""Largest difference of the graph's preparation and the data pipeline's, in levels of 8 bits."""


@dataclass(frozen=True)
class Preparation:
    """What becomes of an image before a network sees it."""

    channels: int
    decoded_px: int
    """Edge of the square image that is given."""
    size_px: int
    """Edge of the network's input."""
    mean: Sequence[float]
    """Of every channel, for pixel values in 0..1."""
    std: Sequence[float]

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Preparation:
        """Return that of a bundle, from the section ``input`` of its ``arch.json``."""
        channels, size_px, _ = described["shape"]
        decoded_px = described.get("decoded_px", size_px)  # bundles of older versions do not say it
        return cls(channels, decoded_px, size_px, described["mean"], described["std"])

    @property
    def resize(self) -> str:
        """How images are resized, in words; empty: they are not."""
        if self.decoded_px == self.size_px:
            return ""
        antialias = "with antialiasing" if self.size_px < self.decoded_px else "without antialiasing"
        return f"{self.decoded_px} to {self.size_px} px, bilinear (half-pixel centres) {antialias}"

    def nodes(self, output: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Return what leads from bytes ``(batch, height, width, channels)`` to the network's input."""
        tensors = [numpy_helper.from_array(np.array(255, np.float32), f"{INPUT}.white")]
        shape = (1, self.channels, 1, 1)
        for name, values in (("mean", self.mean), ("std", self.std)):
            tensors.append(numpy_helper.from_array(np.array(values, np.float32).reshape(shape), f"{INPUT}.{name}"))
        nodes = [
            helper.make_node("Cast", [INPUT], [f"{INPUT}.real"], to=TensorProto.FLOAT),
            helper.make_node("Div", [f"{INPUT}.real", f"{INPUT}.white"], [f"{INPUT}.share"]),
        ]
        last = f"{INPUT}.share"
        if self.decoded_px != self.size_px:
            sizes = np.array([self.size_px, self.size_px], np.int64)
            tensors.append(numpy_helper.from_array(sizes, f"{INPUT}.sizes"))
            shrinks = int(self.size_px < self.decoded_px)
            # Before the transposition, which ONNX Runtime would else move behind it and forget the axes.
            nodes.append(
                helper.make_node(
                    "Resize", [last, "", "", f"{INPUT}.sizes"], [f"{INPUT}.resized"], mode="linear", axes=[1, 2],
                    coordinate_transformation_mode="half_pixel", antialias=shrinks, exclude_outside=shrinks,
                )
            )  # fmt: skip
            last = f"{INPUT}.resized"
        nodes.append(helper.make_node("Transpose", [last], [f"{INPUT}.planes"], perm=[0, 3, 1, 2]))
        last = f"{INPUT}.planes"
        nodes += [
            helper.make_node("Sub", [last, f"{INPUT}.mean"], [f"{INPUT}.shifted"]),
            helper.make_node("Div", [f"{INPUT}.shifted", f"{INPUT}.std"], [output]),
        ]
        return nodes, tensors

    def given(self, batch: int | str) -> onnx.ValueInfoProto:
        """Return the graph's input."""
        shape = [batch, self.decoded_px, self.decoded_px, self.channels]
        return helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape)


def write_image_model(path: Path, out: Path, preparation: Preparation) -> None:
    """Write a version of an ONNX file that takes images: input ``image``, uint8, batch x height x width x channels.

    Args:
        path: a file of any number format, whose only input is a float one.
        out: the new file.
        preparation: what the graph does first.

    Raises:
        OutputError: it cannot be written.
    """
    model = onnx.load(str(path))
    graph = model.graph
    (network_input,) = graph.input
    nodes, tensors = preparation.nodes(network_input.name)
    batch = network_input.type.tensor_type.shape.dim[0]
    del graph.input[:]
    graph.input.append(preparation.given(batch.dim_param or batch.dim_value))
    later = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *later])
    graph.initializer.extend(tensors)
    write_onnx(model, out)


def verify_preparation(preparation: Preparation, pixels: Tensor) -> float:
    """Compare what the graph makes of images, in ONNX Runtime, with what the data pipeline makes of them.

    Args:
        preparation: of a bundle.
        pixels: ``(N, channels, decoded_px, decoded_px)`` uint8, real images.

    Returns:
        The largest difference, in levels of 8 bits.

    Raises:
        ExportError: it is above `LEVELS_TOLERANCE`.
    """
    p = preparation
    nodes, tensors = p.nodes("prepared")
    shape = ["batch", p.channels, p.size_px, p.size_px]
    made = helper.make_tensor_value_info("prepared", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "hwnas", [p.given("batch")], [made], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    images = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())
    (found,) = session(model.SerializeToString()).run(None, {INPUT: images})
    expected = as_input(pixels.cpu(), p.size_px, p.mean, p.std).numpy()
    levels = 255 * np.array(p.std, np.float32).reshape(1, -1, 1, 1)
    off = float(np.abs((found - expected) * levels).max())
    if not off <= LEVELS_TOLERANCE:
        raise ExportError(
            f"images prepared in the graph are {off:.2g} levels of 8 bits off, allowed is {LEVELS_TOLERANCE:g}; "
            "export without --image-input, and report it"
        )
    return off


def verify_image_model(path: Path, out: Path, pixels: Tensor, inputs: Tensor) -> None:
    """Compare a file that takes images with the file that it was made of, in ONNX Runtime.

    Args:
        path: the file that takes prepared images.
        out: the file that takes images as bytes.
        pixels: ``(N, channels, decoded_px, decoded_px)`` uint8, real images.
        inputs: the same images as the network takes them.

    Raises:
        ExportError: it does not run, or answers differ on average by more than rounding does.
    """
    images = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())
    expected = run_onnx(path, inputs).numpy()
    try:
        (found,) = session(out).run(None, {INPUT: images})
    except Exception as error:  # ONNX Runtime raises its own classes, which share no public base
        raise ExportError(f"{out} does not run in ONNX Runtime: {error}; export without --image-input") from error
    off = float(np.abs(found - expected).mean()) / max(float(np.abs(expected).max()), 1e-12)
    if not off <= INT8_TOLERANCE:
        raise ExportError(
            f"{out} differs from {path.name} by {off:.1e} of the output scale, allowed is {INT8_TOLERANCE:.0e}; export "
            "without --image-input, and report it"
        )
