"""Search in the part of the space that suits the device, later stages first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.search.adapt import Round
from hwnas.search.evolve import survivors
from hwnas.search.natv2 import _LIST, NATv2
from hwnas.search.region import Region
from hwnas.search.specialise import Specialisation, specialise

IntArray = NDArray[np.int64]

_LATER = 0.35
_EARLIER = 0.6
"""Shares of the budget after which the later stages, then the earlier ones are done; the rest is joint."""
_WINNERS = 8
"""Best archs whose later stages are fixed while the earlier ones are searched."""


@dataclass(eq=False)
class Hurricane(NATv2):
    """NATv2's loop on a specialised space, in three phases.

    1. `specialise` keeps the options of every choice that are worth their cost on this device.
    2. Up to 35 % of the budget: the later half of the stages is searched, the earlier half held at a
       reference arch (the best-scored option of every choice).
    3. Up to 60 %: the earlier half, the later half held at the best archs found.
    4. The rest: everything is free.

    The predictor learns from all phases, as they are archs of one space. Choices outside the stages (resolution)
    are always free. A space that can be listed (up to 50,000 archs) is neither cut nor frozen: there the
    predictor ranks every arch, and both would only lose some.

    The paper trains supernet weights anew in each phase and stops after the second; the joint phase is ours.
    `phase_changes` says when the supernet may be adapted in between.

    Reference:
        Zhang et al., 2020, HURRICANE.
    """

    keep: int | None = None
    """Options that a choice keeps by score; None: half of them, at least 4."""
    staged: bool = True
    """Whether the later stages come first; else everything is free from the start."""
    specialised: bool = True
    """Whether options that are not worth their cost are dropped; else the whole space is searched."""

    def __post_init__(self) -> None:
        super().__post_init__()
        large = self.problem.space.size > _LIST
        self._staged = self.staged and large and len(self.problem.space.stages) >= 2
        self._cut = self.specialised and large
        self._phase = 0
        self._anchors: IntArray = np.zeros((0, len(self.problem.space)), dtype=np.int64)
        if self._cut and self.specialisation.restricted.size < self.problem.space.size:
            self.notes.append(self.specialisation.summary())

    @cached_property
    def specialisation(self) -> Specialisation:
        """What was kept of the space, with scores; print its ``table()``."""
        return specialise(self.problem, self.keep)

    @property
    def phase_changes(self) -> tuple[Round, ...]:
        """Where one phase ends and the next begins; empty where everything is free from the start."""
        if not self._staged:
            return ()
        return Round(_LATER, self._held(later=False)), Round(_EARLIER)

    def _held(self, later: bool) -> tuple[str, ...]:
        """Choices of the later half of the stages, or of the earlier half."""
        stages = self.problem.space.stages
        half = len(stages) // 2
        return tuple(name for stage in (stages[half:] if later else stages[:half]) for name in stage)

    def region(self) -> Region:
        """Return the part of the specialised space that the present phase searches."""
        space = self.problem.space
        if not self._cut and not self._staged:
            return Region.whole(space)
        allowed = self.specialisation.kept if self._cut else Region.whole(space).allowed
        free = Region(space, allowed, np.zeros(len(space), dtype=bool), np.zeros((0, len(space)), dtype=np.int64))
        done = self.n_asked / self.evaluations
        phase = 3 if not self._staged or done >= _EARLIER else (2 if done >= _LATER else 1)
        if phase == 3:
            return free
        frozen = np.zeros(len(space), dtype=bool)
        frozen[[space.position(name) for name in self._held(later=phase == 2)]] = True
        if phase != self._phase:
            self._phase = phase
            self._anchors = self._reference() if phase == 1 else self._winners()
        return Region(space, allowed, frozen, self._anchors)

    def _reference(self) -> IntArray:
        """``(1, n_choices)``: the best-scored kept option of every choice; of switching choices the largest."""
        scores = self.specialisation.score
        parents = {c.parent for c in self.problem.space.choices}
        genome = [
            int(kept[-1]) if c.name in parents else int(kept[np.argmin(score[kept])])
            for c, kept, score in zip(self.problem.space.choices, self.specialisation.kept, scores, strict=True)
        ]
        return np.array([genome], dtype=np.int64)

    def _winners(self) -> IntArray:
        """``(k, n_choices)``: the best archs told so far, spread over the front."""
        memory = self.memory
        if not memory.complete.any():
            return self._reference()
        best = survivors(memory.losses, self.problem.violation(memory.losses), _WINNERS)
        return memory.genomes[best[memory.complete[best]]]
