"""`hwnas import-ofa`: weights that others have published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.options import Json, Overrides
from hwnas.cli.output import progress, show


def import_ofa(
    checkpoint: Annotated[Path, typer.Argument(help="Supernet checkpoint of once-for-all (.pth, .tar).")],
    recipe: Annotated[str, typer.Option("--recipe", help="YAML file or name of a shipped recipe.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that receives supernet.safetensors.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Read published Once-For-All weights into a supernet of hwnas."""
    from hwnas.runs import published

    with progress(as_json) as told:
        path = published.import_ofa(checkpoint, recipe, out, overrides or (), told)
    show(as_json, {"supernet": str(path)}, f"supernet: {path}\nin Python: hwnas.load_supernet({str(out)!r})")
