"""What do fronts look like on paper? Static pictures by matplotlib."""

from __future__ import annotations

from pathlib import Path

from hwnas.files import write_atomically
from hwnas.report.data import DeviceReport, RunReport

INK, GREY, LINE = "#1f2933", "#b8c2cc", "#2458c5"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#999933")
"""Told apart also by those who see fewer colours (after Okabe and Ito, 2008, Color Universal Design)."""


def write_fronts_png(report: RunReport, path: Path) -> None:
    """Draw the score over latency, one panel a device: all evaluated archs in grey, the front in colour."""
    from matplotlib.figure import Figure  # takes 0.4 s, which only a report should pay

    score, n = report.score.name, max(1, len(report.devices))
    columns = min(n, 3)
    rows = -(-n // columns)
    figure = Figure(figsize=(4.4 * columns, 3.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[n:]:
        axis.set_visible(False)
    for i, (device, axis) in enumerate(zip(report.devices, axes, strict=False)):
        axis.scatter(device.evaluated_ms, device.evaluated_scores, s=9, color=GREY, label="evaluated")
        best = score_latency_front(report, device)
        axis.step(
            [m["latency_ms"] for m in best], [m[score] for m in best], where="post",
            color=COLOURS[i % len(COLOURS)], linewidth=1.4,
        )  # fmt: skip
        axis.scatter(
            [m["latency_ms"] for m in device.models], [m[score] for m in device.models], s=34, zorder=3,
            color=COLOURS[i % len(COLOURS)], edgecolor="white", linewidth=0.8, label="exported",
        )  # fmt: skip
        if device.by_hand:
            x, y = zip(*device.by_hand, strict=True)
            axis.scatter(x, y, s=36, marker="x", color=INK, linewidth=1.2, zorder=4, label="scaled by hand")
        axis.set_title(f"{device.name}  ({device.origin})", fontsize=10, color=INK, loc="left")
        axis.set_xlabel("latency, ms (batch 1)", fontsize=9)
        axis.set_ylabel(f"validation {report.score.axis}", fontsize=9)
        low, high = shown_range(report, device)
        axis.set_ylim(low, high)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    write_atomically(path, lambda p: figure.savefig(p, dpi=130, format="png"))


def shown_range(report: RunReport, device: DeviceReport) -> tuple[float, float]:
    """Return the scores between which a plot shows everything but the worst tenth of the evaluated archs."""
    evaluated = sorted(device.evaluated_scores, reverse=report.score_direction == "min")
    by_hand = [y for _, y in device.by_hand]
    shown = [m[report.score.name] for m in device.models] + by_hand + evaluated[len(evaluated) // 10 :]
    margin = 0.05 * (max(shown) - min(shown)) or 0.5
    return min(shown) - margin, max(shown) + margin


def score_latency_front(report: RunReport, device: DeviceReport) -> list[dict[str, float]]:
    """Models that no faster model reaches in score, by ascending latency (near-ties too; the table marks them)."""
    sign = 1.0 if report.score_direction == "max" else -1.0
    best: list[dict[str, float]] = []
    for model in device.models:
        if not best or sign * model[report.score.name] > sign * best[-1][report.score.name]:
            best.append(dict(model))
    return best
