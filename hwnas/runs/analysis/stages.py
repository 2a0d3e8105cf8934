"""What was each model on its way into a file: as inherited, trained to its end, fine-tuned, in other number formats?"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.export.bundle import Bundle
from hwnas.export.card import FORMATS, TIMING, at_table_speed_ms
from hwnas.report.data import Stage
from hwnas.runs.evaluations import Evaluations
from hwnas.runs.finished import FinishedModel
from hwnas.runs.front import MEASURED, FrontModel
from hwnas.task import Score


def stages_of(evaluations: Evaluations, model: FrontModel) -> list[Stage]:
    """Return the steps of one model of a front, first to last; what is not known is None."""
    context = evaluations.context
    score, folder = context.score, context.folder
    metrics, sizes = _read(Bundle(model.folder))
    found = []
    lineage = evaluations.weights.finished.lineage(model.weights_version)
    in_float = _number(metrics, f"test_{score.named('fp32')}")
    if lineage:
        came = "as the supernet gave it" if lineage[0].parent else "fresh weights"
        trained_in = "" if in_float is None else "in FP32"  # trainings are scored as they train
        found.append(Stage(came, lineage[0].score_before, note=trained_in))
        found += [
            Stage(_training(one), one.score, note=", ".join(filter(None, (trained_in, _epochs(one)))))
            for one in lineage[:-1]
        ]
    name = _training(lineage[-1]) if lineage else "as the supernet gives it"
    note = _epochs(lineage[-1]) if lineage else ""
    exported = Stage(
        name, model.values[score.name], _number(metrics, f"test_{score.name}"), model.values.get(MEASURED),
        sizes.get("model.onnx"), note, _number(model.values, score.named("stderr")),
        _number(metrics, f"test_{score.named('stderr')}"), _measured_stderr(metrics, TIMING),
    )  # fmt: skip
    found.append(exported)
    if in_float is not None:  # of a device in 8 bits: what the network is before it is quantised
        stderr = _number(metrics, f"test_{score.named('stderr')}")
        found.append(Stage("the same in FP32", model.values.get(score.named("fp32")), in_float, test_stderr=stderr))
    found += _formats(metrics, sizes, score, "")
    tuned = (folder.finetuned / model.device).glob(f"{model.key}*")
    on_front = {one.weights_version for one in lineage}
    for path in sorted(tuned, key=lambda p: (len(p.name), p.name)):  # ...-10 after ...-2
        if _read(Bundle(path))[0].get("weights_version") not in on_front:
            found += _finetuned(path, score)
    return found


def _training(model: FinishedModel) -> str:
    return "fine-tuned" if model.finetuned else "trained to its end"


def _epochs(model: FinishedModel) -> str:
    return f"{model.epochs:g} epochs, best after {model.best_epoch}"


def _finetuned(bundle: Path, score: Score) -> list[Stage]:
    metrics, sizes = _read(Bundle(bundle))
    if f"test_{score.name}" not in metrics:
        return []
    before = _number(metrics, score.named("before"))
    note = "" if before is None else f"from {before:.2f} {score.unit}"
    if metrics.get("best_epoch") == 0:
        note = "no epoch was better, the start is kept"
    found = Stage(
        "fine-tuned", _number(metrics, score.name), _number(metrics, f"test_{score.name}"),
        at_table_speed_ms(metrics.get(TIMING)), sizes.get("model.onnx"), note, _number(metrics, score.named("stderr")),
        _number(metrics, f"test_{score.named('stderr')}"), _measured_stderr(metrics, TIMING),
    )  # fmt: skip
    return [found, *_formats(metrics, sizes, score, "fine-tuned, ")]


def _formats(metrics: Mapping[str, Any], sizes: Mapping[str, float], score: Score, before: str) -> list[Stage]:
    return [
        Stage(
            f"{before}{name.upper()}", None, _number(metrics, f"test_{score.named(name)}"),
            at_table_speed_ms(metrics.get(f"{TIMING}_{name}")), sizes[file],
            test_stderr=_number(metrics, f"test_{score.named('stderr')}"),  # of as many images, as many of them right
            latency_stderr_ms=_measured_stderr(metrics, f"{TIMING}_{name}"),
        )
        for name, file in FORMATS.items()
        if file in sizes
    ]  # fmt: skip


def _read(bundle: Bundle) -> tuple[dict[str, Any], dict[str, float]]:
    """A bundle's numbers, and the sizes of its files in MB; empty where there is no bundle."""
    if not (bundle.folder / "metrics.json").exists() or not (bundle.folder / "arch.json").exists():
        return {}, {}
    sizes = bundle.arch_json.get("bytes")
    known = sizes if isinstance(sizes, dict) else {}
    return bundle.metrics, {name: round(size / 1e6, 3) for name, size in known.items() if isinstance(size, int | float)}


def _number(metrics: Mapping[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _measured_stderr(metrics: Mapping[str, Any], name: str) -> float | None:
    """Standard error of a measured median: half of its 95 % confidence interval is 1.96 of them."""
    found, median = metrics.get(name), at_table_speed_ms(metrics.get(name))
    width = _number(found, "ci_percent") if isinstance(found, Mapping) else None
    return None if median is None or width is None else median * width / 100 / (2 * 1.96)


RUN = "{run}"
"""In a command: the folder of the run. The page knows where it lies, the run does not: it may have been moved."""


def commands_of(model: FrontModel) -> list[tuple[str, str]]:
    """Return what can be done with a model of a front next: what a command does, and the command line with `RUN`."""
    device, key = shlex.quote(model.device), model.key
    bundle = f"chosen/{model.device}/{key}"
    return [
        ("export it", f"hwnas export {RUN} --device {device} --select {key} --out chosen"),
        (
            "the same with FP16 and INT8 files",
            f"hwnas export {RUN} --device {device} --select {key} --fp16 --int8 --out chosen",
        ),
        ("classify an image with the exported model", f"python {shlex.quote(f'{bundle}/run_model.py')} image.png"),
        ("fine-tune it", f"hwnas finetune {RUN} {key} --device {device}"),
        ("time it on this machine", shlex.join(["hwnas", "profile", bundle])),
        ("in Python", f'hwnas.open_run({RUN}).front("{model.device}").select("{key}")[0].export("chosen")'),
    ]
