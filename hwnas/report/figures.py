"""Which plots of a report need no choices of the reader? Checks, bands, hypervolume and training, as plotly figures."""

from __future__ import annotations

import plotly.graph_objects as go

from hwnas.report.data import DeviceReport, RunReport
from hwnas.report.payload import thinned_training
from hwnas.report.plots import COLOURS, GREY

DASHES = ("solid", "dashdot", "longdash", "longdashdot")
"""Of searches: lines are told apart without their colours, too; what is predicted is ``dash``."""


def _layout(figure: go.Figure, x: str, y: str, height: int = 380) -> go.Figure:
    # Colours of text, grid and ground are the page's, which has a light and a dark form.
    figure.update_layout(
        template="none", height=height, margin={"l": 56, "r": 16, "t": 16, "b": 48},
        xaxis_title=x, yaxis_title=y, legend={"orientation": "h", "y": 1.02, "x": 0, "yanchor": "bottom"},
    )  # fmt: skip
    return figure


def check_figure(device: DeviceReport, colour: str) -> go.Figure:
    """Return measured over estimated latency, with the line of equality."""
    check = device.check
    assert check is not None
    measured_ms = check.at_table_speed_ms
    top = 1.05 * max(*check.predicted_ms, *measured_ms)
    figure = go.Figure()
    figure.add_scatter(
        x=[0, top], y=[0, top], mode="lines", line={"color": GREY, "dash": "dot"}, name="equal", hoverinfo="skip"
    )
    figure.add_scatter(
        x=list(check.predicted_ms), y=measured_ms, mode="markers", marker={"color": colour, "size": 9},
        name="exported models", text=list(check.keys), customdata=list(check.keys),
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


def curves_figure(device: DeviceReport, colour: str) -> go.Figure:
    """Return hypervolume over evaluations, with the band of what was repeated."""
    figure = go.Figure()
    for i, curve in enumerate(device.curves):
        ink = GREY if curve.low else colour
        if curve.low:
            for share, fill in ((curve.low, None), (curve.high, "tonexty")):
                figure.add_scatter(
                    x=list(curve.evaluations), y=list(share), mode="lines", line={"width": 0, "color": ink}, fill=fill,
                    showlegend=False, hoverinfo="skip",
                )  # fmt: skip
        figure.add_scatter(
            x=list(curve.evaluations), y=list(curve.share), mode="lines", name=curve.name,
            line={"color": ink, "width": 2, "dash": "dash" if curve.low else DASHES[i % len(DASHES)]},
            hovertemplate=f"%{{y:.3f}} after %{{x}} evaluations<extra>{curve.name}</extra>",
        )  # fmt: skip
    return _layout(figure, "evaluations", "hypervolume, share of the box", 320)


def training_figure(report: RunReport) -> go.Figure:
    """Return the mean loss of every step, one colour a phase."""
    figure = go.Figure()
    lines = thinned_training(report.training)
    phases = list(dict.fromkeys(line["phase"] for line in lines))
    for i, phase in enumerate(phases):
        mine = [line for line in lines if line["phase"] == phase]
        figure.add_scatter(
            x=[line["step"] for line in mine], y=[line["loss"] for line in mine], mode="lines", name=phase,
            line={"color": COLOURS[i % len(COLOURS)], "width": 1},
        )  # fmt: skip
    return _layout(figure, "step", "loss (labels + distillation)", 300)
