"""What does a reader of a bundle need to know? Its model card: input, files with their accuracy and speed, licences."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from hwnas.errors import one_line
from hwnas.export.pixels import LEVELS_TOLERANCE, Preparation

FORMATS = {"fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
"""Number formats that a bundle may have besides its own, and their files."""
INT8_LITERT_FILE = "model.int8.tflite"
"""For LiteRT, all in integers; there, where the model is also wanted in 8 bits."""
LITERT_INT8 = "litert_int8"
"""As what the test score of the file for LiteRT in integers is kept."""
TIMING = "measured_latency"
"""Number of a bundle: how long its model takes on its device; with a number format behind it, that file."""
SLOWDOWN = "machine_slowdown"
"""Of a timing: how many times slower the machine was then than when the table of its device was made."""
OVERFLOW = """
In ONNX Runtime on x86, open INT8 files with the session configuration `session.x64quantprecision` = `1`, as
`run_model.py` does: on processors with AVX2 or AVX-512 but no VNNI, sums of 8-bit products overflow without it.
"""
ALONE = "trained_alone"
"""Of a model that began with fresh weights: no supernet gave it any."""
UNKNOWN = "unknown"
"""What is said of a licence that nobody has stated."""


def model_card(described: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Return the card of a bundle as Markdown.

    Args:
        described: its ``arch.json``.
        metrics: its ``metrics.json``.
    """
    preparation = Preparation.of(described["input"])
    shape = " x ".join(map(str, described["input"]["shape"]))
    rows = "\n".join(
        f"| {_markdown(k)} | {f'{v:.6g}' if isinstance(v, float) else _markdown(v)} |"
        for k, v in metrics.items()
        if not isinstance(v, Mapping)
    )
    classes = ", ".join(map(_markdown, described["classes"]))
    blocks = "\n".join(
        f"| {b['slot']} | {b['kind']} | {b['in_channels']} | {b['out_channels']} | {b['in_size_px']} | "
        f"{b.get('kernel_size', '')} | {b.get('mid_channels', '')} |"
        for b in described["blocks"]
    )
    parts = [
        f"""# {described["key"]}

{_came(described, metrics)}, exported by hwnas.

- Input `input`: float32, batch x {shape}; pixel values in 0..1, minus mean {described["input"]["mean"]},
  divided by standard deviation {described["input"]["std"]}, per channel.
- Output `logits`: batch x {len(described["classes"])}, in the order {classes}.
- `python run_model.py IMAGE` classifies images; it needs onnxruntime, numpy and pillow. Images are turned upright,
  resized at their shorter edge to {preparation.decoded_px} px (bilinear), cut to the centre, and brought to
  the size of the input.
- `hwnas.load_model(FOLDER)` gives the PyTorch network back.
""",
        _files(described, metrics),
        _images(described, preparation, metrics),
        _commands(described),
        _licences(described),
        f"""## Numbers

| number | value |
|---|---|
{rows}
""",
        f"""## Blocks

| slot | block | in channels | out channels | input px | kernel | middle channels |
|---|---|---|---|---|---|---|
{blocks}
""",
    ]
    return "\n".join(part for part in parts if part)


