"""What does a predictor see of an arch?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.space import SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_REFERENCE = 2048
"""Archs drawn to find the mean and spread of every feature: a deviation is then known to about 1.6 %."""


@dataclass(frozen=True)
class Inputs:
    """Archs as predictors read them; made by an `Encoder`."""

    genomes: IntArray
    """``(n, n_choices)``, canonical."""
    one_hot: FloatArray
    """``(n, d)``: 0/1, one group a choice and field; inactive choices are all 0."""
    smooth: FloatArray
    """``(n, k)``: exact cheap values and option counts, each with mean 0 and deviation 1 over the space."""
    centre: FloatArray
    """``(d,)``: mean of every one-hot column over the space."""
    scale: FloatArray
    """``(d,)``: deviation of every one-hot column over the space."""
    further: tuple[FloatArray, ...] = ()
    """Further groups of features, ``(n, c)`` each, such as counts of parts of a cell, with mean 0 and, together, a mean
    squared length of about 1 over the space."""

    def __len__(self) -> int:
        return len(self.genomes)

    def __getitem__(self, rows: IntArray | slice | NDArray[np.bool_]) -> Inputs:
        return Inputs(
            self.genomes[rows], self.one_hot[rows], self.smooth[rows], self.centre, self.scale,
            tuple(group[rows] for group in self.further),
        )  # fmt: skip

    @cached_property
    def features(self) -> FloatArray:
        """``(n, k + d)``: smooth and centred one-hot columns, these with half the deviation."""
        return np.concatenate([self.smooth, 0.5 * (self.one_hot - self.centre) / self.scale], axis=1)

    @property
    def groups(self) -> tuple[FloatArray, ...]:
        """Groups of features, ``(n, k)`` each: genes, exact values and option counts, and `further` ones.

        The mean squared length of a row is about 1 in each group over the space; a group without columns is left out.
        """
        genes = (self.one_hot - self.centre) / max(float(np.sqrt((self.scale**2).sum())), 1e-9)
        exact = self.smooth / np.sqrt(max(self.smooth.shape[1], 1))
        return (genes, *(group for group in (exact, *self.further) if group.shape[1]))


Encode = Callable[[IntArray], Inputs]
"""``(n, n_choices)`` canonical genomes to what predictors read of them."""


def reference_genomes(space: SearchSpace) -> IntArray:
    """Return the genomes of ``space``, always the same, over which features have mean 0 and deviation 1."""
    return space.sample_genomes(np.random.default_rng(0), _REFERENCE)


class Encoder:
    """Turns genomes of one space into `Inputs`.

    Besides one-hot genes, archs are described by what is exact for every candidate (latency, MACs, params:
    logarithms where all are positive), by how often every option occurs among choices that have the same options,
    and by the sum of every field whose values are numbers (resolution, depth, kernel size), whose trend reaches
    beyond the values seen. Few evaluations say much about these few numbers.
    """

    def __init__(
        self,
        space: SearchSpace,
        exact: Callable[[IntArray], FloatArray] | None = None,
        reference: IntArray | None = None,
    ) -> None:
        """Fix the scales of all features.

        Args:
            space: where the genomes come from.
            exact: genomes to ``(n, k)`` exact values, in any unit; NaN where there is none.
            reference: ``(r, n_choices)`` genomes on which scales are fixed; None: `reference_genomes`.
        """
        self.space = space
        self._exact = exact
        reference = reference_genomes(space) if reference is None else reference
        raw = self._raw_exact(reference)
        usable = np.isfinite(raw).all(axis=1)
        self._log = (raw[usable] > 0).all(axis=0) if usable.any() else np.zeros(raw.shape[1], dtype=bool)
        # What is 0 only outside of the draws must not become an outlier.
        self._least = np.ones(raw.shape[1])
        if usable.any():
            self._least[self._log] = 0.1 * raw[usable].min(axis=0)[self._log]
        columns = self._columns(reference)
        self._fill = np.zeros(columns.shape[1])
        finite = np.where(np.isfinite(columns), columns, np.nan)
        seen = np.isfinite(finite).any(axis=0)
        self._fill[seen] = np.nanmean(finite[:, seen], axis=0)
        columns = np.where(np.isfinite(columns), columns, self._fill)
        spread = columns.std(axis=0)
        self._keep = spread > 1e-9
        self._spread = np.where(self._keep, spread, 1.0)
        one_hot = space.one_hot(reference)
        self._centre, scale = one_hot.mean(axis=0), one_hot.std(axis=0)
        self._scale = np.where(scale > 1e-9, scale, 1.0)

    def __call__(self, genomes: IntArray) -> Inputs:
        """Return the inputs of ``(n, n_choices)`` canonical genomes."""
        columns = self._columns(genomes)
        columns = np.where(np.isfinite(columns), columns, self._fill)
        smooth = ((columns - self._fill) / self._spread)[:, self._keep]
        return Inputs(genomes, self.space.one_hot(genomes), smooth, self._centre, self._scale)

    def _raw_exact(self, genomes: IntArray) -> FloatArray:
        if self._exact is None:
            return np.zeros((len(genomes), 0))
        return np.asarray(self._exact(genomes), dtype=float).reshape(len(genomes), -1)

    def _columns(self, genomes: IntArray) -> FloatArray:
        """``(n, k)``: exact values (logarithms where they are positive), option counts and sums of fields."""
        exact = self._raw_exact(genomes)
        exact = np.where(self._log, np.log(np.maximum(exact, self._least)), exact)
        active = self.space.active(genomes)
        counts = [
            ((genomes[:, group] == option) & active[:, group]).sum(axis=1)
            for group, n_options in self._alike
            for option in range(n_options)
        ]
        sums = [sum(table[genomes[:, i]] * active[:, i] for i, table in field) for field in self._numbers]
        columns = np.array([*counts, *sums], dtype=float).reshape(-1, len(genomes))
        return np.concatenate([exact, columns.T], axis=1)

    @cached_property
    def _alike(self) -> list[tuple[list[int], int]]:
        """Groups of two or more choices with the same options, and how many options they have."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, choice in enumerate(self.space.choices):
            groups.setdefault(choice.options, []).append(i)
        return [(group, len(options)) for options, group in groups.items() if len(group) > 1 and len(options) > 1]

    @cached_property
    def _numbers(self) -> list[list[tuple[int, FloatArray]]]:
        """For every field of numbers, where three or more occur: genes that hold it, and its values by option."""
        fields: dict[str, list[tuple[int, list[object]]]] = {}
        for i, choice in enumerate(self.space.choices):
            for name in choice.fields:
                fields.setdefault(name, []).append((i, [choice.field_value(o, name) for o in choice.options]))
        found = []
        for held in fields.values():
            values = {v for _, of_options in held for v in of_options if v is not None}
            if len(values) > 2 and all(isinstance(v, int | float) for v in values):
                found.append([(i, np.array([0.0 if v is None else v for v in of])) for i, of in held])
        return found
