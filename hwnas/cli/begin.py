"""`hwnas init` and `hwnas recipe`: a first recipe for a folder of pictures, and what a recipe may say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.options import Json, NewLimits, Overrides, split
from hwnas.cli.output import following, progress, show, warn
from hwnas.errors import escaped


def init(
    pictures: Annotated[Path, typer.Argument(help="Folder with one folder of pictures a class.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The recipe; default: the folder's name and .yaml, here.")
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(help="Comma-separated names or folders, see `hwnas devices`; default: local-cpu, this machine."),
    ] = None,
    limit: NewLimits = None,
    size_px: Annotated[
        int | None, typer.Option("--size", help="Largest edge in pixels; default: the pictures' own, at most 128.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like", help="Take network, training and search of this recipe; default: sized by the pictures."
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start", help="Weights to begin with: a run, or a checkpoint of once-for-all; default: random ones."
        ),
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave pictures out that cannot be read, now and in every run.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at a folder of pictures and write a recipe with comments that fits it."""
    from hwnas.runs.begin import init as begin

    with progress(as_json) as told:
        found = begin(pictures, out, split(devices), size_px, like, start, limit or (), skip_broken, told)
    if not as_json:
        for text in found.warnings:
            warn(text)
    counts = ", ".join(f"{n:,} {name}" for name, n in found.images.items())
    show(
        as_json, found.as_dict(),
        f"{len(found.classes)} classes ({', '.join(map(escaped, found.classes[:8]))}"
        f"{', ...' if len(found.classes) > 8 else ''}), {counts} images, up to {found.size_px} pixels\n"
        f"recipe: {found.path}\n{following('plan', found.path)}",
    )  # fmt: skip


def recipe(
    name: Annotated[
        str | None,
        typer.Argument(help="YAML file or name of a shipped recipe; without one all shipped ones are listed."),
    ] = None,
    overrides: Overrides = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of recipes, for editors and checks.")
    ] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Print every field with default, unit and meaning as Markdown.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a recipe with every default filled in, the names of shipped ones, or what a recipe may say."""
    from hwnas.runs.recipe import load_recipe, shipped_recipes
    from hwnas.runs.recipe_reference import recipe_reference, recipe_schema

    if schema:
        show(True, recipe_schema(), "")
    elif reference:
        show(False, None, recipe_reference().rstrip())
    elif name is None:
        names = shipped_recipes()
        show(as_json, names, "\n".join([*names, following("recipe", names[0])]))
    else:
        loaded = load_recipe(name, overrides or ())
        show(as_json, loaded.model_dump(mode="json"), loaded.as_yaml().rstrip())
