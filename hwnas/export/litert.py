"""How does a model become a file for LiteRT (TensorFlow Lite)? litert-torch converts the network; it is compared.

For devices that compute in 8 bits only, such as the Edge TPU, ai-edge-quantizer makes a second file of the first, in
which every tensor is an integer.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.errors import ExportError
from hwnas.export.onnx_check import PARITY_TOLERANCE

LEVELS = (-128, 127)
"""Of an input in 8 bits."""


class LiteRtNetwork(nn.Module):
    """A ``.tflite`` file as a network: ``(N, C, H, W)`` to ``(N, classes)``, one image at a time, on the CPU.

    Input and output in 8 bits are scaled as the file says; what is given and returned is in float32.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the file."""
        interpreter = self._interpreter()
        given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        outputs = []
        for image in inputs.cpu().contiguous():
            interpreter.set_tensor(given["index"], _in_levels(image[None].numpy(), given))
            interpreter.invoke()
            outputs.append(_in_float(interpreter.get_tensor(made["index"]), made))
        return torch.from_numpy(np.concatenate(outputs))

    @property
    def float_tensors(self) -> list[str]:
        """Names of the tensors that are not integers."""
        details = self._interpreter().get_tensor_details()
        return [t["name"] for t in details if t["dtype"] in (np.float32, np.float16)]

    @property
    def input_scale(self) -> tuple[float, int]:
        """Scale and zero point of an input in 8 bits: a value is ``scale * (level - zero point)``."""
        scale, zero_point = self._interpreter().get_input_details()[0]["quantization"]
        return float(scale), int(zero_point)

    def _interpreter(self) -> Any:
        """A new one: a network is copied and moved, which an interpreter cannot be."""
        from ai_edge_litert.interpreter import Interpreter

        made = Interpreter(str(self.path), num_threads=1)
        made.allocate_tensors()
        return made


def _in_levels(image: NDArray[np.float32], given: dict[str, Any]) -> NDArray[Any]:
    if given["dtype"] == np.float32:
        return image
    scale, zero_point = given["quantization"]
    levels: NDArray[Any] = np.clip(np.round(image / scale + zero_point), *LEVELS).astype(given["dtype"])
    return levels


def _in_float(levels: NDArray[Any], made: dict[str, Any]) -> NDArray[np.float32]:
    if levels.dtype == np.float32:
        return levels
    scale, zero_point = made["quantization"]
    return np.asarray((levels.astype(np.float32) - zero_point) * scale, dtype=np.float32)


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
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    images = inputs[:8].contiguous()
    try:
        with torch.inference_mode():
            expected = plain(images)
        with _silence():
            import litert_torch

            litert_torch.convert(plain, (images[:1],)).export(str(out))
        got = LiteRtNetwork(out)(images)
    except Exception as error:  # of torch.export, MLIR and the interpreter, whose classes share no base
        raise ExportError(f"{out} cannot be converted by litert-torch: {error}; export without --litert") from error
    share = float((got - expected).abs().max()) / max(float(expected.abs().max()), 1e-12)
    if not share <= PARITY_TOLERANCE:
        raise ExportError(
            f"{out} differs from PyTorch by {share:.1e} of the output scale, allowed is {PARITY_TOLERANCE:.0e}; "
            "export without --litert, and report it"
        )
    return share


def write_int8_litert(path: Path, out: Path, calibration: Tensor) -> None:
    """Write a ``.tflite`` file in which weights, activations, input and output are integers of 8 bits.

    Ranges of activations are those that the calibration images reach. (The quantiser's own choice, a moving average of
    what single images reach, cuts off more: of cluttered digits 88 % came into the same class as in float, with the
    whole ranges 96 %.)

    Args:
        path: the file in float32.
        out: the new file.
        calibration: ``(N, C, H, W)`` training images as the network takes them.

    Raises:
        ExportError: it cannot be quantised, or something in it is still computed in float.
    """
    try:
        with _silence():
            from ai_edge_litert.interpreter import Interpreter
            from ai_edge_quantizer import recipe, recipe_manager
            from ai_edge_quantizer.calibrator import Calibrator
            from ai_edge_quantizer.quantizer import Quantizer
            from ai_edge_quantizer.utils.qsv_utils import min_max_update

            ((name, ends),) = Interpreter(str(path)).get_signature_list().items()
            images = [{ends["inputs"][0]: image[None].numpy()} for image in calibration.contiguous()]
            wanted = recipe_manager.RecipeManager()
            wanted.load_quantization_recipe(recipe.static_wi8_ai8())
            calibrator = Calibrator(str(path), num_threads=1, qsv_update_func=min_max_update)
            calibrator.calibrate({name: images}, wanted)
            made = Quantizer(str(path), recipe.static_wi8_ai8()).quantize(calibrator.get_model_qsvs())
            made.export_model(str(out), overwrite=True)
        in_float = LiteRtNetwork(out).float_tensors
    except Exception as error:  # the quantiser raises what it likes
        raise ExportError(
            f"{out} cannot be quantised by ai-edge-quantizer: {error}; export without --litert"
        ) from error
    if in_float:
        raise ExportError(f"{out} still computes {', '.join(in_float[:3])} in float; export without --litert")


@contextmanager
def _silence() -> Iterator[None]:
    """Hide how far the tools are, and what torch deprecates."""
    levels = {name: logging.getLogger(name).level for name in ("litert_torch", "absl")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
