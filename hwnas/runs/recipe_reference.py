"""What may a recipe say? Its JSON schema, and a page with every field, its default, its unit and its meaning.

Everything is read from the models that check recipes, so it cannot say something else than they do.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from pydantic import BaseModel, RootModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hwnas.runs.recipe import Recipe
from hwnas.supernet import FamilyConfig
from hwnas.supernet.families.family import FAMILIES

UNITS = {
    "percent": "%", "px": "pixels", "ms": "ms", "s": "s", "degrees": "degrees", "epochs": "epochs", "images": "images",
    "gmacs": "1e9 multiply-adds", "kib": "KiB",
}  # fmt: skip
"""By the last word of a field's name."""


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of recipes, with the meaning of every field; ``supernet`` is that of any family."""
    schema = Recipe.model_json_schema()
    families = {name: _config_of(name) for name in sorted(FAMILIES.names())}
    definitions = schema.setdefault("$defs", {})
    for config in families.values():
        own = config.model_json_schema()
        definitions |= own.pop("$defs", {})
        definitions[config.__name__] = own
    names = dict.fromkeys(config.__name__ for config in families.values())
    schema["properties"]["supernet"] = {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in names]}
    for model in _models():
        target = schema if model is Recipe else definitions.get(model.__name__)
        for name, meaning in meanings(model).items():
            if target is not None and name in target.get("properties", {}):
                target["properties"][name]["description"] = meaning
    return schema


def recipe_reference() -> str:
    """Return the page as Markdown."""
    lines = [
        "# Recipe reference",
        "",
        "Every field of a recipe. Made by `hwnas recipe --reference` from the models that check recipes; a test keeps",
        "it up to date. `hwnas recipe --schema` prints the same as a JSON schema, which editors can use; `hwnas recipe",
        "NAME` prints a recipe with every default filled in. Any field may be given on the command line:",
        "`hwnas run RECIPE train.batch_size=32`.",
    ]
    for title, model, intro in _sections():
        lines += [
            "",
            f"## {title}",
            "",
            intro,
            "",
            "| field | default | allowed | unit | meaning |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(model, name, info) for name, info in model.model_fields.items()]
    return "\n".join(lines) + "\n"


@cache
def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return what the texts below the fields of a model say, its bases' fields among them."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not issubclass(owner, BaseModel) or owner in (BaseModel, RootModel):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            ):  # fmt: skip
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def _config_of(family: str) -> type[BaseModel]:
    config: type[BaseModel] = FAMILIES.get(family).config
    return config


def _models() -> list[type[BaseModel]]:
    """Every model that a recipe is made of."""
    found: dict[type[BaseModel], None] = {}

    def add(model: type[BaseModel]) -> None:
        if model not in found:
            found[model] = None
            for info in model.model_fields.values():
                for inner in _models_in(info.annotation):
                    add(inner)

    add(Recipe)
    for name in sorted(FAMILIES.names()):
        add(_config_of(name))
    return list(found)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _sections() -> Iterator[tuple[str, type[BaseModel], str]]:
    """Title, model and introduction of every table, parts after what they are parts of."""
    yield "The recipe", Recipe, _first_line(Recipe)

    def below(
        model: type[BaseModel], where: str, done: set[type[BaseModel]]
    ) -> Iterator[tuple[str, type[BaseModel], str]]:
        for name, info in model.model_fields.items():
            for inner in _models_in(info.annotation):
                if inner in done or inner is FamilyConfig:
                    continue
                done.add(inner)
                many = "" if inner is info.annotation or type(None) in get_args(info.annotation) else "[]"
                yield f"{where}{name}{many}", inner, _first_line(inner)
                yield from below(inner, f"{where}{name}{many}.", done)

    done: set[type[BaseModel]] = {Recipe}
    yield from below(Recipe, "", done)
    for name in sorted(FAMILIES.names()):
        config = _config_of(name)
        yield f"supernet, family {name}", config, _first_line(config)
        yield from below(config, f"supernet, family {name}: ", done)


def _first_line(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").split("\n\n")[0].replace("\n", " ")


def _row(model: type[BaseModel], name: str, info: FieldInfo) -> str:
    parts = [_first_line(inner) for inner in _models_in(info.annotation) if inner is not FamilyConfig]
    meaning = meanings(model).get(name) or " ".join(parts) or "The network; see the families below."
    meaning = re.sub(r"\bNone\b", "null", meaning.replace("``", "`"))  # as a recipe writes it
    cells = [f"`{name}`", _default(info), _allowed(info), _unit(name), meaning]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _unit(name: str) -> str:
    return UNITS.get(name.split("_")[-1], "")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "must be given"
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return "see below"
    return f"`{json.dumps(value, default=str)}`"


def _allowed(info: FieldInfo) -> str:
    """Type and bounds in words."""
    inner = [_named(info.annotation)]
    words = {Gt: ("gt", ">"), Ge: ("ge", "≥"), Lt: ("lt", "<"), Le: ("le", "≤")}
    for constraint in [*info.metadata, *_constraints(info.annotation)]:
        for kind, (attribute, sign) in words.items():
            if isinstance(constraint, kind):
                inner.append(f"{sign} {getattr(constraint, attribute):g}")
        if isinstance(constraint, MinLen) and constraint.min_length:
            inner.append(f"at least {constraint.min_length} long")
        if isinstance(constraint, MaxLen):
            inner.append(f"at most {constraint.max_length} long")
        if isinstance(constraint, MultipleOf):
            inner.append(f"a multiple of {constraint.multiple_of}")
    return ", ".join(dict.fromkeys(inner))


def _constraints(annotation: Any) -> Iterator[Any]:
    for part in getattr(annotation, "__metadata__", ()):
        yield from part.metadata if isinstance(part, FieldInfo) else [part]
    for inner in get_args(annotation):
        yield from _constraints(inner)


def _named(annotation: Any) -> str:
    """A type as a reader of YAML knows it."""
    arguments = get_args(annotation)
    origin = getattr(annotation, "__origin__", None)
    if annotation is type(None):
        return "null"
    if hasattr(annotation, "__metadata__"):
        return _named(arguments[0])
    if arguments and all(isinstance(a, str | int | bool) for a in arguments):
        return " or ".join(f"`{json.dumps(a)}`" if not isinstance(a, str) else f"`{a}`" for a in arguments)
    if origin is tuple or origin is list:
        return f"list of {_named(arguments[0])}"
    if origin is dict:
        return f"mapping of {_named(arguments[0])} to {_named(arguments[1])}"
    if arguments:
        return " or ".join(dict.fromkeys(map(_named, arguments)))
    names = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "anything"}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
