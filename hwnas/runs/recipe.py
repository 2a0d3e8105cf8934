"""What does a user write to describe a run? One YAML file, read strictly; every section stands beside its owner."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hwnas.arguments import checked_arguments
from hwnas.data import DataConfig
from hwnas.errors import HwnasError, RecipeError, SearchError, UnreadableError, did_you_mean, shown
from hwnas.export.quantization import QuantizationConfig
from hwnas.files import shipped_folder
from hwnas.finetune import FinetuneConfig, FinishConfig
from hwnas.latency.plan import TableConfig
from hwnas.objectives.config import EvaluationConfig
from hwnas.objectives.resolve import objective_of, objectives_of
from hwnas.reading import parse_yaml, read_yaml
from hwnas.runs.executor import EXECUTORS
from hwnas.search.config import SearchConfig
from hwnas.search.limits import Limit, check_limits
from hwnas.supernet import FamilyConfig, SupernetConfig
from hwnas.supernet.families.family import settings_class
from hwnas.task import TASKS, Task
from hwnas.train.phases import TrainConfig


class ExecutorConfig(BaseModel):
    """Who evaluates; what is found does not depend on it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    name: Annotated[str, AfterValidator(EXECUTORS.check)] = "this-process"
    """A name of `hwnas.runs.executor.EXECUTORS`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments that it is made with."""


class ExportConfig(BaseModel):
    """Which models of a front are written."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    front_size: int = Field(default=16, ge=1, le=10_000)
    """At most this many models a device: the accuracy-latency front first, then those that cover most."""
    int8: bool = False
    """Also write ``model.int8.onnx``."""
    fp16: bool = False
    """Also write ``model.fp16.onnx``."""
    image: bool = False
    """Also write files that take images as bytes (height, width, channel) and prepare them themselves
    (``*.image.onnx``)."""
    static: bool = False
    """Also write files for a batch of one, as compilers of devices want them (``*.static.onnx``)."""
    openvino: bool = False
    """Also write OpenVINO's format (``model.openvino.xml``; extra ``openvino-ir``)."""
    litert: bool = False
    """Also write a file for LiteRT, that is TensorFlow Lite: ``model.tflite`` in float32, and with ``int8`` or for a
    device in 8 bits ``model.int8.tflite``, all in integers; extra ``litert``."""

    def formats(self, **given: bool | None) -> frozenset[str]:
        """Return the number formats and forms besides the own one; what is given counts in place of the recipe."""
        names = ("int8", "fp16", "image", "static", "openvino", "litert")
        own = {name: getattr(self, name) for name in names}
        wanted = own | {name: on for name, on in given.items() if on is not None}
        return frozenset(name for name, on in wanted.items() if on)


