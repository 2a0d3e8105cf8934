"""What does a first recipe look like? Sizes that follow from the pictures, and comments that say why."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hwnas.data import DataConfig, Dataset
from hwnas.errors import RecipeError, escaped
from hwnas.reading import read_yaml
from hwnas.runs.recipe import find_recipe

SMALL_PX = 48
"""Up to this edge a network must not halve the picture at once."""
SMALLEST_PX = 8
FULL_STEPS = 2000
"""Of the first phase; later ones are shares of it."""


def recipe_values(
    name: str, folder: Path, pictures: str | Path, dataset: Dataset, config: DataConfig, devices: Sequence[str],
    px: int, like: str | Path | None, start: str | Path | None, limits: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """The recipe as plain values, section by section."""
    n, classes = len(dataset.train), max(2, len(dataset.classes))
    batch = 64 if n >= 5000 else 32 if n >= 200 else 8
    batch = max(2, min(batch, n // 2))
    full = int(np.clip(round(FULL_STEPS / max(1, n // batch)), 4, 120))
    values: dict[str, Any] = {
        "name": name,
        "description": f"pictures of {folder.resolve().name}",
        "devices": list(devices),
        "objectives": ["top1_percent", "latency_ms", "params"],
        **({"constraints": list(limits)} if limits else {}),
        "data": {
            "source": "folder", "path": str(pictures), "validation_percent": config.validation_percent,
            **({"broken_images": "skip"} if config.broken_images == "skip" else {}),
            "augment": {"flip": True, "shift_percent": 10, "scale_percent": 15},
        },
    }  # fmt: skip
    if like is not None:
        other = read_yaml(find_recipe(like))
        values |= {k: other[k] for k in ("supernet", "train", "evaluation", "search", "finish") if k in other}
        channels = values["supernet"].get("in_channels", 3)
        if start is not None and channels != 3:
            raise RecipeError(
                f"the weights of {start} are of networks for pictures of {channels} channel(s); pictures of a folder "
                "have 3, so leave out --start"
            )
        values["supernet"] = {**values["supernet"], "classes": classes, "in_channels": 3}
        values["train"] = {**values["train"], "batch_size": min(values["train"].get("batch_size", 64), batch)}
        if px < max(values["supernet"]["resolutions"]):
            kept = [r for r in values["supernet"]["resolutions"] if r <= px]
            values["supernet"]["resolutions"] = kept or [min(values["supernet"]["resolutions"])]
    else:
        values["supernet"] = _supernet(px, classes)
        # Of few pictures batches are small, and their gradients now and then far too large.
        values["train"] = {"batch_size": batch, "clip_grad_norm": 5, "phases": _phases(full)}
        values["evaluation"] = {"calibration_images": int(np.clip(n, 64, 1000))}
        values["search"] = {"evaluations": 100}
        values["finish"] = {"models": 4, "epochs": max(4, full // 2)}
    if start is not None:
        fields = dict.fromkeys(f for p in values["train"].get("phases", ()) for f in p.get("elastic", {}))
        one = {
            "name": "adapt", "epochs": max(4, full // 4), "lr": 0.02, "warmup_epochs": 1,
            "elastic": dict.fromkeys(fields, "all"), "sampling": "sandwich", "subnets_per_step": 4, "teacher": "fixed",
        }  # fmt: skip
        values["train"] = {**values["train"], "start_from": str(start), "phases": [one]}
    return values


def _supernet(px: int, classes: int) -> dict[str, Any]:
    """An elastic MobileNetV3 for pictures of an edge."""
    small = px <= SMALL_PX
    unit = 4 if small else 16
    sizes = sorted({max(SMALLEST_PX, round(px * share / unit) * unit) for share in (0.625, 0.8, 1.0)})
    kernels, ratios, depths = [3, 5], [2, 3, 4], [1, 2, 3]
    plain = {"kernel_sizes": kernels, "expand_ratios": ratios, "depths": depths}
    shapes: list[tuple[int, int, bool]] = (
        [(16, 1, False), (24, 2, False), (48, 2, True), (64, 1, True)] if small
        else [(16, 2, False), (24, 2, False), (40, 2, False), (64, 1, True), (96, 2, True)]
    )  # fmt: skip
    stages = [
        {
            "width": width,
            "stride": stride,
            **plain,
            "act": "hswish" if late else "relu",
            **({"se": True} if late else {}),
        }
        for width, stride, late in shapes
    ]
    return {
        "family": "mbv3", "in_channels": 3, "classes": classes, "resolutions": sizes, "stem_width": 16,
        "stem_stride": 1 if small else 2, "stages": stages, "expand_width": 6 * shapes[-1][0], "feature_width": 512,
    }  # fmt: skip


def _phases(full: int) -> list[dict[str, Any]]:
    """Phases of Once-For-All, as long as the number of pictures wants."""
    elastic: dict[str, str] = {}
    phases: list[dict[str, Any]] = [
        {"name": "full", "epochs": full, "lr": 0.1, "warmup_epochs": max(1, full // 15)}
    ]  # fmt: skip
    for field, share, subnets in (("kernel_size", 0.2, 2), ("depth", 0.25, 3), ("expand_ratio", 0.5, 4)):
        elastic = {**elastic, field: "all"}
        phases.append({
            "name": {"kernel_size": "kernel", "depth": "depth", "expand_ratio": "width"}[field],
            "epochs": max(1, round(full * share)), "lr": 0.05, "elastic": elastic, "sampling": "sandwich",
            "subnets_per_step": subnets, "teacher": "fixed",
            **({"sort_channels": True} if field == "expand_ratio" else {}),
        })  # fmt: skip
    return phases


COMMENTS = {
    "devices": "What the models are for; `hwnas devices` lists more. local-cpu is this machine, measured here.",
    "objectives": "What is traded off. introspectability is another, computed with every evaluation.",
    "constraints": "What every model must keep, as it was asked for; also for one device.",
    "data": """`hwnas data {path} --sheet sheet.png` shows what a network sees.
