"""How does a model become a file for LiteRT (TensorFlow Lite)? litert-torch converts the network; it is compared."""

from __future__ import annotations

import copy
import logging
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.errors import ExportError
from hwnas.export.onnx_check import PARITY_TOLERANCE


def write_litert(network: nn.Module, out: Path, inputs: Tensor) -> float:
    """Write a network as a ``.tflite`` file for one image, in float32, and compare it.

    Args:
        network: in eval mode; it is not changed.
        out: the file.
        inputs: ``(N, C, H, W)`` real images; a few of them are compared.

    Returns:
        The largest difference from PyTorch, as a share of the largest absolute output.

    Raises:
        ExportError: it is converted to something else, or not at all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litert_torch
        from ai_edge_litert.interpreter import Interpreter

    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    images = inputs[:8].contiguous()
    levels = {name: logging.getLogger(name).level for name in ("litert_torch", "absl")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with torch.inference_mode():
            expected = plain(images)
        with warnings.catch_warnings(), redirect_stdout(StringIO()):  # it says how far it is, and what torch deprecates
            warnings.simplefilter("ignore")
            litert_torch.convert(plain, (images[:1],)).export(str(out))
        interpreter = Interpreter(str(out))
        interpreter.allocate_tensors()
        given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        got = []
        for image in images:
            interpreter.set_tensor(given["index"], image[None].numpy())
            interpreter.invoke()
            got.append(interpreter.get_tensor(made["index"]))
    except Exception as error:  # of torch.export, MLIR and the interpreter, whose classes share no base
        raise ExportError(f"{out} cannot be converted by litert-torch: {error}; export without --litert") from error
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    share = float(np.abs(np.concatenate(got) - expected.numpy()).max()) / max(float(expected.abs().max()), 1e-12)
    if not share <= PARITY_TOLERANCE:
        raise ExportError(
            f"{out} differs from PyTorch by {share:.1e} of the output scale, allowed is {PARITY_TOLERANCE:.0e}; "
            "export without --litert, and report it"
        )
    return share