class LicenceConfig(BaseModel):
    """Under which terms the images and the weights are; said in model cards and in the report.

    What is left out is taken from what is known: shipped images say their licence, and weights of another run theirs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=1000)

    data: str = ""
    """Of the images, such as ``CC-BY-4.0``."""
    start: str = ""
    """Of the weights that training begins with (``train.start_from``)."""
    weights: str = ""
    """Under which the trained weights are handed on."""


class Recipe(BaseModel):
    """Everything that decides a run."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Of the run; without another ``--out`` its folder is ``runs/<name>``."""
    description: str = ""
    """A line for people."""
    devices: tuple[str, ...] = Field(default=("local-cpu",), max_length=1000)
    """Names of shipped devices or folders with a profile."""
    objectives: tuple[str, ...] = Field(default=("top1_percent", "latency_ms", "params"), max_length=64)
    """Names of `hwnas.objectives.plugin.OBJECTIVES`, or scores of the task."""
    constraints: tuple[str, ...] = Field(default=(), max_length=1000)
    """Hard limits on any value, such as ``latency_ms<=5``, or for one device ``edge-tpu:latency_ms<=3``."""
    task: Annotated[str, AfterValidator(TASKS.check)] = "classification"
    """What the networks learn: a name of `hwnas.task.TASKS`."""
    data: DataConfig
    supernet: SupernetConfig
    train: TrainConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    search: SearchConfig = SearchConfig()
    finish: FinishConfig = FinishConfig()
    tables: TableConfig = TableConfig()
    export: ExportConfig = ExportConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    executor: ExecutorConfig = ExecutorConfig()
    licences: LicenceConfig = LicenceConfig()

    @field_validator("objectives")
    @classmethod
    def _no_repeats(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names) or not names:
            raise ValueError("give every objective once and at least one")
        return names

    @field_validator("constraints")
    @classmethod
    def _readable(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        try:
            check_limits([Limit.parse(text) for text in texts])
        except SearchError as error:
            raise ValueError(str(error)) from None
        return texts

    @model_validator(mode="after")
    def _known_values(self) -> Recipe:
        section = "objectives"  # the error is of the whole recipe, so it has to say itself what it is about
        try:
            names = [plugin.name for plugin in objectives_of(self.objectives, self.task_object)]
            section = "constraints"
            for limit in self.limits:
                if limit.value not in names:
                    objective_of(limit.value, self.task_object)
        except HwnasError as error:
            raise ValueError(f"{section}: {error}") from None
        return self

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The constraints, parsed."""
        return tuple(map(Limit.parse, self.constraints))

    @property
    def task_object(self) -> Task:
        """The task that ``task`` names."""
        return TASKS.get(self.task)

    def values_hash(self) -> str:
        """Return a hash of the sections that decide what an evaluation's values mean."""
        sections = {"task", "supernet", "train", "data", "evaluation"}
        values = self.model_dump(mode="json", include=sections)
        for key in ("checkpoint_every_s", "tensorboard", "device"):
            values["train"].pop(key)
        for key in ("cache", "workers"):  # the path stays: it says which images
            values["data"].pop(key, None)
        if self.evaluation.quantization == QuantizationConfig():  # runs of versions without it go on
            values["evaluation"].pop("quantization")
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
    if path.suffix in (".yaml", ".yml") and os.path.isfile(path):
        return path
    # Not Path.stem: the names of recipes may have dots, such as ofa-mbv3-w1.2.
    name = path.name.removesuffix(".yaml") if path.parts[:-1] in ((), ("supernets",)) else None
    if name in shipped_recipes():
        return shipped_folder("supernets") / f"{name}.yaml"
    if path.suffix in (".yaml", ".yml") and not os.path.lexists(path):
        beside = [p.name for p in path.parent.glob("*") if p.suffix in (".yaml", ".yml")]
        raise RecipeError(
            f"there is no file {str(name_or_path)!r}{did_you_mean(path.name, beside)}; write a recipe for your "
            f"pictures with `hwnas init`, or give the name of a shipped one: {', '.join(shipped_recipes())}"
        )
    raise RecipeError(
        f"recipe {str(name_or_path)!r} is neither a .yaml file nor a shipped recipe; "
        f"shipped are {', '.join(shipped_recipes())}{did_you_mean(str(name_or_path), shipped_recipes())}"
    )


@checked_arguments
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
        values = read_yaml(path)
    except UnreadableError as error:
        raise RecipeError(f"{path}: cannot be read as YAML: {error.reason}; correct or restore the file") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: must hold a mapping of sections, got {type(values).__name__}")
    changed = copy.deepcopy(values)
    for text in overrides:
        _override(changed, text)
    try:
        return Recipe.model_validate(changed)
    except ValidationError as error:
        raise RecipeError(_blamed(error, changed, values, overrides, str(path))) from None


def _blamed(
    error: ValidationError, changed: dict[str, Any], values: dict[str, Any], overrides: Sequence[str], path: str
) -> str:  # fmt: skip
    """Say what is wrong, and where it stands: in the file, or in an override of it.

    Args:
        error: of validating ``changed``.
        changed: the values of the file with the overrides.
        values: those of the file.
        overrides: which were made.
        path: of the file.
    """
    message = describe(error, Recipe, changed)
    try:
        Recipe.model_validate(values)
    except ValidationError as own:
        if not overrides or describe(own, Recipe, values) == message:
            return f"{path}: {message}"
    place = [str(part) for part in _location(error)]
    keys = {text: text.partition("=")[0].split(".") for text in overrides}
    meant = [text for text, key in keys.items() if all(a == b for a, b in zip(key, place, strict=False))] or overrides
    return f"override {', '.join(map(shown, meant))}: {message}"


def _location(error: ValidationError) -> list[str | int]:
    """Keys that lead to the first mistake; parts that pydantic adds for functions are no keys."""
    parts = error.errors()[0]["loc"]
    return [part for part in parts if not (isinstance(part, str) and part.startswith("function-"))]


def check_recipe(values: dict[str, Any], where: str) -> Recipe:
    """Validate plain values as a recipe; see `load_recipe`."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{where}: {describe(error, Recipe, values)}") from None


M = TypeVar("M", bound=BaseModel)


def with_values(settings: M, values: Mapping[str, Any], where: str) -> M:
    """Return settings with some values changed, checked like those of a recipe.

    Args:
        settings: a recipe or one of its sections.
        values: by field; a mapping changes only the fields of a section that it names.
        where: begins the message.

    Raises:
        RecipeError: an unknown field or a bad value.
    """
    merged = settings.model_dump(mode="json")
    for name, value in values.items():
        section = isinstance(value, Mapping) and isinstance(merged.get(name), dict)
        merged[name] = {**merged[name], **value} if section else value
    try:
        return type(settings).model_validate(merged)
    except ValidationError as error:
        raise RecipeError(f"{where}: {describe(error, type(settings), merged)}") from None


def describe(error: ValidationError, model: type[BaseModel], values: Any) -> str:
    """Say in one line what was given where, and what is allowed.

    Args:
        error: of validating ``values``.
        model: what they were validated as.
        values: plain values; their ``family`` says which settings a supernet has.
    """
    first = error.errors()[0]
    location = _location(error)
    key = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1], values)
        hint = did_you_mean(str(location[-1]), known)
        message = f"unknown key {key!r}; known keys here are {', '.join(known)}{hint}"
    elif first["type"] == "missing":
        message = f"key {key!r} is missing"
    else:
        text = first["msg"].removeprefix("Value error, ")
        given = first["input"]
        got = "" if isinstance(given, dict | BaseModel) else f", got {shown(given)}"
        message = f"{key}: {text}{got}" if key else text
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


def with_overrides(settings: M, overrides: Sequence[str], where: str) -> M:
    """Return settings of a section with dotted values such as ``two_step=true`` changed; see `load_recipe`.

    Raises:
        RecipeError: an unknown field, a bad value, or a text without ``=``.
    """
    values: dict[str, Any] = {}
    for text in overrides:
        _override(values, text)
    return with_values(settings, values, where) if values else settings


def _override(values: dict[str, Any], text: str) -> None:
    """Set one dotted key; numbers step into lists."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {shown(text)} is not of the form section.key=value")
    *parents, last = key.split(".")
    target: Any = values
    try:
        parsed = parse_yaml(value, "override")
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
        if isinstance(target, list):
            target[int(last)] = parsed
        else:
            target[last] = parsed
    except UnreadableError as error:
        raise RecipeError(
            f"override {shown(text)} does not fit the recipe: {error.reason}; the value is read as YAML"
        ) from None
    except (ValueError, IndexError, TypeError, AttributeError):
        raise RecipeError(f"override {shown(text)} does not fit the recipe; {shown(key)} leads to no setting") from None
