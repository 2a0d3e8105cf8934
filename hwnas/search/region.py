"""Which part of the space is searched now?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwnas.space import SearchSpace

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """Genomes of a space with only some options allowed and some choices frozen.

    Genomes keep the indices of the whole space, so objectives read them as always.
    """

    space: SearchSpace
    allowed: tuple[IntArray, ...]
    """For every choice: the indices of the options that may be taken, ascending, at least one."""
    frozen: BoolArray
    """``(n_choices,)``: choices that are copied, all from the same donor."""
    donors: IntArray
    """``(k, n_choices)`` genomes to copy from; k may be 0 where nothing is frozen."""

    @classmethod
    def whole(cls, space: SearchSpace) -> Region:
        """Return the region that is the space itself."""
        return cls(
            space,
            tuple(np.arange(n) for n in space.n_options),
            np.zeros(len(space), dtype=bool),
            np.zeros((0, len(space)), dtype=np.int64),
        )

    def with_options(self, name: str, indices: IntArray) -> Region:
        """Return the region in which a choice may take these options only."""
        position = self.space.position(name)
        allowed = tuple(indices if i == position else a for i, a in enumerate(self.allowed))
        return Region(self.space, allowed, self.frozen, self.donors)

    @property
    def is_whole(self) -> bool:
        """Whether every genome of the space belongs to the region."""
        full = all(len(a) == n for a, n in zip(self.allowed, self.space.n_options, strict=True))
        return full and not self.frozen.any()

    def draw(self, rng: np.random.Generator, n: int) -> IntArray:
        """Return ``(n, n_choices)`` canonical genomes, uniform over the allowed options of each choice."""
        genomes = np.stack([self._options(i, rng, n) for i in range(len(self.allowed))], axis=1)
        return self._with_frozen_genes(rng, genomes)

    def mutate(self, rng: np.random.Generator, genomes: IntArray, probability: float) -> IntArray:
        """Return a copy in which every free gene is drawn anew with ``probability``."""
        fresh = np.stack([self._options(i, rng, len(genomes)) for i in range(len(self.allowed))], axis=1)
        change = (rng.random(genomes.shape) < probability) & ~self.frozen
        return self.space.canonical(np.where(change, fresh, genomes))

    def repair(self, rng: np.random.Generator, genomes: IntArray) -> IntArray:
        """Return a copy in which forbidden options are drawn anew and frozen choices copied."""
        out = genomes.copy()
        for i, a in enumerate(self.allowed):
            if len(a) < self.space.n_options[i]:
                bad = ~np.isin(out[:, i], a)
                out[bad, i] = self._options(i, rng, int(bad.sum()))
        return self._with_frozen_genes(rng, out)

    def _options(self, i: int, rng: np.random.Generator, n: int) -> IntArray:
        """Draw ``(n,)`` of the options that choice ``i`` may take, as evenly as the choice says."""
        choice, allowed = self.space.choices[i], self.allowed[i]
        if not choice.evenly:
            return np.asarray(allowed[rng.integers(0, len(allowed), n)], dtype=np.int64)
        left = replace(choice, options=tuple(choice.options[j] for j in allowed))
        return np.asarray(rng.choice(allowed, size=n, p=left.shares), dtype=np.int64)

    def _with_frozen_genes(self, rng: np.random.Generator, genomes: IntArray) -> IntArray:
        """Copy frozen choices from donors drawn at random, and make the genomes canonical."""
        if self.frozen.any() and len(self.donors):
            source = self.donors[rng.integers(0, len(self.donors), len(genomes))]
            genomes = np.where(self.frozen, source, genomes)
        return self.space.canonical(genomes)