def _came(described: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    family = f"`{described['supernet']['family']}`"
    if metrics.get(ALONE):
        return f"A network of the family {family}, trained alone from fresh weights"
    return f"A subnet of a {family} supernet"


def _files(described: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Every model file: its size, and of number formats the test score and the measured latency."""
    sizes = {n: s for n, s in described.get("bytes", {}).items() if n.startswith("model.")}
    if not sizes:
        return ""
    tests = {
        "model.onnx": "own", **{file: name for name, file in FORMATS.items()}, INT8_LITERT_FILE: LITERT_INT8,
    }  # fmt: skip
    scores = described.get("test_scores", {})
    own = str(metrics.get("precision", "fp32"))
    lines = []
    for file, size in sizes.items():
        which = tests.get(file, "")
        tested = metrics.get(scores.get(which, "")) if which else None
        timed = metrics.get(TIMING if which == "own" else f"{TIMING}_{which}") if which else None
        lines.append(
            f"| {file} | {_number_format(file, own)} | {size / 1000:.1f} | {_number(tested)} | {_measured(timed)} |"
        )
    heading = _markdown(scores.get("own", "test score"))
    return (
        f"## Files\n\n| file | number format | kB | {heading} | measured latency, ms |\n|---|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n"
        + _timed(metrics.get(TIMING))
        + (OVERFLOW if any(_number_format(file, own) == "INT8" and file.endswith(".onnx") for file in sizes) else "")
    )


def _number_format(file: str, own: str) -> str:
    """Of a model file by its name: a format that it names, else that of ``model.onnx``; LiteRT's are made of floats."""
    named = next((name for name in FORMATS if f".{name}." in file), None)
    return (named or ("fp32" if file.endswith(".tflite") else own)).upper()


def at_table_speed_ms(timing: Any) -> float | None:
    """Return a measured latency in ms as it is at the speed that the machine had when its table was made.

    All measured latencies that are shown are at this speed, so that they can be compared with each other and with
    estimates.

    Args:
        timing: of `TIMING` in a bundle's ``metrics.json``; None is returned where it is none.
    """
    if not isinstance(timing, Mapping) or not isinstance(timing.get("median_ms"), int | float):
        return None
    slowdown = timing.get(SLOWDOWN, 1.0)
    ms = timing["median_ms"] / slowdown if isinstance(slowdown, int | float) and slowdown > 0 else math.nan
    return ms if math.isfinite(ms) else None


def _timed(timing: Any) -> str:
    """Where the latencies were measured, and at which speed of the machine."""
    ms = at_table_speed_ms(timing)
    if ms is None:
        return ""
    where = timing.get("conditions")
    stated = ""
    if isinstance(where, Mapping):
        on, runtime, threads = (_markdown(where.get(k, "")) for k in ("device", "runtime", "threads"))
        stated = f" on {on} with {runtime} and {threads} thread(s)"
    speed, slowdown = "", timing.get(SLOWDOWN, 1.0)
    if slowdown != 1:
        speed = (
            f" The machine then took {slowdown:.2f} times as long as when the table of its device was made; the "
            f"latencies are at the speed of the table, as `hwnas pareto` and the report show them. "
            f"As timed, `model.onnx` took {timing['median_ms']:.4g} ms."
        )
    return f"\nMeasured{stated}.{speed}\n"


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else ""


def _measured(timing: Any) -> str:
    ms = at_table_speed_ms(timing)
    return "" if ms is None else f"{ms:.4g}{_spread(timing)}"


def _spread(value: Mapping[str, Any]) -> str:
    """How certain a median is: half of its 95 % confidence interval."""
    percent = value.get("ci_percent")
    return f" ± {percent / 2:.2g} %" if isinstance(percent, int | float) and math.isfinite(percent) else ""


def _images(described: Mapping[str, Any], preparation: Preparation, metrics: Mapping[str, Any]) -> str:
    """What the files do that take images."""
    if not any(".image." in name for name in described.get("bytes", {})):
        return ""
    p = preparation
    steps = [f"resized from {p.resize}"] if p.resize else []
    off = metrics.get("image_input_off_levels")
    seen = f" (seen: {off:.1g})" if isinstance(off, float) else ""
    return f"""## Files that take images

`*.image.onnx` have the input `image`: uint8, batch x {p.decoded_px} x {p.decoded_px} x {p.channels} (height, width,
channel), and do the rest themselves: {", ".join([*steps, "divided by 255", "shifted and scaled as above"])}.
The result is that of the data pipeline within {LEVELS_TOLERANCE:g} of a level of 8 bits{seen}. Photographs
are still to be turned upright, resized at their shorter edge and cut to the centre before.
"""


def _commands(described: Mapping[str, Any]) -> str:
    commands = described.get("device_commands", ())
    if not commands:
        return ""
    lines = "\n".join(commands)
    return f"## On the device\n\nWith the vendor's tools, which are not part of hwnas:\n\n```\n{lines}\n```\n"


def _licences(described: Mapping[str, Any]) -> str:
    stated = described.get("licences", {})
    lines = "\n".join(
        f"- {what}: {_markdown(stated.get(name) or UNKNOWN)}"
        for name, what in (("weights", "These weights"), ("start", "What they began with"), ("data", "Training images"))
    )
    return f"## Licences\n\n{lines}\n"


def _markdown(text: object) -> str:
    """Return a text as Markdown shows it in a line or a cell: nothing in it is markup, a link or a new line."""
    return re.sub(r"([\\`*{}\[\]<>|#]|(?<!\w)_|_(?!\w))", r"\\\1", one_line(str(text)))
