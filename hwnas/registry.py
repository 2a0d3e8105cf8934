"""How does a name in a recipe become an object? By a registry for each kind of plug-in.

A name is one of three things:

- a short name that ships with hwnas, such as ``hurricane``;
- the place of an object of one's own, ``package.module:object``;
- a short name that an installed package announces in the entry-point group ``hwnas``, as ``<kind>.<name>``::

      [project.entry-points.hwnas]
      "objective.sharpness" = "my_package.objectives:sharpness"

Nothing is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from hwnas.errors import PluginError, did_you_mean

GROUP = "hwnas"
"""Entry-point group in which packages announce short names."""

T = TypeVar("T")


class Registry(Generic[T]):
    """The plug-ins of one kind, by name."""

    def __init__(self, kind: str, shipped: Mapping[str, str], needs: tuple[str, ...], page: str) -> None:
        """Name a kind; nothing is imported.

        Args:
            kind: such as ``objective``; begins the names of entry points.
            shipped: the place (``module:object``) of everything that ships, by short name.
            needs: attributes that an object of this kind has.
            page: where its protocol is written, for messages, such as ``hwnas.objectives.plugin``.
        """
        self.kind = kind
        self.page = page
        self._shipped = dict(shipped)
        self._needs = needs
        self._found: dict[str, T] = {}

    def names(self) -> list[str]:
        """Return the short names, shipped ones first, then those that installed packages announce."""
        return [*self._shipped, *sorted(set(_announced(self.kind)) - set(self._shipped))]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._shipped or name in _announced(self.kind))

    def get(self, name: str, besides: Sequence[str] = ()) -> T:
        """Return the object that ``name`` stands for.

        Args:
            name: of a kind that the module's docstring lists.
            besides: names that the caller knows besides; the message of an unknown name shows them, too.

        Raises:
            PluginError: the name is unknown (with the known ones), cannot be imported, or is no such thing.
        """
        if name not in self._found:
            self._found[name] = self._load(name, besides)
        return self._found[name]

    def check(self, name: str) -> str:
        """Return ``name`` where it stands for an object of this kind; for validators of settings.

        Raises:
            ValueError: see `get`.
        """
        self.get(name)
        return name

    def _load(self, name: str, besides: Sequence[str]) -> T:
        if name in self._shipped:
            return self._imported(self._shipped[name], name)
        if ":" in name:
            return self._imported(name, name)
        announced = _announced(self.kind)
        if name in announced:
            return self._imported(announced[name], name)
        known = [*besides, *self.names()]
        raise PluginError(
            f"{self.kind} {name!r} is unknown; known are {', '.join(known)}, or give one of your own as "
            f"package.module:object{did_you_mean(name, known)}"
        )

    def _imported(self, place: str, name: str) -> T:
        module, _, attribute = place.partition(":")
        try:
            found: Any = import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:  # a plug-in may fail in any way while it is imported
            raise PluginError(
                f"{self.kind} {name!r} cannot be imported from {place!r}: {type(error).__name__}: {error}"
            ) from error
        if missing := [n for n in self._needs if not hasattr(found, n)]:
            raise PluginError(
                f"{self.kind} {name!r} ({place}) lacks {', '.join(missing)}; {self.page} says what it needs"
            )
        return found  # type: ignore[no-any-return]


@cache
def _announced(kind: str) -> dict[str, str]:
    """Places by short name that installed packages announce for a kind."""
    prefix = f"{kind}."
    return {e.name.removeprefix(prefix): e.value for e in entry_points(group=GROUP) if e.name.startswith(prefix)}


def made(registry: Registry[Callable[..., T]], name: str, options: Mapping[str, Any]) -> T:
    """Call the factory that ``name`` stands for with ``options``.

    Raises:
        PluginError: the factory does not take them.
    """
    factory = registry.get(name)
    try:
        return factory(**options)
    except TypeError as error:
        raise PluginError(f"{registry.kind} {name!r} cannot be made with {dict(options)}: {error}") from None
