"""What has a searcher seen, and what is still new?"""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SearchError
from hwnas.search.problem import Problem
from hwnas.space import Arch

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_LISTABLE = 1_000_000
"""Spaces up to this size can be listed when random draws find nothing new."""


def genome_keys(genomes: IntArray) -> list[bytes]:
    """Return one hashable key per row of ``(n, n_choices)`` canonical genomes."""
    rows = np.ascontiguousarray(genomes, dtype=np.uint16)
    if rows.size == 0:
        return [b""] * len(rows)
    return [bytes(k) for k in rows.view(np.dtype((np.void, rows.shape[1] * 2)))[:, 0].tolist()]


class Memory:
    """Genomes asked for, and the losses told for genomes (asked for or not), of one searcher.

    Genomes are canonical and in the indices of ``problem.space``. An arch that is told again (under other
    weights, say) keeps its place and takes the new losses.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._seen: set[bytes] = set()
        self._rows: dict[bytes, int] = {}
        self._genomes = np.zeros((64, len(problem.space)), dtype=np.int64)
        self._losses = np.zeros((64, len(problem.columns)))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def genomes(self) -> IntArray:
        """``(n, n_choices)`` genomes that were told, in the order of their first telling."""
        return self._genomes[: len(self)]

    @property
    def losses(self) -> FloatArray:
        """``(n, columns)`` losses of `genomes`; failed evaluations hold NaN."""
        return self._losses[: len(self)]

    @property
    def complete(self) -> BoolArray:
        """``(n,)``: which evaluations did not fail."""
        return np.asarray(np.isfinite(self.losses).all(axis=1), dtype=bool)

    @property
    def seen(self) -> Set[bytes]:
        """Keys of what was asked for or told; see `genome_keys`."""
        return self._seen

    @property
    def n_seen(self) -> int:
        """How many distinct archs were asked for or told."""
        return len(self._seen)

    @property
    def n_new(self) -> int:
        """How many archs of the space were neither asked for nor told."""
        return self.problem.space.size - len(self._seen)

    def add(self, archs: Sequence[Arch], losses: FloatArray) -> IntArray:
        """Remember ``(n, columns)`` losses and return the ``(n, n_choices)`` genomes.

        Raises:
            SearchError: losses of another shape.
            SpaceError: an arch of another space.
        """
        return self.add_genomes(self.problem.space.encode_many(archs), losses)

    def add_genomes(self, genomes: IntArray, losses: FloatArray) -> IntArray:
        """Do what `add` does for canonical genomes."""
        losses = np.asarray(losses, dtype=float)
        if losses.shape != (len(genomes), len(self.problem.columns)):
            raise SearchError(
                f"losses have shape {losses.shape}, but {len(genomes)} archs and "
                f"{len(self.problem.columns)} objectives and limited values were told"
            )
        for key, genome, row in zip(genome_keys(genomes), genomes, losses, strict=True):
            i = self._rows.setdefault(key, len(self._rows))
            if i == len(self._genomes):
                self._genomes = np.concatenate([self._genomes, np.zeros_like(self._genomes)])
                self._losses = np.concatenate([self._losses, np.zeros_like(self._losses)])
            self._genomes[i], self._losses[i] = genome, row
            self._seen.add(key)
        return genomes

    def mark_asked(self, genomes: IntArray) -> None:
        """Remember that ``genomes`` will be evaluated and must not be proposed again."""
        self._seen.update(genome_keys(genomes))

    def is_new(self, genomes: IntArray) -> BoolArray:
        """Return ``(n,)``: which rows were neither asked for nor told, nor stand earlier in ``genomes``."""
        out = np.zeros(len(genomes), dtype=bool)
        here: set[bytes] = set()
        for i, key in enumerate(genome_keys(genomes)):
            out[i] = key not in self._seen and key not in here
            here.add(key)
        return out

    def draw_new(self, rng: np.random.Generator, n: int, oversample: int = 1) -> IntArray:
        """Draw at most ``n`` new genomes, uniform over genes; fewer only where the space has no more.

        Candidates outside the limits on cheap values are rejected before anything expensive is
        computed; where no draw is within them, the nearest ones come first.

        Args:
            rng: source of randomness.
            n: how many.
            oversample: draw this many times as many and prefer those within the limits.

        Reference:
            Yang et al., 2022, TabNAS (rejection of infeasible samples); ours: it fills up by violation.
        """
        space = self.problem.space
        n = min(n, self.n_new)
        if n <= 0:
            return np.zeros((0, len(space)), dtype=np.int64)
        if self.problem.cheap_limits:
            oversample = max(oversample, 50)
        pool = np.zeros((0, len(space)), dtype=np.int64)
        for _ in range(20):
            pool = np.concatenate([pool, space.sample_genomes(rng, 2 * n * oversample + 16)])
            pool = pool[self.is_new(pool)]
            if len(pool) >= n:
                break
        if len(pool) < n and space.size <= _LISTABLE:
            everything = space.all_genomes(_LISTABLE)
            pool = rng.permutation(everything[self.is_new(everything)])
        if self.problem.cheap_limits:
            losses = self.problem.cheap_losses(pool)
            bad = np.isnan(losses[:, self.problem.cheap_columns]).any(axis=1)
            pool = pool[np.lexsort((self.problem.violation(losses), bad))]
        return pool[:n]
