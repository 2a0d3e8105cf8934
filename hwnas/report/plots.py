"""What do fronts look like on paper? Static pictures by matplotlib."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from hwnas.files import write_atomically
from hwnas.report.data import DeviceReport, RunReport

INK, GREY, LINE = "#1f2933", "#b8c2cc", "#2458c5"
COLOURS = ("#2458c5", "#c2410c", "#15803d", "#7e22ce", "#0e7490", "#a16207", "#be123c", "#4d7c0f")


def write_fronts_png(report: RunReport, path: Path) -> None:
    """Draw accuracy over latency, one panel a device: all evaluated archs in grey, the front in colour."""
    n = max(1, len(report.devices))
    columns = min(n, 3)
    rows = -(-n // columns)
    figure = Figure(figsize=(4.4 * columns, 3.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[n:]:
        axis.set_visible(False)
    for i, (device, axis) in enumerate(zip(report.devices, axes, strict=False)):
        axis.scatter(
            device.evaluated["latency_ms"], device.evaluated["top1_percent"], s=9, color=GREY, label="evaluated"
        )
        best = accuracy_latency_front(device)
        axis.step(
            [m["latency_ms"] for m in best], [m["top1_percent"] for m in best], where="post",
            color=COLOURS[i % len(COLOURS)], linewidth=1.4,
        )  # fmt: skip
        axis.scatter(
            [m["latency_ms"] for m in device.models], [m["top1_percent"] for m in device.models], s=34, zorder=3,
            color=COLOURS[i % len(COLOURS)], edgecolor="white", linewidth=0.8, label="exported",
        )  # fmt: skip
        axis.set_title(f"{device.name}  ({device.origin})", fontsize=10, color=INK, loc="left")
        axis.set_xlabel("latency, ms (batch 1)", fontsize=9)
        axis.set_ylabel("validation top-1, %", fontsize=9)
        shown = [m["top1_percent"] for m in device.models] + sorted(device.evaluated["top1_percent"])[
            len(device.evaluated["top1_percent"]) // 10 :
        ]
        axis.set_ylim(min(shown) - 0.5, max(shown) + 0.4)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    write_atomically(path, lambda p: figure.savefig(p, dpi=130, format="png"))


def accuracy_latency_front(device: DeviceReport) -> list[dict[str, float]]:
    """Models that no faster model reaches in accuracy, by ascending latency (near-ties too; the table marks them)."""
    best: list[dict[str, float]] = []
    for model in device.models:
        if not best or model["top1_percent"] > best[-1]["top1_percent"]:
            best.append(dict(model))
    return best
