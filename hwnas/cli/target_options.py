"""Options of commands that time something: which target, made how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.errors import PluginError

if TYPE_CHECKING:
    from hwnas.latency.device import TargetOption

TargetName = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="What times models: onnxruntime, ssh, qai-hub, or package.module:object of your own; "
        "default: the device's.",
    ),
]
TargetOptions = Annotated[
    list[str] | None,
    typer.Option("--target-option", help="Option of the target, such as host=user@board; repeatable; default: none."),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host", help="Another machine by ssh: short for --target ssh --target-option host=...; default: none"
    ),
]


def chosen_target(
    name: str | None, options: list[str] | None, host: str | None
) -> tuple[str | None, dict[str, TargetOption] | None]:
    """Return name and options of the target that a command line asks for; None and None where it asks for none.

    Values are numbers or ``true`` and ``false`` where they look like that, else text.

    Raises:
        PluginError: an option without ``=``, or ``--host`` beside another target.
    """
    if host is not None:
        if name not in (None, "ssh"):
            raise PluginError(f"--host is short for --target ssh; leave it out, or leave out --target {name}")
        name, options = "ssh", [*(options or ()), f"host={host}"]
    return name, read_options(options, "--target-option", "host=user@board", as_text=("host",)) or None


def read_options(
    texts: list[str] | None, option: str, example: str, as_text: tuple[str, ...] = ()
) -> dict[str, TargetOption]:
    """Read ``key=value`` texts: numbers and ``true`` and ``false`` where they look like that, else text.

    Args:
        texts: as given.
        option: that they were given with, for messages.
        example: of one.
        as_text: keys whose values stay text.

    Raises:
        PluginError: one without ``=``.
    """
    values: dict[str, TargetOption] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise PluginError(f"{option} {text!r}: give it as key=value, such as {example}")
        values[key] = value if key in as_text else _read(value)
    return values


def _read(text: str) -> TargetOption:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
