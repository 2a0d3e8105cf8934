"""`hwnas import-ofa`: weights that others have published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.options import Json, Overrides
from hwnas.cli.output import following, progress, show


def import_ofa(
    checkpoint: Annotated[Path, typer.Argument(help="Supernet checkpoint of once-for-all (.pth, .tar).")],
    recipe: Annotated[str, typer.Option("--recipe", help="YAML file or name of a shipped recipe.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Make a run of published Once-For-All weights; `hwnas search` goes on with it."""
    from hwnas.runs import published

    with progress(as_json) as told:
        path = published.import_ofa(checkpoint, recipe, out, overrides or (), told)
    text = f"supernet: {path}\nin Python: hwnas.load_supernet({str(out)!r})"
    if (out / "recipe.yaml").exists():
        text += f"\n{following('search', out)}"
    show(as_json, {"supernet": str(path)}, text)
