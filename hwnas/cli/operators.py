"""`hwnas operators`: which operators of a pool are worth their time on a device."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli.options import Devices, Json, Overrides, RecipeName, split
from hwnas.cli.output import following, show


def operators(
    recipe: RecipeName,
    overrides: Overrides = None,
    devices: Devices = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Operators that a layer keeps; default: as the recipe says.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which operators each layer would keep on each device, before anything is trained (HURRICANE)."""
    from hwnas.runs.start import operators as operators_of_recipe
    from hwnas.search.operators import operators_table

    found = operators_of_recipe(recipe, overrides or (), split(devices), keep)
    values = {
        name: {
            choice.name: [
                {"operator": option, "latency_ms": float(ms), "score": float(score), "kept": j in kept.tolist()}
                for j, (option, ms, score) in enumerate(zip(choice.options, of.cost[i], of.score[i], strict=True))
            ]
            for i, (choice, kept) in enumerate(zip(of.space.choices, of.kept, strict=True))
            if of.cost[i].any()
        }
        for name, of in found.items()
    }
    tables = "\n\n".join(f"{name}\n{operators_table(of)}" for name, of in found.items())
    show(as_json, values, f"{tables}\n{following('run', recipe, *(overrides or ()))}")
