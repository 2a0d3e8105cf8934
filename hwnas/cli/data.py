"""`hwnas data`: the images of a recipe as hwnas sees them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import Json, Overrides, RecipeName
from hwnas.cli.output import following, progress, show, table, warn
from hwnas.errors import DataError, escaped

if TYPE_CHECKING:
    from hwnas.data.look import DataSummary

MOST_ROWS = 100
"""Classes that are printed; --json has all of them."""


def data(
    recipe: RecipeName,
    overrides: Overrides = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", help="PNG file for some images of each class, resized and as augmented; default: none."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at the images of a recipe: classes, counts, what is left out, pixels, and what is to be put right."""
    from hwnas.runs.data import look_at_data

    with progress(as_json) as told:
        found = look_at_data(recipe, overrides or (), sheet, told)
    show(as_json, found.as_dict(), _text(found))
    if not as_json:
        for text in found.warnings:
            warn(text)
    if len(found.problems) == 1:
        raise DataError(found.problems[0])
    if found.problems:
        raise DataError(
            f"{len(found.problems)} things are to be put right before these images can be used, listed above"
        )
    if sheet is not None and not as_json:
        typer.echo(f"contact sheet: {sheet}")
    if not as_json:
        typer.echo(following("run", recipe, *(overrides or ())))


def _text(found: DataSummary) -> str:
    splits = list(found.images)
    heading = ["class", *splits, "mean of pixels (0-255)", "deviation"]
    rows = [
        [f"{i} {escaped(c.name)}", *(str(c.images.get(s, "-")) for s in splits), _levels(c.mean_levels),
         _levels(c.deviation_levels)]
        for i, c in enumerate(found.classes[:MOST_ROWS])
    ]  # fmt: skip
    if len(found.classes) > MOST_ROWS:
        rows.append([f"... {len(found.classes) - MOST_ROWS} more, see --json", *[""] * (len(splits) + 2)])
    rows.append(
        ["all", *(str(n) for n in found.images.values()), _levels(found.mean_levels), _levels(found.deviation_levels)]
    )
    lines = [f"{found.source}: {len(found.classes)} classes", "", table(heading, rows), ""]
    lines += [f"{split}: {origin}" for split, origin in found.origins.items()]
    lines += [f"left out: {entry}" for entry in found.left_out] or ["left out: nothing"]
    if len(found.problems) > 1:
        lines += ["", "to put right:", *(f"- {escaped(text)}" for text in found.problems)]
    return "\n".join(lines)


def _levels(values: list[float]) -> str:
    """One number a channel."""
    return " ".join(f"{v:.1f}" for v in values) or "-"
