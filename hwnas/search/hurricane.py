"""Search in the part of the space that suits the device, later stages first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.search.adapt import Round
from hwnas.search.evolve import fittest
from hwnas.search.natv2 import NATv2
from hwnas.search.region import Region
from hwnas.search.specialise import Specialisation, specialise

IntArray = NDArray[np.int64]


@dataclass(eq=False)
class Hurricane(NATv2):
    """NATv2's loop, in the specialised space first and by stages, then everywhere.

    1. `specialise` keeps the options of every choice that are worth their cost on this device.
    2. After the first archs, a fifth of the budget left, at most 100 evaluations: the later half of the stages is
       searched, the earlier half held at the best archs so far.
    3. As many again: the earlier half, the later half held at the best archs found.
    4. The rest: everything is free, dropped options too.

    The predictor learns from all phases, as they are archs of one space. Choices outside the stages (resolution)
    are always free. A space that can be listed (up to 50,000 archs) is neither cut nor frozen: there the
    predictor ranks every arch, and both would only lose some.

    The paper trains supernet weights anew in each phase, stops after the second and never leaves the specialised
    space; the joint phase is ours, over the whole space, since a score without accuracies drops some good options.
    `phase_changes` says when the supernet may be adapted in between.

    Reference:
        Zhang et al., 2020, HURRICANE.
    """

    keep: int | None = None
    """Options that a choice keeps by score; None: half of them, at least 4."""
    staged: bool = True
    """Whether the later stages come first; else all stages are free from the start."""
    specialised: bool = True
    """Whether options that are not worth their cost are dropped before the joint phase; else never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._staged = self.staged and not self._listable and len(self.problem.space.stages) >= 2
        self._cut = self.specialised and not self._listable
        self._phase = 0
        self._donors: IntArray = np.zeros((0, len(self.problem.space)), dtype=np.int64)
        if self._cut and self.specialisation.restricted.size < self.problem.space.size:
            self.notes.append(self.specialisation.summary())

    @cached_property
    def specialisation(self) -> Specialisation:
        """What was kept of the space, with scores; print its ``table()``."""
        return specialise(self.problem, self.keep, self._numbers.probe_archs)

    @property
    def phase_changes(self) -> tuple[Round, ...]:
        """Where one phase ends and the next begins; empty where everything is free from the start."""
        if not self._staged:
            return ()
        later, earlier = self._ends
        return Round(later, self._held(later=False)), Round(earlier)

    @property
    def _ends(self) -> tuple[float, float]:
        """Shares of the budget at which the later stages' phase ends, and the earlier stages'."""
        left = self.evaluations - self.n_initial
        shares, most = self._numbers.phase_shares, self._numbers.phase_evaluations
        ends = (self.n_initial + min(share * left, n) for share, n in zip(shares, most, strict=True))
        later, earlier = (end / self.evaluations for end in ends)
        return later, earlier

    def _held(self, later: bool) -> tuple[str, ...]:
        """Choices of the later half of the stages, or of the earlier half."""
        stages = self.problem.space.stages
        half = len(stages) // 2
        return tuple(name for stage in (stages[half:] if later else stages[:half]) for name in stage)

    def region(self) -> Region:
        """Return the part of the space that the present phase searches."""
        space = self.problem.space
        done, (later, earlier) = self.n_asked / self.evaluations, self._ends
        if done >= earlier or not (self._cut or self._staged):
            return Region.whole(space)
        allowed = self.specialisation.kept if self._cut else Region.whole(space).allowed
        frozen = np.zeros(len(space), dtype=bool)
        if not self._staged or self.memory.n_seen < self.n_initial:
            return Region(space, allowed, frozen, self._donors)
        phase = 1 if done < later else 2
        frozen[[space.position(name) for name in self._held(later=phase == 2)]] = True
        if phase != self._phase:
            self._phase, self._donors = phase, self._best_genomes()
        return Region(space, allowed, frozen, self._donors)

    def _best_genomes(self) -> IntArray:
        """``(k, n_choices)``: the best archs evaluated so far, spread over the front; any where all have failed."""
        memory = self.memory
        if not memory.complete.any():
            return memory.draw_new(self._rng, self._numbers.held_archs)
        best = fittest(self.problem, memory.losses, self._numbers.held_archs)
        return memory.genomes[best[memory.complete[best]]]
