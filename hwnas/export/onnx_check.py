"""Does an ONNX file compute what its network does, in ONNX Runtime?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.errors import ExportError

PARITY_TOLERANCE = 1e-4
"""Largest difference of ONNX Runtime and PyTorch, relative to the largest absolute logit."""


EXACT_8_BITS = ("session.x64quantprecision", "1")
"""Entry of ONNX Runtime's session configuration that lets it add products of 8 bits exactly on every x86 processor.

Without it, sums overflow 16 bits on processors with AVX2 or AVX-512 but no VNNI, and a network in 8 bits gives other
classes there. On all other processors it changes nothing."""

INT8_TOLERANCE = 1e-2
"""Largest mean difference of ONNX Runtime and the evaluation in 8 bits, relative to the largest absolute output."""


def session(model: Path | bytes, threads: int = 1) -> Any:
    """Return an ONNX Runtime CPU session of a file or of serialised bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry(*EXACT_8_BITS)
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_onnx(path: Path, inputs: Tensor, batch_size: int = 500) -> Tensor:
    """Return ``(N, classes)`` outputs of a file in ONNX Runtime on the CPU."""
    runner = session(path)
    name = runner.get_inputs()[0].name
    parts = [runner.run(None, {name: x.contiguous().numpy()})[0] for x in _batches(inputs, batch_size)]
    return torch.from_numpy(np.concatenate(parts))


class OnnxNetwork(nn.Module):
    """An ONNX file as a network: ``(N, C, H, W)`` to ``(N, classes)`` in ONNX Runtime on the CPU."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the file."""
        return run_onnx(self.path, inputs.cpu())


def _batches(inputs: Tensor, size: int) -> Iterator[Tensor]:
    return (inputs[i : i + size] for i in range(0, len(inputs), size))


def verify_int8(path: Path, network: nn.Module, inputs: Tensor) -> float:
    """Compare a file in 8 bits, in ONNX Runtime, with the network that was evaluated in 8 bits.

    Single levels may differ by rounding, so what is compared is the mean.

    Args:
        path: the file.
        network: a `hwnas.export.int8_network.Int8Network`.
        inputs: ``(N, C, H, W)`` real images.

    Returns:
        The mean absolute difference, as a share of the largest absolute output.

    Raises:
        ExportError: it is above `INT8_TOLERANCE`, or the file does not run.
    """
    with torch.inference_mode():
        expected = network(inputs)
    try:
        got = run_onnx(path, inputs)
    except Exception as error:  # ONNX Runtime raises its own classes, which share no public base
        raise ExportError(f"{path} does not run in ONNX Runtime: {error}") from error
    off = float((got - expected).abs().mean()) / float(expected.abs().max().clamp(min=1e-12))
    if not off <= INT8_TOLERANCE:
        raise ExportError(
            f"{path} differs from its evaluation by {off:.1e} of the output scale, allowed is {INT8_TOLERANCE:.0e}; "
            "report it, with the output of `hwnas doctor`"
        )
    return off


def verify_onnx(path: Path, module: nn.Module, inputs: Tensor) -> float:
    """Compare a file in ONNX Runtime with the network in PyTorch, at batch 1 and at the full batch.

    Args:
        path: the file.
        module: what it should compute, in eval mode.
        inputs: ``(N, C, H, W)``, N at least 2; real images, since noise through trained weights says little.

    Returns:
        The largest absolute difference, as a share of the largest absolute output.

    Raises:
        ExportError: it is above `PARITY_TOLERANCE`, or the batch axis is not dynamic.
    """
    with torch.inference_mode():
        expected = module(inputs)
    scale = float(expected.abs().max().clamp(min=1e-12))
    worst = 0.0
    for part, wanted in ((inputs, expected), (inputs[:1], expected[:1])):
        try:
            got = run_onnx(path, part)
        except Exception as error:  # ONNX Runtime raises its own classes, which share no public base
            raise ExportError(f"{path} does not run in ONNX Runtime at batch {len(part)}: {error}") from error
        worst = float(np.maximum(worst, float((got - wanted).abs().max()) / scale))  # unlike max, keeps NaN
    if not worst <= PARITY_TOLERANCE:
        raise ExportError(
            f"{path} differs from PyTorch by {worst:.1e} of the output scale, allowed is {PARITY_TOLERANCE:.0e}; "
            "recalibrate batch norm and export again, and report it if it stays"
        )
    return worst
