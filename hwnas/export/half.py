"""How does an ONNX file become one of 16-bit floats?"""

from __future__ import annotations

from pathlib import Path

import onnx

from hwnas.errors import ExportError
from hwnas.files import write_atomically


def halve_onnx(path: Path, out: Path) -> None:
    """Write a version of a file that stores weights and computes in float16; its input and output stay float32.

    It is half the size. It is faster where the device computes in float16, and slower on most CPUs, which convert.

    Args:
        path: the float32 file.
        out: the FP16 file.

    Raises:
        ExportError: the converter of ONNX Runtime cannot express it.
    """
    # Importing these takes seconds, and few need them; the second is part of the wheel of onnxruntime.
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        converted = onnx_ir.from_proto(convert_float_to_float16(onnx.load(str(path)), keep_io_types=True))
        converted.graph.sort()  # the converter puts the casts of inputs behind the nodes that read them
        model = onnx_ir.to_proto(converted)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # of the converter's own or of onnx's classes, which share no public base
        raise ExportError(f"{path} cannot be written in float16: {error}; export it in float32 or INT8") from error
    write_atomically(out, lambda p: onnx.save(model, str(p), format="protobuf"))
