"""What did people decide, and in which settings do runs differ?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from hwnas.errors import one_line
from hwnas.report.data import Decision
from hwnas.runs.folder import RunFolder
from hwnas.runs.history import read_history, read_settings
from hwnas.runs.recipe import Recipe, load_recipe

WORDS = ("name", "description")
"""Fields of a recipe that decide nothing."""
LONGEST = 160
"""Letters of a value that is shown."""


def decisions_of(recipe: Recipe, folder: RunFolder, devices: Sequence[str]) -> list[Decision]:
    """Return what people decided in a run: settings that are not the default or have none, and what they started.

    Args:
        recipe: of the run.
        folder: of the run.
        devices: that were searched.
    """
    found = [d for d in _settings(recipe, None, "") if d.what not in WORDS]
    for name in devices:
        searches = read_history(folder.device(name)).searches
        settings = read_settings(folder.device(name))
        own = set(settings.constraints if settings else ()) - {c.split(":")[-1] for c in recipe.constraints}
        found += [Decision(f"limit for {name}", limit, "", False) for limit in sorted(own)]
        found += [Decision(f"search for {name}", s.message, "", False) for s in searches[1:]]
    for path in sorted(folder.finetuned.glob("*/*/metrics.json")):
        found.append(Decision("fine-tuning", f"{path.parent.name} for {path.parent.parent.name}", "", False))
    return found


def _settings(values: BaseModel, default: object, where: str) -> Iterator[Decision]:
    """Settings that differ from ``default``, or, without one, from the defaults of their fields."""
    for name, info in type(values).model_fields.items():
        value, key = getattr(values, name), f"{where}{name}"
        known = type(default) is type(values)
        usual = getattr(default, name) if known else info.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            yield from _settings(value, usual, f"{key}.")
        elif isinstance(value, tuple) and value and all(isinstance(one, BaseModel) for one in value):
            if value != usual:
                for i, one in enumerate(value):
                    yield from _settings(one, None, f"{key}.{i}.")
        elif (info.is_required() and not known) or value != usual:
            yield Decision(key, _shown(value), "" if info.is_required() else _shown(usual))


def differences(runs: Mapping[Path, Sequence[str]]) -> list[tuple[str, list[str]]]:
    """Return the settings in which runs differ: name, and the value in each run; a dash where a run has none.

    Args:
        runs: by folder: the devices whose settings are compared, too.
    """
    flat = [_flat_run(RunFolder(root), devices) for root, devices in runs.items()]
    names = list(dict.fromkeys(name for values in flat for name in values))
    rows = [(name, [values.get(name, "–") for values in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def flat_settings(settings: BaseModel) -> dict[str, str]:
    """Return every setting as text, by its dotted name."""
    return dict(_flat(_whole(settings), ""))


def _whole(settings: Any) -> Any:
    """Settings as plain values, with defaults that files leave out because older versions did not know them."""
    if isinstance(settings, BaseModel):
        return {name: _whole(getattr(settings, name)) for name in type(settings).model_fields}
    if isinstance(settings, Mapping):
        return {str(name): _whole(value) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [_whole(value) for value in settings]
    return to_jsonable_python(settings)


def _flat_run(folder: RunFolder, devices: Sequence[str]) -> dict[str, str]:
    found = flat_settings(load_recipe(folder.recipe))
    for name in devices:
        if (settings := read_settings(folder.device(name))) is not None:
            found |= dict(_flat(_whole(settings), f"{name}: "))
    return found


def _flat(values: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(values, Mapping):
        inner = [(str(name), value) for name, value in values.items()]
    elif isinstance(values, list) and any(isinstance(value, Mapping) for value in values):
        inner = [(str(i), value) for i, value in enumerate(values)]
    else:
        yield where.removesuffix("."), _shown(values)
        return
    for name, value in inner:
        yield from _flat(value, f"{where}{name}.")


def _shown(value: object) -> str:
    if value is None or isinstance(value, tuple | list):
        value = ", ".join(map(str, value or ())) or "none"
    return one_line(str(value), LONGEST)
