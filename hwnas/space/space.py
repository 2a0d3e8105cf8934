"""Which archs exist, how many, and how does an algorithm move among them?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SpaceError
from hwnas.space.arch import Arch, named
from hwnas.space.choice import Choice, Option, as_options

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SearchSpace:
    """A forest of choices: each is always active, or active under some options of one earlier choice.

    A *genome* is the integer vector of an arch, one gene (an option's index) per choice; genes of inactive
    choices are 0, so equal genomes are equal archs. All array methods take and return ``(n, n_choices)``.
    """

    choices: tuple[Choice, ...]
    """Parents stand before their children."""
    stages: tuple[tuple[str, ...], ...] = ()
    """Choice names grouped from the network's input to its output; choices in no stage are global."""
    blocks: Callable[[Arch], Sequence[tuple[str, Any]]] | None = field(default=None, compare=False, repr=False)
    """Of a supernet's space: an arch to its blocks from input to output, as (slot, block spec)."""

    def __post_init__(self) -> None:
        seen: dict[str, Choice] = {}
        for choice in self.choices:
            if choice.name in seen:
                raise SpaceError(f"choice {choice.name!r} stands twice in the space")
            if choice.parent is not None and choice.parent not in seen:
                raise SpaceError(f"the parent {choice.parent!r} of choice {choice.name!r} must stand before it")
            seen[choice.name] = choice
        staged = [name for stage in self.stages for name in stage]
        if unknown := sorted(set(staged) - set(seen)):
            raise SpaceError(f"stages name unknown choices {unknown}; the choices are {list(seen)}")
        if len(set(staged)) != len(staged):
            raise SpaceError("a choice stands in two stages")

    @classmethod
    def of_choices(cls, choices: Mapping[str, Sequence[Any]], stages: Sequence[Sequence[str]] = ()) -> SearchSpace:
        """Make a space of independent choices.

        Args:
            choices: options by name; any JSON scalars or lists of them.
            stages: groups of names from a network's input to its output, for a staged search.
        """
        if not isinstance(choices, Mapping):
            raise SpaceError(f"choices are {choices!r:.60}; give a mapping of names to options")

        def fields(name: str, options: Sequence[Option]) -> tuple[str, ...]:
            width = len(options[0]) if options and isinstance(options[0], tuple) else 1
            return (name,) if width == 1 else tuple(f"{name}.{i}" for i in range(width))

        read = {name: as_options(options, str(name)) for name, options in choices.items()}
        made = tuple(Choice(name, options, fields(name, options)) for name, options in read.items())
        return cls(made, tuple(tuple(s) for s in stages))

    # -- looking at it -------------------------------------------------------------------------------

    @cached_property
    def _position(self) -> dict[str, int]:
        return {c.name: i for i, c in enumerate(self.choices)}

    def __getitem__(self, name: str) -> Choice:
        try:
            return self.choices[self._position[name]]
        except KeyError:
            raise SpaceError(f"the space has no choice {name!r}; it has {list(self._position)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._position

    def __len__(self) -> int:
        return len(self.choices)

    def position(self, name: str) -> int:
        """Return the gene's index of choice ``name``."""
        self[name]
        return self._position[name]

    @cached_property
    def n_options(self) -> IntArray:
        """``(n_choices,)`` number of options of every choice."""
        return np.array([len(c.options) for c in self.choices], dtype=np.int64)

    @cached_property
    def _counts(self) -> list[list[int]]:
        """For each choice and option: how many archs its subtree has (exact integers)."""
        per_option = [[1] * len(c.options) for c in self.choices]
        for i in range(len(self.choices) - 1, -1, -1):
            choice = self.choices[i]
            if choice.parent is None:
                continue
            total = sum(per_option[i])
            p = self._position[choice.parent]
            for j, option in enumerate(self.choices[p].options):
                if option in choice.active_for:
                    per_option[p][j] *= total
        return per_option

    @property
    def size(self) -> int:
        """Exact number of archs."""
        return math.prod(sum(n) for c, n in zip(self.choices, self._counts, strict=True) if c.parent is None)

    # -- genomes -------------------------------------------------------------------------------------

    @cached_property
    def _gates(self) -> list[tuple[int, NDArray[np.bool_]] | None]:
        """For each choice: the parent's gene and which of its indices switch the choice on."""
        gates: list[tuple[int, NDArray[np.bool_]] | None] = []
        for choice in self.choices:
            if choice.parent is None:
                gates.append(None)
                continue
            p = self._position[choice.parent]
            gates.append((p, np.array([o in choice.active_for for o in self.choices[p].options])))
        return gates

    def active(self, genomes: IntArray) -> NDArray[np.bool_]:
        """Return ``(n, n_choices)``: which choices each genome switches on."""
        out = np.ones(genomes.shape, dtype=bool)
        for i, gate in enumerate(self._gates):
            if gate is not None:
                p, on = gate
                out[:, i] = out[:, p] & on[genomes[:, p]]
        return out

    def canonical(self, genomes: IntArray) -> IntArray:
        """Return a copy in which genes of inactive choices are 0."""
        return np.where(self.active(genomes), genomes, 0)

    def sample_genomes(
        self,
        rng: np.random.Generator,
        n: int,
        uniform: Literal["genes", "archs"] = "genes",
        shares: Mapping[str, Sequence[float] | FloatArray] | None = None,
    ) -> IntArray:
        """Draw ``(n, n_choices)`` canonical genomes.

        Args:
            rng: source of randomness.
            n: how many; duplicates can occur.
            uniform: ``genes``: every option of a choice is as likely (see `Choice.evenly`); ``archs``: every arch is,
                so that deep stages, of which there are more, are drawn more often.
            shares: by choice name, how often each of its options is drawn, in any unit; such choices are drawn by
                themselves, the others as ``uniform`` says.

        Raises:
            SpaceError: shares of an unknown choice, of another number of options, negative or all 0.
        """
        given = {self[name].name: self._probabilities(name, values) for name, values in (shares or {}).items()}
        out = np.zeros((n, len(self.choices)), dtype=np.int64)
        for i, counts in enumerate(self._counts):
            choice = self.choices[i]
            if choice.name in given or (uniform == "genes" and choice.evenly):
                out[:, i] = rng.choice(len(counts), size=n, p=given.get(choice.name, choice.shares))
            elif uniform == "genes":
                out[:, i] = rng.integers(0, len(counts), size=n)
            else:
                total = sum(counts)
                p = np.array([c / total for c in counts])
                out[:, i] = rng.choice(len(counts), size=n, p=p / p.sum())
        return self.canonical(out)

    def _probabilities(self, name: str, shares: Sequence[float] | FloatArray) -> FloatArray:
        """``(n_options,)`` probabilities of a choice's options."""
        given, n = np.asarray(shares, dtype=float), len(self[name].options)
        if given.shape != (n,) or not (given >= 0).all() or not 0 < given.sum() < math.inf:
            raise SpaceError(
                f"shares of choice {name!r} are {given.tolist()}; give {n} numbers, none below 0 and one above"
            )
        return np.asarray(given / given.sum(), dtype=float)

    def sample(
        self,
        rng: np.random.Generator,
        n: int,
        uniform: Literal["genes", "archs"] = "genes",
        shares: Mapping[str, Sequence[float] | FloatArray] | None = None,
    ) -> list[Arch]:
        """Draw ``n`` archs; see `sample_genomes`."""
        return self.decode_many(self.sample_genomes(rng, n, uniform, shares))

    def all_genomes(self, limit: int = 1_000_000) -> IntArray:
        """Return every canonical genome, ``(size, n_choices)``, in lexicographic order.

        Raises:
            SpaceError: there are more than ``limit``.
        """
        if self.size > limit:
            raise SpaceError(f"the space has {self.size:,} archs, more than the limit {limit:,} for listing them")
        out = np.zeros((1, len(self.choices)), dtype=np.int64)
        for i, gate in enumerate(self._gates):
            n = int(self.n_options[i])
            on = np.ones(len(out), dtype=bool)
            if gate is not None:
                # Parents are already final here, and a parent that is off holds gene 0: ask `active`.
                on = self.active(out)[:, i]
            repeats = np.where(on, n, 1)
            starts = np.repeat(np.cumsum(repeats) - repeats, repeats)
            out = np.repeat(out, repeats, axis=0)
            out[:, i] = np.arange(len(out)) - starts
        return out

    def encode(self, arch: Arch) -> IntArray:
        """Return the genome of ``arch``, ``(n_choices,)``.

        Raises:
            SpaceError: the arch is not of this space.
        """
        genome = np.zeros(len(self.choices), dtype=np.int64)
        used = 0
        for i, choice in enumerate(self.choices):
            gate = self._gates[i]
            on = True
            if gate is not None:
                parent = self.choices[gate[0]]
                on = parent.name in arch and arch[parent.name] in choice.active_for
            if on != (choice.name in arch):
                raise SpaceError(
                    f"arch {arch.key} {'lacks' if on else 'has'} choice {choice.name!r}, "
                    f"which is {'active' if on else 'switched off'}; build archs with SearchSpace.arch"
                )
            if on:
                genome[i] = choice.index(arch[choice.name])
                used += 1
        if used != len(arch.items):
            raise SpaceError(f"arch {arch.key} has choices {sorted(set(arch) - set(self._position))} unknown here")
        return genome

    def encode_many(self, archs: Sequence[Arch]) -> IntArray:
        """Return ``(n, n_choices)`` genomes."""
        if not archs:
            return np.zeros((0, len(self.choices)), dtype=np.int64)
        return np.stack([self.encode(a) for a in archs])

    def decode(self, genome: Sequence[int] | IntArray) -> Arch:
        """Return the arch of one genome, ``(n_choices,)``; genes of inactive choices are ignored."""
        return self.decode_many(np.asarray(genome, dtype=np.int64)[None])[0]

    def decode_many(self, genomes: IntArray) -> list[Arch]:
        """Return the archs of ``(n, n_choices)`` genomes.

        Raises:
            SpaceError: a wrong width or a gene out of range.
        """
        genomes = np.asarray(genomes)
        if genomes.ndim != 2 or genomes.shape[1] != len(self.choices):
            raise SpaceError(f"genomes have shape {genomes.shape}; this space needs (n, {len(self.choices)})")
        if genomes.size and ((genomes < 0).any() or (genomes >= self.n_options).any()):
            row, column = np.argwhere((genomes < 0) | (genomes >= self.n_options))[0]
            raise SpaceError(
                f"gene {genomes[row, column]} of choice {self.choices[column].name!r} is out of range; "
                f"it has {self.n_options[column]} options"
            )
        active = self.active(genomes)
        return [
            Arch(
                tuple((c.name, c.options[g]) for c, g, on in zip(self.choices, genome, mask, strict=True) if on),
                self,
            )
            for genome, mask in zip(genomes.tolist(), active.tolist(), strict=True)
        ]

    def arch(self, values: Mapping[str, Any]) -> Arch:
        """Make the arch with the given options by choice name (lists stand for tuples).

        Values of choices that the arch switches off are ignored.

        Raises:
            SpaceError: an unknown name, a missing active choice, or a value that is no option.
        """
        if unknown := sorted(named(values) - set(self._position)):
            raise SpaceError(f"unknown choices {unknown}; the space has {list(self._position)}")
        genome = np.zeros(len(self.choices), dtype=np.int64)
        for i, choice in enumerate(self.choices):
            gate = self._gates[i]
            on = gate is None or bool(self.active(genome[None])[0, i])
            if on:
                if choice.name not in values:
                    raise SpaceError(f"choice {choice.name!r} is missing; its options are {list(choice.options)}")
                genome[i] = choice.index(values[choice.name])
        return self.decode(genome)

    def largest(self) -> Arch:
        """Return the arch of every choice's last option."""
        return self.decode(self.n_options - 1)

    def smallest(self) -> Arch:
        """Return the arch of every choice's first option."""
        return self.decode(np.zeros(len(self.choices), dtype=np.int64))

    # -- features ------------------------------------------------------------------------------------

    @cached_property
    def _feature_blocks(self) -> list[tuple[int, NDArray[np.float64]]]:
        """For each choice and field with more than one value: gene index and ``(n_options, n_values)``."""
        blocks = []
        for i, choice in enumerate(self.choices):
            for name in choice.fields:
                values = [choice.field_value(o, name) for o in choice.options]
                distinct = [v for v in dict.fromkeys(values) if v is not None]
                gate = self._gates[i]
                if len(distinct) > 1 or gate is not None:
                    blocks.append((i, np.array([[v == d for d in distinct] for v in values], dtype=float)))
        return blocks

    def one_hot(self, genomes: IntArray) -> FloatArray:
        """Return ``(n, n_features)`` 0/1 features, one group per choice and field; inactive choices are all 0."""
        active = self.active(genomes)
        parts = [table[genomes[:, i]] * active[:, i, None] for i, table in self._feature_blocks]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(genomes), 0))

    # -- smaller spaces ------------------------------------------------------------------------------

    def restrict(self, options: Mapping[str, Iterable[Any]]) -> SearchSpace:
        """Return the space in which the named choices have only the given options (in their old order).

        Raises:
            SpaceError: an unknown choice, an option it does not have, or none left.
        """
        keep = {self[name].name: set(as_options(_listed(given), name)) for name, given in options.items()}
        for name, wanted in keep.items():
            if extra := [o for o in wanted if o not in self[name].options]:
                raise SpaceError(f"{extra} are no options of {name!r}; its options are {list(self[name].options)}")
        return replace(
            self,
            choices=tuple(
                replace(c, options=tuple(o for o in c.options if c.name not in keep or o in keep[c.name]))
                for c in self.choices
            ),
        )

    def genomes_of(self, part: SearchSpace, genomes: IntArray) -> IntArray:
        """Return the genomes here, ``(n, n_choices)``, of archs that are given as genomes of a part of this space.

        Args:
            part: as `restrict` makes it.
            genomes: ``(n, n_choices)`` of the part.
        """
        if not self.choices:
            return genomes
        indices = [
            np.array([mine.index(o) for o in other.options], dtype=np.int64)
            for mine, other in zip(self.choices, part.choices, strict=True)
        ]
        return self.canonical(np.stack([of[genomes[:, i]] for i, of in enumerate(indices)], axis=1))

    def where(self, **fields: Iterable[Any]) -> SearchSpace:
        """Return the space whose options have only the given values of a field.

        A field is named in `Choice.fields`, such as ``kernel_size``, ``expand_ratio``, ``depth`` or
        ``resolution``. Choices that would lose every option keep the nearest ones: the largest value
        not above the given ones, or else their smallest.

        Raises:
            SpaceError: no choice has the field, or no choice has any of the values.
        """
        space = self
        for name, given in fields.items():
            wanted = set(as_options(_listed(given), name))
            having = [c for c in space.choices if name in c.fields]
            values = {c.name: {c.field_value(o, name) for o in c.options} - {None} for c in having}
            known = sorted(set().union(*values.values()), key=_order) if values else []
            if not wanted & set(known):
                every = sorted({f for c in self.choices for f in c.fields})
                raise SpaceError(
                    f"{name}={sorted(wanted, key=_order)} matches nothing: "
                    + (f"its values are {known}" if having else f"the fields of this space are {every}")
                )
            kept: dict[str, list[Option]] = {}
            for c in having:
                use = values[c.name] & wanted
                if not use and values[c.name]:
                    top = max(_order(v) for v in wanted)
                    below = [v for v in values[c.name] if _order(v) <= top]
                    use = {max(below, key=_order) if below else min(values[c.name], key=_order)}
                kept[c.name] = [o for o in c.options if c.field_value(o, name) in (*use, None)]
            space = space.restrict(kept)
        return space

    def fix(self, arch: Arch, names: Iterable[str]) -> SearchSpace:
        """Return the space in which the named choices have the arch's option only (inactive ones stay free)."""
        return self.restrict({n: [arch[n]] for n in names if n in arch})

    def contains(self, arch: Arch) -> bool:
        """Say whether ``arch`` belongs to this space."""
        try:
            self.encode(arch)
        except SpaceError:
            return False
        return True


def _listed(given: Any) -> list[Any]:
    """Options in which order does not matter; one alone stands for a list of one."""
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [given]


def _order(value: Any) -> tuple[str, Any]:
    """Numbers before texts, each in their own order."""
    return ("", value) if isinstance(value, int | float) else (type(value).__name__, value)
