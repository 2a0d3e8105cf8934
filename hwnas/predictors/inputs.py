"""What does a predictor see of an arch?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.space import SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Inputs:
    """Archs as predictors read them: genomes, and values that are exact for every arch."""

    space: SearchSpace
    genomes: IntArray
    """``(n, n_choices)``, canonical."""
    exact: FloatArray
    """``(n, k)`` cheap values (params, MACs, latency), in any unit; k may be 0."""

    def __len__(self) -> int:
        return len(self.genomes)

    def __getitem__(self, rows: IntArray | slice) -> Inputs:
        return Inputs(self.space, self.genomes[rows], self.exact[rows])

    @cached_property
    def one_hot(self) -> FloatArray:
        """``(n, d)``: 0/1 features of every choice and field."""
        return self.space.one_hot(self.genomes)
