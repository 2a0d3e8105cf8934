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
from hwnas.report.data import RunReport
from hwnas.report.figures import bands_figure, check_figure, curves_figure, training_figure
from hwnas.report.payload import payload, warnings_of
from hwnas.report.plots import COLOURS, write_fronts_png

SCRIPTS = ("state.js", "theme.js", "fronts.js", "table.js", "budgets.js", "model.js", "figures.js")
"""In the order in which the page has them."""


def write_report(report: RunReport, folder: Path) -> Path:
    """Write ``report.html`` and ``fronts.png`` into ``folder``; return the HTML file."""
    write_fronts_png(report, folder / "fronts.png")
    path = folder / "report.html"
    write_text(path, render(report))
    return path


def render(report: RunReport) -> str:
    """Return the page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = _number
    figures: dict[str, go.Figure] = {}
    for i, device in enumerate(report.devices):
        colour = COLOURS[i % len(COLOURS)]
        if device.check is not None:
            figures[f"check-{device.name}"] = check_figure(device, colour)
        if device.bands is not None:
            figures[f"bands-{device.name}"] = bands_figure(report, device, colour)
        if device.curves:
            figures[f"curves-{device.name}"] = curves_figure(device, colour)
    if report.training:
        figures["training"] = training_figure(report)
    known = payload(report)
    return environment.from_string(_part("template.html")).render(
        report=report, known=known, colours=COLOURS, plotly_js=get_plotlyjs(),
        style=_part("style.css"), scripts="\n".join(map(_part, SCRIPTS)),
        data=_script_json({**known, "colours": COLOURS}),
        figures=_script_json({name: json.loads(str(figure.to_json())) for name, figure in figures.items()}),
        warnings={device.name: warnings_of(device) for device in report.devices},
        manifest=json.dumps(report.manifest, indent=2),
    )  # fmt: skip


def _part(name: str) -> str:
    return files("hwnas.report").joinpath("page", name).read_text(encoding="utf-8")


def _script_json(values: object) -> str:
    # "</" would end the script element that holds the JSON, and "<!--" would change how it ends.
    return json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


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
