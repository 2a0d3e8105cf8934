"""How does a model become OpenVINO's own format? Its converter reads the ONNX file; its CPU runtime is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from hwnas.errors import ExportError
from hwnas.export.onnx_check import INT8_TOLERANCE, PARITY_TOLERANCE


def write_openvino(path: Path, out: Path, inputs: Tensor, expected: Tensor) -> float:
    """Write the IR of an ONNX file (``.xml`` and ``.bin``), weights as they are there, and compare it.

    Args:
        path: the ONNX file, in float or in 8 bits.
        out: the ``.xml`` file.
        inputs: ``(N, C, H, W)`` real images.
        expected: what ONNX Runtime makes of them.

    Returns:
        In float the largest difference from ONNX Runtime, in 8 bits the mean one, as a share of the largest absolute
        output. In 8 bits each runtime rounds in its own way.

    Raises:
        ExportError: it is converted to something else, or not at all.
    """
    import onnx
    import openvino

    try:
        model = openvino.convert_model(str(path))
        openvino.save_model(model, str(out), compress_to_fp16=False)
        # The precision is that of the file: by itself OpenVINO computes in bfloat16 where the processor can.
        hint = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(str(out), "CPU", hint)
        got = np.asarray(compiled(inputs.contiguous().numpy())[0])
    except RuntimeError as error:
        raise ExportError(f"{path} cannot be converted by OpenVINO: {error}; export without --openvino") from error
    in_8_bits = any(node.op_type == "QuantizeLinear" for node in onnx.load(str(path)).graph.node)
    off = np.abs(got - expected.numpy())
    share = float(off.mean() if in_8_bits else off.max()) / max(float(expected.abs().max()), 1e-12)
    allowed = INT8_TOLERANCE if in_8_bits else PARITY_TOLERANCE
    if not share <= allowed:
        raise ExportError(
            f"{out} differs from ONNX Runtime by {share:.1e} of the output scale, allowed is {allowed:.0e}; "
            "export without --openvino, and report it"
        )
    return share
