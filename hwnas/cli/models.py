"""The verbs that look at a run and take models from it: pareto, export, finetune, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.options import Json, Limits, RunFolder
from hwnas.cli.output import following, progress, show, table, warn, warn_of_devices

if TYPE_CHECKING:
    from hwnas.runs.analysis.why_not import WhyNot
    from hwnas.runs.exits import TunedExits
    from hwnas.runs.front import FrontModel
    from hwnas.runs.run import Run
    from hwnas.task import Score

Selections = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        help="Models: best, fastest, knee, all, least:VALUE, most:VALUE, weights:VALUE=W,VALUE=W, different:K or "
        "digits of a key; with limits behind it, such as best:local-cpu:latency_ms<=1; repeatable; default: all.",
        show_default=False,
    ),
]
NO_GAIN = "\nno epoch was better, so the start is kept; try another --lr, more --epochs or more training images"
USUAL = ("knee", "best", "fastest")
"""Choices that `hwnas pareto` shows where none is asked for."""


def pareto(
    folder: RunFolder,
    device: Annotated[str | None, typer.Option(help="Device whose front is meant; default: every device.")] = None,
    select: Selections = None,
    why_not: Annotated[
        str | None,
        typer.Option("--why-not", help="Say what keeps the model with this key off the fronts; default: print them."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the fronts of a run and what selections choose, or why a model is not on them."""
    from hwnas.runs.start import open_run

    opened = open_run(folder)
    names = opened.with_fronts() if device is None else [device]
    if why_not is not None:
        reasons = [opened.why_not(why_not, name) for name in names]
        show(as_json, [r.as_dict() for r in reasons], "\n\n".join(map(_reason_text, reasons)))
        return
    texts = list(select or USUAL)
    chosen = {text: opened.select(text, device=device) for text in texts}
    fronts = {name: list(opened.front(name)) for name in names}
    warnings = {name: list(opened.searched_device(name).warnings) for name in names}
    shown = {
        "fronts": {name: [_plain(m) for m in models] for name, models in fronts.items()},
        "choices": {text: [{"device": m.device, "key": m.key} for m in models] for text, models in chosen.items()},
        "warnings": warnings,
    }
    warn_of_devices(warnings, as_json)
    show(as_json, shown, _fronts_text(opened, fronts, chosen, folder, device, select))


def _plain(model: FrontModel) -> dict[str, Any]:
    finite = {k: v if v == v else None for k, v in model.values.items()}  # JSON has no NaN
    return {"key": model.key, **finite}


def _fronts_text(
    opened: Run, fronts: dict[str, list[FrontModel]], chosen: dict[str, list[FrontModel]], folder: Path,
    device: str | None, select: Sequence[str] | None,
) -> str:  # fmt: skip
    score = opened.context.score
    rules: dict[tuple[str, str], list[str]] = {}
    for text, models in chosen.items():
        for model in models:
            rules.setdefault((model.device, model.key), []).append(text)
    parts = []
    for name, models in fronts.items():
        values = [v for v in models[0].values if v not in (score.name, "latency_ms")] if models else []
        further = [v for v in values if v in opened.settings(name).objectives or v == "measured_latency_ms"]
        tied = any(m.values.get("near_tie") == 1 for m in models)
        heading = ["key", score.name, "latency_ms", *further, *(["tie"] if tied else []), "chosen by"]
        rows = [
            [m.key, f"{m.values[score.name]:.2f}", f"{m.values['latency_ms']:.4g}",
             *(f"{m.values[v]:.6g}" for v in further),
             *(["tie" if m.values.get("near_tie") == 1 else ""] if tied else []),
             " ".join(rules.get((name, m.key), ()))]
            for m in models
        ]  # fmt: skip
        parts.append(f"{name}: {len(models)} models\n{table(heading, rows)}")
    words = ["export", folder, *([] if device is None else ["--device", device])]
    picked = list(select or USUAL[:1])
    for text in picked:
        words += ["--select", text]
    if any(m.values.get("near_tie") == 1 for models in fronts.values() for m in models):
        parts.append("tie: differs from its neighbour in score or latency by less than one standard error")
    return "\n\n".join([*parts, following(*words, "--out", "chosen")])


