"""What predictors may read of cells that are trained alone: the words of their paths, of the simplest equal cell.

Only for tables such as that of NAS-Bench-201, in which every cell was trained by itself: all cells that compute the
same function then have the same accuracy, up to noise. In a supernet they have weights of their own, so hwnas has no
such setting; the searchers' argument ``encoder`` is where this enters.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SpaceError
from hwnas.predictors import CellFeatures, Encoder, Inputs
from hwnas.predictors.encoder import reference_genomes
from hwnas.search import Problem

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_Sum = tuple[tuple[object, ...], ...]
"""Terms that are added: ``()`` is the cell's input, ``(operator, sum)`` an operator applied to a sum."""
_MOST_WORDS = 5000
"""Words of paths that are counted for every arch of a space."""
_MOST_CELLS = 50_000
"""Cells that are compared with each other to find those that compute the same."""


class Cells(CellFeatures):
    """`CellFeatures`, and which cells compute the same."""

    @cached_property
    def vocabulary(self) -> list[tuple[int, ...]]:
        """Words that a live path can be: numbers of its operators without skips, shortest first."""
        operators = [o for o in range(len(self._operators)) if o != self._skip]
        longest = max((len(path) for path in self.paths), default=0)
        n_words = sum(len(operators) ** n for n in range(longest + 1))
        if n_words > _MOST_WORDS:
            raise SpaceError(
                f"paths of up to {longest} of {len(operators)} operators make {n_words} words, more than {_MOST_WORDS} "
                "that counts are for"
            )
        return [word for n in range(longest + 1) for word in product(operators, repeat=n)]

    def words(self, genomes: IntArray) -> FloatArray:
        """Return ``(n, k)``: how many live paths of a cell read as each word of `vocabulary`.

        A skip changes nothing, so cells with the same words compute nearly the same function: the 15,625 cells of
        NAS-Bench-201 have 4,120 different ones.
        """
        operators, k = self._of_edges(genomes), len(self._operators) - (self._skip >= 0)
        number = np.cumsum([o != self._skip for o in range(len(self._operators))]) - 1  # among operators but skips
        counts = np.zeros((len(genomes), len(self.vocabulary)))
        for path in self.paths:
            column = np.zeros(len(genomes), dtype=np.int64)
            for edge in path:
                o = operators[:, edge]
                # Words of n operators follow the shorter ones, in the order of numbers with n digits of base k.
                column = np.where(o == self._skip, column, column * k + number[o] + 1)
            live = np.flatnonzero((operators[:, path] >= 0).all(axis=1))
            np.add.at(counts, (live, column[live]), 1.0)
        return counts

    def simplest(self, genomes: IntArray) -> IntArray:
        """Return ``(n, n_choices)``: the genomes with, of all cells that compute the same function, the simplest.

        Edges on no live path are cut, a skip is the node that it repeats, and sums do not depend on their order; the
        15,625 cells of NAS-Bench-201 compute 4,930 different functions. The simplest cell has the fewest operators that
        do anything, then the fewest at all, then the lowest options. Other genes stay.

        Raises:
            SpaceError: so many cells that they cannot be compared.

        Reference:
            Dong and Yang, 2020, NAS-Bench-201, section 2.1: cells that are isomorphic to others.
        """
        out = np.array(genomes, dtype=np.int64)
        sizes = [len(options) for options in self._index]
        out[:, self._columns] = self._simplest[np.ravel_multi_index(tuple(genomes[:, self._columns].T), sizes)]
        return out

    @cached_property
    def _simplest(self) -> IntArray:
        """``(cells, edges)``: options of the simplest cell that computes the same as each cell."""
        sizes = [len(options) for options in self._index]
        if prod(sizes) > _MOST_CELLS:
            raise SpaceError(f"{prod(sizes)} cells are more than the {_MOST_CELLS} that can be compared")
        cells = np.indices(sizes).reshape(len(sizes), -1).T
        operators = np.stack([index[cell] for index, cell in zip(self._index, cells.T, strict=True)], axis=1)
        first: dict[_Sum, int] = {}
        functions = [self._function(row) for row in operators.tolist()]
        uncut = operators >= 0
        for i in np.lexsort((uncut.sum(axis=1), (uncut & (operators != self._skip)).sum(axis=1))).tolist():
            first.setdefault(functions[i], i)
        return np.asarray(cells[[first[function] for function in functions]], dtype=np.int64)

    def _function(self, operators: list[int]) -> _Sum:
        """What a cell computes from the operators on its edges: nested sums of operators applied to sums."""
        last = max(target for _, target in self._ends)

        def of(node: int) -> _Sum:
            if node == 0:
                return ((),)
            terms: list[tuple[object, ...]] = []
            for operator, (source, target) in zip(operators, self._ends, strict=True):
                if target == node and operator >= 0 and (before := of(source)):
                    terms += before if operator == self._skip else [(operator, before)]
            return tuple(sorted(terms))

        return of(last)


class CellEncoder:
    """Turns genomes into `Inputs` of the simplest cell that computes the same, with the words of its paths."""

    def __init__(self, problem: Problem, cells: Cells) -> None:
        """Fix the scales; see `Encoder`.

        Args:
            problem: of whose space the genomes are.
            cells: the graph.
        """
        self._cells = cells
        reference = cells.simplest(reference_genomes(problem.space))
        self._plain = Encoder(problem.space, problem.known, reference)
        words = cells.words(reference)
        # Words are scaled together, as a rare word would be an outlier by its own deviation.
        self._mean, self._length = words.mean(axis=0), max(float(np.sqrt(words.var(axis=0).sum())), 1e-9)

    def __call__(self, genomes: IntArray) -> Inputs:
        """Return the inputs of ``(n, n_choices)`` canonical genomes."""
        simplest = self._cells.simplest(genomes)
        words = (self._cells.words(simplest) - self._mean) / self._length
        return replace(self._plain(simplest), further=(words,))
