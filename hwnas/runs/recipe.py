"""What does a user write to describe a run? One YAML file, read strictly; every section stands beside its owner."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from hwnas.data import DataConfig
from hwnas.errors import RecipeError
from hwnas.finetune import FinetuneConfig
from hwnas.latency.plan import TableConfig
from hwnas.objectives.subnets import EvaluationConfig
from hwnas.search.config import SearchConfig
from hwnas.search.problem import Constraint
from hwnas.files import shipped_folder
from hwnas.supernet import FamilyConfig, SupernetConfig
from hwnas.supernet.families.family import settings_class
from hwnas.train.phases import TrainConfig


ObjectiveName = Literal[
    "top1_percent", "latency_ms", "params", "macs", "introspectability",
    "grad_norm", "snip", "grasp", "synflow", "fisher", "jacob_cov", "naswot", "zen", "ntk_condition", "linear_regions",
    "flatness",
]  # fmt: skip
"""The last two lines are the zero-cost proxies of `hwnas.objectives.proxies.by_name.PROXIES`."""

class ExportConfig(BaseModel):
    """Which models of a front are written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    front_size: int = Field(default=16, ge=1)
    """At most this many models a device: the accuracy-latency front first, then those that cover most."""
    int8: bool = False
    """Also write ``model.int8.onnx``."""

class Recipe(BaseModel):
    """Everything that decides a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    devices: tuple[str, ...] = ("local-cpu",)
    """Names of shipped devices or folders with a profile."""
    objectives: tuple[ObjectiveName, ...] = ("top1_percent", "latency_ms", "params", "introspectability")
    constraints: tuple[str, ...] = ()
    """Hard limits such as ``latency_ms<=5``, the same for every device."""
    data: DataConfig
    supernet: SupernetConfig
    train: TrainConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    search: SearchConfig = SearchConfig()
    tables: TableConfig = TableConfig()
    export: ExportConfig = ExportConfig()
    finetune: FinetuneConfig = FinetuneConfig()

    @field_validator("objectives")
    @classmethod
    def _no_repeats(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"give every objective once and at least one, got {list(names)}")
        return names

    @field_validator("constraints")
    @classmethod
    def _readable(cls, texts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for text in texts:
            try:
                objective = Constraint.parse(text).objective
            except RecipeError as error:
                raise ValueError(str(error)) from None
            objectives = info.data.get("objectives", (objective,))
            if objective not in objectives:
                raise ValueError(f"{objective!r} is no objective of the recipe; objectives are {list(objectives)}")
        return texts

    def values_hash(self) -> str:
        """Return a hash of the sections that decide what an evaluation's values mean."""
        sections = {"supernet", "train", "data", "evaluation"}
        values = self.model_dump(mode="json", include=sections)
        for key in ("checkpoint_every_s", "tensorboard", "device"):
            values["train"].pop(key)
        values["data"].pop("cache")
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def as_yaml(self) -> str:
        """Return the effective recipe, defaults included."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=110, allow_unicode=True))

def shipped_recipes() -> list[str]:
    """Return the names of the recipes that ship with hwnas."""
    return sorted(p.stem for p in shipped_folder("supernets").glob("*.yaml"))

def find_recipe(name_or_path: str | Path) -> Path:
    """Return the file of a recipe, given its path or the name of a shipped one.

    Raises:
        RecipeError: neither.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    # Not Path.stem: the names of recipes may have dots, such as ofa-mbv3-w1.2.
    name = path.name.removesuffix(".yaml") if path.parts[:-1] in ((), ("supernets",)) else None
    if name in shipped_recipes():
        return shipped_folder("supernets") / f"{name}.yaml"
    raise RecipeError(
        f"recipe {str(name_or_path)!r} is neither a .yaml file nor a shipped recipe; "
        f"shipped are {', '.join(shipped_recipes())}"
    )

def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        name_or_path: file, or name of a shipped recipe.
        overrides: dotted settings such as ``train.batch_size=32`` or ``search.evaluations=50``; values are YAML.

    Raises:
        RecipeError: no such recipe, not YAML, an unknown key (with the known ones), or a bad value.
    """
    path = find_recipe(name_or_path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: must hold a mapping of sections, got {type(values).__name__}")
    for text in overrides:
        _override(values, text)
    return check_recipe(values, str(path))

def check_recipe(values: dict[str, Any], where: str) -> Recipe:
    """Validate plain values as a recipe; see `load_recipe`."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{where}: {describe(error, Recipe, values)}") from None

def describe(error: ValidationError, model: type[BaseModel], values: Any) -> str:
    """Say in one line what was given where, and what is allowed.

    Args:
        error: of validating ``values``.
        model: what they were validated as.
        values: plain values; their ``family`` says which settings a supernet has.
    """
    first = error.errors()[0]
    location = [part for part in first["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    key = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1], values)
        near = get_close_matches(str(location[-1]), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        message = f"unknown key {key!r}; known keys here are {', '.join(known)}{hint}"
    elif first["type"] == "missing":
        message = f"key {key!r} is missing"
    else:
        text = first["msg"].removeprefix("Value error, ")
        given = first["input"]
        shown = "" if isinstance(given, dict | BaseModel) else f", got {given!r}"
        message = f"{key}: {text}{shown}"
    more = error.error_count() - 1
    return message + (f" (and {more} more)" if more else "")

def _known_keys(model: type[BaseModel], location: Sequence[str | int], values: Any) -> list[str]:
    """Keys of the section at ``location``; the innermost model that annotations, and a supernet's family, lead to."""
    current: Any = model
    for part in location:
        with suppress(KeyError, IndexError, TypeError):  # parts that pydantic adds are no keys
            values = values[part]
        if isinstance(part, str) and part in getattr(current, "model_fields", {}):
            current = _model_in(current.model_fields[part].annotation) or current
            current = settings_class(values) if current is FamilyConfig else current
    return sorted(current.model_fields)

def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (found := _model_in(inner)) is not None:
            return found
    return None

def _override(values: dict[str, Any], text: str) -> None:
    """Set one dotted key; numbers step into lists."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {text!r} is not of the form section.key=value")
    *parents, last = key.split(".")
    target: Any = values
    try:
        parsed = yaml.safe_load(value)
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
        if isinstance(target, list):
            target[int(last)] = parsed
        else:
            target[last] = parsed
    except (yaml.YAMLError, ValueError, IndexError, TypeError, AttributeError):
        raise RecipeError(f"override {text!r} does not fit the recipe; {key!r} leads to no setting") from None
