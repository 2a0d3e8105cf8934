"""What are the values of a YAML text? Counted before they are built, and every key once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hwnas.errors import UnreadableError, shown
from hwnas.reading.json_files import DEPTH, unsealed
from hwnas.reading.text import ROUGHLY, read_text

SETTINGS_BYTES = 2**20
"""Of a YAML file of settings; the largest recipe that ships has 6 kB."""

NODES = 200_000
"""Values of a YAML file, those that aliases repeat counted each time. Tables of others have up to 20,000."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML was built with it: 10 times as fast, with the same results."""


def parse_yaml(
    text: str, where: str, limit: int = SETTINGS_BYTES, construct: Callable[[Any, yaml.Node], Any] | None = None
) -> Any:
    """Return the values of a YAML text: no more of them than `NODES`, and keys stand once.

    Args:
        text: one document.
        where: names it in errors.
        limit: of its characters.
        construct: makes values of the loader and the root node; default: as `yaml.safe_load`, and a key that stands
            twice is an error.

    Raises:
        UnreadableError: it is no YAML, too large, too deep, refers to itself or repeats a key.
    """
    if len(text) > limit:
        raise UnreadableError(where, f"it has more than {limit:,} characters, which such a file never has")
    try:
        _check_events(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if construct is not None:
                return construct(loader, node)
            _check_keys(loader, node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise UnreadableError(where, f"it is no YAML: {error}") from None
    except ROUGHLY as error:  # such as the date 2026-13-01
        reason = f"it has no key {shown(error.args[0])}" if isinstance(error, KeyError) and error.args else str(error)
        raise UnreadableError(where, f"it is no YAML of this kind: {reason}") from None


def read_yaml(path: Path, limit: int = SETTINGS_BYTES) -> Any:
    """Return the values of a YAML file, its `SEAL` taken off; see `read_text`, `parse_yaml` and `unsealed`."""
    return unsealed(parse_yaml(read_text(path, limit), str(path), limit), str(path))


def _check_events(text: str) -> None:
    """Count values and levels, aliases with all that they repeat, before anything is built.

    Raises:
        ValueError: too many, or an alias inside what it stands for.
    """
    sizes: dict[str, int] = {}
    open_: list[list[Any]] = [[None, 0]]  # anchor and values of every collection that has not ended
    for event in yaml.parse(text, Loader=_Loader):
        done: tuple[str | None, int] | None = None
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"*{shown(event.anchor, 40)} stands before or inside what it stands for")
            done = None, sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            done = event.anchor, 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append([event.anchor, 1])
            if len(open_) > DEPTH + 1:
                raise ValueError(f"it has more than {DEPTH} levels within each other")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_.pop()
            done = anchor, size
        if done is not None:
            anchor, size = done
            open_[-1][1] += size
            if anchor is not None:
                sizes[anchor] = size
            if open_[-1][1] > NODES:
                raise ValueError(f"it has more than {NODES:,} values, those that aliases repeat counted each time")


def _check_keys(loader: Any, root: yaml.Node) -> None:
    """Raise where a mapping repeats a key (PyYAML would silently drop the first); merged ones may be overridden."""
    seen: set[int] = set()
    left = [root]
    while left:
        node = left.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
            continue
        keys: set[Any] = set()
        for key, value in node.value:
            left.append(value)
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"the key in line {key.start_mark.line + 1} is a {key.id}; keys are texts or numbers")
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            made = loader.construct_object(key)
            if made in keys:
                raise ValueError(f"key {shown(key.value, 60)} stands twice, again in line {key.start_mark.line + 1}")
            keys.add(made)
