"""In which further forms does a bundle hold its model? With images as input, for a batch of one, for other runtimes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor, nn

from hwnas.errors import ExportError, RecipeError
from hwnas.export.card import INT8_LITERT_FILE
from hwnas.export.litert import write_int8_litert, write_litert
from hwnas.export.onnx_check import run_onnx, session
from hwnas.export.onnx_file import write_onnx
from hwnas.export.openvino_ir import write_openvino
from hwnas.export.pixels import Preparation, verify_image_model, verify_preparation, write_image_model


@dataclass(frozen=True)
class Form:
    """One further form of a model."""

    files: tuple[str, ...]
    """In the bundle; the first says whether the form is there."""
    package: str = ""
    """That it needs besides hwnas' own; empty: none."""
    extra: str = ""
    """Of hwnas, which installs the package."""


FORMS: Mapping[str, Form] = {
    "image": Form(("model.image.onnx", "model.fp16.image.onnx", "model.int8.image.onnx")),
    "static": Form(
        tuple(
            f"model{number}{image}.static.onnx" for image in ("", ".image") for number in ("", ".fp16", ".int8")
        )
    ),
    "openvino": Form(("model.openvino.xml", "model.openvino.bin"), "openvino", "openvino-ir"),
    "litert": Form(("model.tflite", INT8_LITERT_FILE), "litert_torch", "litert"),
}  # fmt: skip
"""By the name that recipes and commands use. Of ``image`` and ``static`` there is one file for each ONNX file."""


def check_forms(forms: Collection[str]) -> None:
    """Raise where a form needs a package that is not installed.

    Raises:
        RecipeError: the package and what installs it are named.
    """
    for name in forms:
        form = FORMS[name]
        if form.package and find_spec(form.package) is None:
            raise RecipeError(f"{name} needs the package {form.package}: pip install 'hwnas[{form.extra}]'")


def write_forms(
    folder: Path, forms: Collection[str], network: nn.Module, described: Mapping[str, Any], inputs: Tensor,
    pixels: Tensor | None, calibration: Tensor | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write further forms of the ONNX files in a folder, and return how far they are from what they are made of.

    Args:
        folder: that is becoming a bundle.
        forms: names of `FORMS`.
        network: in float, in eval mode; LiteRT is made of it.
        described: the section ``input`` of the bundle's ``arch.json``.
        inputs: ``(N, C, H, W)`` real images as the network takes them.
        pixels: the same images as bytes, ``(N, C, decoded_px, decoded_px)``; needed for ``image``.
        calibration: ``(N, C, H, W)`` training images; given, LiteRT has a file in integers, too.

    Raises:
        RecipeError: a package is not installed.
        ExportError: a form does not compute what it should.
    """
    check_forms(forms)
    found: dict[str, Any] = {}
    numbers = sorted(folder.glob("model*.onnx"))
    if "image" in forms:
        if pixels is None:
            raise ExportError("a model that takes images is checked with images, and none were given")
        preparation = Preparation.of(described)
        found["image_input_off_levels"] = verify_preparation(preparation, pixels)
        for path in numbers:
            out = path.with_suffix(".image.onnx")
            write_image_model(path, out, preparation)
            verify_image_model(path, out, pixels, inputs)
    if "static" in forms:
        for path in sorted(folder.glob("model*.onnx")):
            out = path.with_suffix(".static.onnx")
            fix_batch(path, out)
            session(out)  # it can be loaded
    expected = run_onnx(folder / "model.onnx", inputs)
    if "openvino" in forms:
        xml = folder / FORMS["openvino"].files[0]
        found["openvino_parity"] = write_openvino(folder / "model.onnx", xml, inputs, expected)
    if "litert" in forms:
        path = folder / FORMS["litert"].files[0]
        found["litert_parity"] = write_litert(network, path, inputs)
        if calibration is not None:
            write_int8_litert(path, folder / INT8_LITERT_FILE, calibration)
    return found


def fix_batch(path: Path, out: Path, batch: int = 1) -> None:
    """Write a version of an ONNX file whose batch axis is a number, as compilers of devices want it.

    Args:
        path: a file whose first axes have a name.
        out: the new file.
        batch: images at a time.

    Raises:
        OutputError: it cannot be written.
    """
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch  # takes the place of the name
    del model.graph.value_info[:]  # they follow from the input
    write_onnx(onnx.shape_inference.infer_shapes(model, strict_mode=True), out)
