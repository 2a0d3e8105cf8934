"""Which options do several commands share?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.target_options import read_options
from hwnas.errors import PluginError

if TYPE_CHECKING:
    from hwnas.latency.device import TargetOption

Evaluations = Annotated[
    int | None,
    typer.Option("--evaluations", help="Archs to evaluate per device; default: as before, or as the recipe says."),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Time such as 20min: of everything (run) or of the search (search), which it sizes; default: none.",
    ),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        help="Hard limit on any value, such as latency_ms<=5, or for one device edge-tpu:latency_ms<=3; repeatable; "
        "default: as before, or as the recipe says.",
        show_default=False,
    ),
]
NewLimits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        help="What every model must keep, such as latency_ms<=5, or for one device edge-tpu:latency_ms<=3; repeatable; "
        "default: as the recipe says, or none.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder; default: runs/<recipe name>.")]
Devices = Annotated[
    str | None,
    typer.Option(
        "--devices", help="Comma-separated names or folders, see `hwnas devices`; default: all of the recipe or run."
    ),
]
RecipeName = Annotated[str, typer.Argument(help="YAML file or name of a shipped recipe.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings of the recipe, such as train.batch_size=32.", show_default=False)
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse a latency table of another machine or runtime.")]
RunFolder = Annotated[Path, typer.Argument(help="Run folder, such as runs/quickstart.")]
ExecutorName = Annotated[
    str | None,
    typer.Option("--executor", help="Who evaluates: this-process, processes or ray; default: as the recipe says."),
]
ExecutorOptions = Annotated[
    list[str] | None,
    typer.Option("--executor-option", help="Option of the executor, such as workers=4; repeatable; default: its own."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", help="Of a Ray cluster: short for --executor ray --executor-option address=...; default: none."
    ),
]


def chosen_executor(
    name: str | None, options: list[str] | None, address: str | None
) -> tuple[str | None, dict[str, TargetOption] | None]:
    """Return name and options of the executor that a command line asks for; None and None where it asks for none.

    Raises:
        PluginError: an option without ``=``, or ``--address`` beside another executor than ``ray``.
    """
    if address is not None:
        if name not in (None, "ray"):
            raise PluginError(f"--address is of a Ray cluster; leave it out, or give --executor ray in place of {name}")
        name, options = "ray", [*(options or ()), f"address={address}"]
    return name, read_options(options, "--executor-option", "workers=4", as_text=("address",)) or None


def split(devices: str | None) -> list[str] | None:
    """Return the devices that a comma-separated list names; None where nothing was given."""
    return None if devices is None else [d.strip() for d in devices.split(",") if d.strip()]
