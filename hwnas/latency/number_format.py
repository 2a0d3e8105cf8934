"""How many bytes does a number take on a device? What a profile says of its precision decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hwnas.errors import TableError, shown

Precision = Literal["fp32", "int8"]
"""In what a network is evaluated."""


@dataclass(frozen=True)
class NumberFormat:
    """Bytes of what a network keeps in memory and in flash."""

    activation: int
    """Of one element of a feature map."""
    weight: int
    """Of one weight of a convolution or linear layer."""
    bias: int
    """Of one bias, and of what a batch norm adds and multiplies where it stands alone."""
    channel: int
    """Of each output channel of a convolution or linear layer besides: the scale of its weights."""


_INT8 = NumberFormat(activation=1, weight=1, bias=4, channel=4)
_HALF = NumberFormat(activation=2, weight=2, bias=2, channel=0)
_SINGLE = NumberFormat(activation=4, weight=4, bias=4, channel=0)


def evaluated_precision(precision: str) -> Precision:
    """Return in what networks for a device are evaluated, from the precision that its profile states.

    Half precision loses nothing that a validation split would show, so it counts as ``fp32``; and so does a precision
    that is not known or not stated, or of which only the weights are small.
    """
    return "int8" if precision.lower().startswith(("int8", "w8a8")) else "fp32"


UNWRITTEN = ("w8a16", "w4", "int16", "int4", "fp8")
"""Precisions that no file of hwnas has, and that no runtime makes of one by itself, as some make half precision."""


def check_written(precision: str, device: str) -> None:
    """Raise where models cannot be timed in a precision, since none are written in it.

    Raises:
        TableError: the precision is one of `UNWRITTEN`.
    """
    if precision.lower().startswith(UNWRITTEN):
        raise TableError(
            f"device {device!r} computes in {shown(precision, 40)}, in which hwnas writes no models to time; give a "
            "profile in fp32, fp16 or int8, or fit one with `hwnas tables fit`"
        )


def number_format(precision: str) -> NumberFormat:
    """Return the bytes of numbers of a precision, as profiles and `hwnas.export.onnx_facts.precision_of` name it.

    ``int8`` has weights with one scale a channel and biases of 32 bits; in ``fp32 (int8 weights)`` only the weights are
    small. A precision that is not known or not stated counts as 32 bits.
    """
    computing, _, weights = precision.lower().partition(" (")
    small = weights.startswith("int8")
    if evaluated_precision(precision) == "int8":
        return _INT8
    found = _HALF if computing.startswith(("fp16", "bf16", "float16")) else _SINGLE
    return NumberFormat(found.activation, 1, found.bias, 4) if small else found
