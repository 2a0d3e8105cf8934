"""How does a user look at a run? In one HTML file that works without a network."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from hwnas.files import write_text
from hwnas.report.data import DeviceReport, RunReport
from hwnas.report.plots import COLOURS, GREY, INK, score_latency_front, write_fronts_png

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def write_report(report: RunReport, folder: Path) -> Path:
    """Write ``report.html`` and ``fronts.png`` into ``folder``; return the HTML file."""
    write_fronts_png(report, folder / "fronts.png")
    path = folder / "report.html"
    write_text(path, render(report))
    return path


def render(report: RunReport) -> str:
    """Return the page."""
    template = files("hwnas.report").joinpath("template.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = _number
    figures: dict[str, str] = {}
    for i, device in enumerate(report.devices):
        figures[f"front-{device.name}"] = _json(front_figure(report, device, COLOURS[i % len(COLOURS)]))
        if device.check is not None:
            figures[f"check-{device.name}"] = _json(check_figure(device, COLOURS[i % len(COLOURS)]))
        if device.bands is not None:
            figures[f"bands-{device.name}"] = _json(bands_figure(report, device, COLOURS[i % len(COLOURS)]))
    if report.training:
        figures["training"] = _json(training_figure(report))
    return environment.from_string(template).render(
        report=report, figures=figures, plotly_js=get_plotlyjs(),
        manifest=json.dumps(report.manifest, indent=2),
    )  # fmt: skip


def _json(figure: go.Figure) -> str:
    # "</" would end the script element that holds the JSON, and "<!--" would change how it ends.
    return str(figure.to_json()).replace("<", "\\u003c")


def _number(value: Any, name: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if name in ("params", "macs"):
        return f"{value:,.0f}"
    if name.endswith("percent"):
        return f"{value:.2f}"
    return f"{value:.4g}"


def _layout(figure: go.Figure, x: str, y: str, height: int = 380) -> go.Figure:
    figure.update_layout(
        template="plotly_white", height=height, margin={"l": 60, "r": 20, "t": 20, "b": 50},
        font={"family": FONT, "color": INK, "size": 13}, xaxis_title=x, yaxis_title=y,
        legend={"orientation": "h", "y": 1.08, "x": 0},
    )  # fmt: skip
    return figure


def front_figure(report: RunReport, device: DeviceReport, colour: str) -> go.Figure:
    """Return score over latency: evaluated archs, the front, and its members with all their values on hover."""
    figure, score = go.Figure(), report.score.name
    figure.add_scatter(
        x=list(device.evaluated_ms), y=list(device.evaluated_scores), mode="markers",
        name="evaluated", marker={"color": GREY, "size": 5}, hoverinfo="skip",
    )  # fmt: skip
    best = score_latency_front(report, device)
    figure.add_scatter(
        x=[m["latency_ms"] for m in best], y=[m[score] for m in best], mode="lines",
        line={"color": colour, "shape": "hv", "width": 2}, name=f"{report.score.title}-latency front", hoverinfo="skip",
    )  # fmt: skip
    errors = [m.get(report.score_stderr) for m in device.models]
    shown = [c for c in report.columns if c.name not in (score, "latency_ms")]
    figure.add_scatter(
        x=[m["latency_ms"] for m in device.models], y=[m[score] for m in device.models], mode="markers",
        name="exported models", marker=_marker(report, device, colour),
        error_y={
            "type": "data", "array": errors, "thickness": 0.8, "width": 2, "color": GREY,
            "visible": all(e is not None for e in errors),
        },
        text=[
            "<br>".join(f"{c.title}: {_number(m.get(c.name), c.name)} {c.unit}" for c in shown) for m in device.models
        ],
        customdata=[m["key"] for m in device.models],
        hovertemplate=f"<b>%{{customdata}}</b><br>{report.score.title}: %{{y:.4g}} {report.score.unit}"
        "<br>latency: %{x:.4g} ms<br>%{text}<extra></extra>",
    )  # fmt: skip
    if device.by_hand:
        figure.add_scatter(
            x=[x for x, _ in device.by_hand], y=[y for _, y in device.by_hand], mode="markers", name="scaled by hand",
            marker={"symbol": "x", "color": INK, "size": 8},
            hovertemplate="scaled by hand: %{y:.4g}, %{x:.4g} ms<extra></extra>",
        )  # fmt: skip
    return _layout(figure, "latency, ms (batch 1)", f"validation {report.score.axis}")


def _marker(report: RunReport, device: DeviceReport, colour: str) -> dict[str, Any]:
    """Markers of models: coloured by the first evaluated value beside the score that all models of the device have."""
    plain = {"size": 11, "line": {"color": "white", "width": 1}}
    known = {report.score.name, "latency_ms", "params", "macs"}
    further = [c for c in report.columns if c.name in report.objectives and c.name not in known]
    # Devices may be searched for different objectives, so a value of one may be unknown for the models of another.
    further = [c for c in further if all(m.get(c.name) is not None for m in device.models)]
    if not further:
        return {"color": colour, **plain}
    first = further[0]
    return {
        "color": [m.get(first.name) for m in device.models], "colorscale": "Viridis", **plain,
        "colorbar": {"title": first.title, "thickness": 12},
    }  # fmt: skip


def check_figure(device: DeviceReport, colour: str) -> go.Figure:
    """Return measured over estimated latency, with the line of equality."""
    check = device.check
    assert check is not None
    top = 1.05 * max(*check.predicted_ms, *check.measured_ms)
    figure = go.Figure()
    figure.add_scatter(
        x=[0, top], y=[0, top], mode="lines", line={"color": GREY, "dash": "dot"}, name="equal", hoverinfo="skip"
    )
    figure.add_scatter(
        x=list(check.predicted_ms), y=list(check.measured_ms), mode="markers", marker={"color": colour, "size": 9},
        name="exported models", text=list(check.keys),
        hovertemplate="%{text}<br>%{x:.4g} ms estimated<br>%{y:.4g} ms measured<extra></extra>",
    )  # fmt: skip
    return _layout(figure, "estimated latency, ms", "measured latency, ms", 340)


def bands_figure(report: RunReport, device: DeviceReport, colour: str) -> go.Figure:
    """Return what every run reached, what half of them did, and what one did, as stairs of score over latency."""
    bands = device.bands
    assert bands is not None
    figure = go.Figure()
    for name, points, style in (
        ("all runs", bands.worst, {"line": {"color": GREY, "shape": "hv", "width": 1}}),
        ("one run", bands.best, {"line": {"color": GREY, "shape": "hv", "width": 1}, "fill": "tonexty"}),
        ("half of the runs", bands.median, {"line": {"color": colour, "shape": "hv", "width": 2}}),
    ):
        figure.add_scatter(
            x=[x for x, _ in points], y=[y for _, y in points], mode="lines", name=name, **style,
            hovertemplate=f"%{{y:.4g}} {report.score.unit} in %{{x:.4g}} ms<extra>{name}</extra>",
        )  # fmt: skip
    return _layout(figure, "latency, ms (batch 1)", f"validation {report.score.axis}", 340)


def training_figure(report: RunReport) -> go.Figure:
    """Return the mean loss of every step, one colour a phase."""
    figure = go.Figure()
    phases = list(dict.fromkeys(line["phase"] for line in report.training))
    for i, phase in enumerate(phases):
        lines = [line for line in report.training if line["phase"] == phase]
        figure.add_scatter(
            x=[line["step"] for line in lines], y=[line["loss"] for line in lines], mode="lines", name=phase,
            line={"color": COLOURS[i % len(COLOURS)], "width": 1},
        )  # fmt: skip
    return _layout(figure, "step", "loss (labels + distillation)", 300)
