"""What does the graph of a cell tell that its edges one by one do not?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SpaceError
from hwnas.space import SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


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