def _reason_text(found: WhyNot) -> str:
    text = f"{found.key} on {found.device}: {found.reason}"
    if not found.dominated_by:
        return text
    names = list(found.dominated_by[0].differences)
    rows = [["this one", "", *(f"{found.values[n]:.6g}" for n in names)]]
    rows += [
        [b.key, "on the front" if b.on_front else "", *(f"{b.differences[n]:+.4g}" for n in names)]
        for b in found.dominated_by
    ]
    return f"{text}\n{table(['better model', '', *names], rows)}"


def export(
    folder: RunFolder,
    device: Annotated[str | None, typer.Option(help="Device whose front is meant; default: every device.")] = None,
    select: Selections = None,
    key: Annotated[
        str | None, typer.Option(help="Short for --select with the first digits of a key; default: none.")
    ] = None,
    limit: Limits = None,
    knee: Annotated[bool, typer.Option("--knee", help="Short for --select knee.")] = False,
    fastest: Annotated[bool, typer.Option("--fastest", help="Short for --select fastest.")] = False,
    best: Annotated[bool, typer.Option("--best", help="Short for --select best.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also write model.int8.onnx.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also write model.fp16.onnx.")] = False,
    image: Annotated[
        bool,
        typer.Option("--image-input", help="Also write *.image.onnx, which take images as uint8 and prepare them."),
    ] = False,
    static: Annotated[bool, typer.Option("--static", help="Also write *.static.onnx, for a batch of one.")] = False,
    openvino: Annotated[
        bool, typer.Option("--openvino", help="Also write model.openvino.xml (extra openvino-ir).")
    ] = False,
    litert: Annotated[
        bool,
        typer.Option(
            "--litert", help="Also write model.tflite, and where 8 bits are wanted model.int8.tflite (extra litert)."
        ),
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time the files of every number format where the device is at hand.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also copy the chosen bundles to OUT/<device>/<key>; default: no copy.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the model bundles of the fronts, and choose and copy models."""
    from hwnas.runs.export import left_from_before
    from hwnas.runs.start import open_run

    with progress(as_json) as told:
        opened = open_run(folder, told)
        bundles = opened.export(
            device, key, limit or (), knee, fastest, best, int8 or None, out, tuple(select or ()), fp16 or None,
            image or None, static or None, openvino or None, litert or None, measure,
        )  # fmt: skip
    folders = [str(bundle.folder) for bundle in bundles]
    text = "\n".join(folders)
    if out is not None and bundles:
        fronts = [opened.front(name) for name in opened.searched()]
        copied = {bundle.folder.resolve() for bundle in bundles}
        for path in left_from_before(out, (), fronts):
            if path.resolve() not in copied:
                warn(f"{path} is from before, and no longer on the front of {path.parent.name}; remove it if unused")
        here = [b.folder for b in bundles if opened.devices[b.folder.parent.name].profile.origin == "measured"]
        # What stands for another device would be timed on this one.
        text += f"\n{following('profile', here[0]) if here else following('report', folder)}"
    show(as_json, {"bundles": folders}, text)


def finetune(
    folder: RunFolder,
    key: Annotated[str, typer.Argument(help="First digits of the model's key.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings of the recipe's section finetune, such as two_step=true or optimiser=adamw; "
            "default: as the recipe says.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The bundle goes to OUT/<device>/<key>; default: RUN/finetuned.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training images; default: as the recipe says.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; default: as the recipe says.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Device whose latency the bundle states; default: the first.")
    ] = None,
    exits: Annotated[
        bool,
        typer.Option(
            "--exits", help="Attach the earlier exits of an early-exit supernet, train all together, choose of them."
        ),
    ] = False,
    ordering: Annotated[
        str, typer.Option(help="Of --exits, weights of the exits: uniform, ascending, descending or mix.")
    ] = "uniform",
    as_json: Json = False,
) -> None:
    """Train one extracted subnet further, with the largest subnet as its teacher."""
    from hwnas.runs.recipe import with_overrides
    from hwnas.runs.start import open_run

    with progress(as_json) as told:
        opened = open_run(folder, told)
        config = with_overrides(opened.recipe.finetune, settings or (), "finetune")
        if exits:
            named: Any = ordering  # it is checked there
            tuned = opened.finetune_exits(key, out, config, device, epochs, lr, named)
            show(as_json, {"folder": str(tuned.folder), **tuned.values}, _exits_text(tuned, opened.context.score.unit))
            return
        result, bundle = opened.finetune(key, out, config, device, epochs, lr)
    found = _tuned_values(bundle.metrics, opened.context.score)
    show(
        as_json, {"bundle": str(bundle.folder), **found},
        f"{_tuned_text(found, opened.context.score)}{'' if result.best_epoch else NO_GAIN}\n"
        f"bundle: {bundle.folder}\n{following('pareto', folder)}",
    )  # fmt: skip


def _tuned_values(metrics: Mapping[str, Any], score: Score) -> dict[str, Any]:
    """Return what a fine-tuning changed: scores in the device's number format and, of one in 8 bits, those in float."""
    names = [name for what in ("", "fp32") for name in _before_after(score, what)]
    return {"precision": metrics.get("precision", "fp32"), **{name: metrics[name] for name in names if name in metrics}}


def _before_after(score: Score, precision: str) -> tuple[str, str, str]:
    """Names of the validation score before and after, and of the test score; without a precision the device's."""
    name = score.named(precision) if precision else score.name
    return score.named(f"before_{precision}" if precision else "before"), name, f"test_{name}"


def _tuned_text(found: Mapping[str, Any], score: Score) -> str:
    """A line for each number format in which scores are known; the device's own comes first."""
    lines = []
    for what in ("", "fp32"):
        shown = [found.get(name) for name in _before_after(score, what)]
        if shown[2] is None:
            continue
        before, after, test = ("not known" if v is None else f"{v:.2f} {score.unit}".strip() for v in shown)
        lines.append(f"validation {score.title} in {what or found['precision']}: {before} -> {after}, test {test}")
    return "\n".join(lines)


def _exits_text(tuned: TunedExits, unit: str) -> str:
    """Exits alone, together and pruned, and the cascades, as tables."""
    values = tuned.values
    rows = [["the model as it was", "", f"{values['alone']['validation']:.2f}", ""]]
    named = [(f"exit {one['exit']} alone", one) for one in values["exits"]]
    named.append(("all together", values["together"]))
    named.append((f"pruned to {', '.join(map(str, values['pruned']['exits']))}", values["pruned"]))
    rows += [[n, f"{v['latency_ms']:.4g}", f"{v['validation']:.2f}", f"{v['test']:.2f}"] for n, v in named]
    text = table(["", "latency ms", f"validation {unit}", f"test {unit}"], rows)
    if values["cascades"]:
        rows = [
            [f"{c['validation']['expected_ms']:.4g}", f"{c['validation']['top1_percent']:.2f}",
             f"{c['test']['expected_ms']:.4g}", f"{c['test']['top1_percent']:.2f}",
             " ".join(f"{100 * share:.0f}" for share in c["test"]["shares"]),
             " ".join("never" if t is None else f"{t:.3f}" for t in c["thresholds"])]
            for c in values["cascades"]
        ]  # fmt: skip
        heading = ["mean ms", f"validation {unit}", "mean ms, test", f"test {unit}", "leave at, %", "thresholds"]
        text += f"\n\ncascades: an image leaves at the first exit that is sure enough\n{table(heading, rows)}"
    if values["latency_precision"] != "fp32":
        text += f"\nlatencies are of {values['device']} in {values['latency_precision']}, scores and files in float32"
    if values["trained_on_validation"]:
        text += "\nthe validation images were learnt, too (two_step): judge by the test images"
    return f"{text}\n\nfolder: {tuned.folder}"


def report(
    folder: RunFolder,
    others: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs to compare it with, such as ones of other seeds.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write report.html and fronts.png of a run again, with what several runs reached where others are named."""
    from hwnas.runs.start import open_run

    path = open_run(folder).report([open_run(other) for other in others or ()])
    show(as_json, {"report": str(path)}, str(path))


VERBS = (pareto, export, finetune, report)
"""Commands of this file, in the order of the help."""
