"""What does the graph of a cell tell that its edges one by one do not?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SpaceError
from hwnas.space import SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_Sum = tuple[tuple[object, ...], ...]
"""Terms that are added: ``()`` is the cell's input, ``(operator, sum)`` an operator applied to a sum."""
_MOST_WORDS = 5000
"""Words of paths that are counted for every arch of a space."""
_MOST_CELLS = 50_000
"""Cells that are compared with each other to find those that compute the same."""


class CellFeatures:
    """Paths from a cell's input to its output, for spaces with an operator on every edge of a small graph.

    An edge that lies on no live path does not change the output, and what an operator can learn depends on what
    stands before and after it. Features, ``(n, k)`` without unit: which paths are live; how often each operator
    occurs on live edges; for each operator, and for all that have weights, the sum and the maximum over live
    paths; how many live paths only skip; whether any path is live (no other cell tells what a cell without one
    computes).

    Reference:
        White, Neiswanger and Savani, 2021, BANANAS (path encoding); counts in place of one bit a path are ours.
    """

    def __init__(
        self,
        space: SearchSpace,
        edges: Mapping[str, tuple[int, int]],
        none: str = "none",
        skip: str = "skip_connect",
        weighted: tuple[str, ...] = ("nor_conv_1x1", "nor_conv_3x3"),
    ) -> None:
        """Read the graph.

        Args:
            space: has a choice of an operator for every edge.
            edges: source and target node by the choice's name; node 0 is the input, the largest the output.
            none: the operator that cuts an edge.
            skip: the operator that changes nothing.
            weighted: operators that learn.

        Raises:
            SpaceError: a choice that the space does not have.
        """
        self._columns = np.array([space.position(name) for name in edges], dtype=np.int64)
        self._ends = tuple(edges.values())
        options = [space[name].options for name in edges]
        self._operators = [o for o in dict.fromkeys(o for each in options for o in each) if o != none]
        if not self._operators:
            raise SpaceError(f"edges {list(edges)} have no operator but {none!r}; give them at least one more")
        # For each edge and option the operator's index; -1 cuts the edge.
        self._index = [np.array([-1 if o == none else self._operators.index(o) for o in each]) for each in options]
        self._skip = self._operators.index(skip) if skip in self._operators else -2
        self._weighted = [self._operators.index(o) for o in weighted if o in self._operators]

    @cached_property
    def paths(self) -> list[list[int]]:
        """Edge numbers of every path from input to output, shortest first."""
        last = max(target for _, target in self._ends)

        def from_node(node: int) -> list[list[int]]:
            if node == last:
                return [[]]
            starts = [(e, target) for e, (source, target) in enumerate(self._ends) if source == node]
            return [[e, *rest] for e, target in starts for rest in from_node(target)]

        return sorted(from_node(0), key=len)

    @cached_property
    def vocabulary(self) -> list[tuple[int, ...]]:
        """Words that a live path can be: numbers of its operators without skips, shortest first."""
        operators = [o for o in range(len(self._operators)) if o != self._skip]
        longest = max((len(path) for path in self.paths), default=0)
        n_words = sum(len(operators) ** n for n in range(longest + 1))
        if n_words > _MOST_WORDS:
            raise SpaceError(
                f"paths of up to {longest} of {len(operators)} operators make {n_words} words, more than {_MOST_WORDS} "
                "that counts are for; leave counts out"
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
            raise SpaceError(
                f"{prod(sizes)} cells are more than the {_MOST_CELLS} that can be compared; leave stand-ins out"
            )
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

    def _of_edges(self, genomes: IntArray) -> IntArray:
        """``(n, edges)``: the number of the operator on every edge; -1 where it is cut."""
        return np.stack([i[genomes[:, c]] for i, c in zip(self._index, self._columns, strict=True)], axis=1)

    def __call__(self, genomes: IntArray) -> FloatArray:
        """Return ``(n, k)`` features of ``(n, n_choices)`` genomes."""
        operators = self._of_edges(genomes)
        live = np.stack([(operators[:, p] >= 0).all(axis=1) for p in self.paths], axis=1)
        used = np.zeros(operators.shape, dtype=bool)
        for alive, path in zip(live.T, self.paths, strict=True):
            used[:, path] |= alive[:, None]
        columns = [*live.T]
        columns += [((operators == o) & used).sum(axis=1) for o in range(len(self._operators))]
        for group in (*([o] for o in range(len(self._operators)) if o != self._skip), self._weighted):
            each = np.stack([np.isin(operators[:, p], group).sum(axis=1) for p in self.paths], axis=1) * live
            columns += [each.max(axis=1), each.sum(axis=1)]
        skips = np.stack([(operators[:, p] == self._skip).all(axis=1) for p in self.paths], axis=1) & live
        columns += [skips.sum(axis=1), live.any(axis=1)]
        return np.stack(columns, axis=1).astype(float)