Leave out flip where left and right differ (digits, text).""",
    "supernet": """The space of networks: resolutions, and for each stage the numbers of blocks, kernel sizes and expand
ratios to choose from.""",
    "train": """The phases of Once-For-All: the largest network first, then smaller ones inside of it. As many epochs as
so many pictures want; half of them is a fair first try.""",
    "evaluation": "Training images on which the batch norm of every subnet is calibrated.",
    "search": """Archs to evaluate for each device. strategy: auto (the default) trains each model alone where a
supernet does not pay; `hwnas plan {path}` says which way.""",
    "finish": "Models for each device that are trained to their end before they are handed over.",
}
"""What stands above a section."""

AT_THE_END = """
# Hard limits on any value, also for one device; `constraints: []` is the default.
# constraints: ["latency_ms<=5", "edge-tpu:latency_ms<=3"]
"""


def commented_yaml(
    values: dict[str, Any], path: Path, dataset: Dataset, own_px: int, like: str | Path | None
) -> str:  # fmt: skip
    """The recipe as YAML with what a reader should know above each section."""
    counts = ", ".join(f"{len(part):,} {split}" for split, part in dataset.splits().items())
    classes = ", ".join(escaped(name) for name in dataset.classes[:8]) + (", ..." if len(dataset.classes) > 8 else "")
    lines = [
        f"# Written by `hwnas init` for {len(dataset.classes)} classes ({classes}), {counts} images,",
        f"# shorter edges of about {own_px} pixels. `hwnas recipe --reference` explains every setting.",
        *([] if like is None else [f"# Network, training and search are those of {escaped(str(like))}."]),
    ]
    for name, value in values.items():
        comment = COMMENTS.get(name, "").replace("{path}", escaped(shlex.quote(str(path))))
        lines += ["", *(f"# {line}" for line in comment.splitlines())] if comment else []
        lines.append(_section(name, value))
    return "\n".join(lines) + "\n" + ("" if "constraints" in values else AT_THE_END)


class _Dumper(yaml.SafeDumper):
    """Writes stages and phases in one line each, and a list that occurs twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: a reader should not have to look anything up."""
        return True


class _Line(dict[str, Any]):
    """A mapping that is written in one line."""


_Dumper.add_representer(
    _Line, lambda dumper, line: dumper.represent_mapping("tag:yaml.org,2002:map", line, flow_style=True)
)  # fmt: skip


def _section(name: str, value: object) -> str:
    """A section as YAML: what is flat is in one line, as is every stage and phase."""
    if isinstance(value, dict):
        value = {
            k: [_Line(one) for one in v] if isinstance(v, list) and v and isinstance(v[0], dict) else v
            for k, v in value.items()
        }
    text = yaml.dump({name: value}, Dumper=_Dumper, sort_keys=False, width=200, allow_unicode=True, indent=2,
                     default_flow_style=None).rstrip()  # fmt: skip
    return text[1:-1] if text.startswith("{") else text
