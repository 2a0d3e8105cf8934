"""Search with a predictor: evaluate few archs, predict the rest, evaluate where it pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hwnas.errors import SearchError
from hwnas.pareto import non_dominated
from hwnas.predictors import (
    Encode,
    Encoder,
    Inputs,
    Predictor,
    cross_validate,
    fit_or_fall_back,
    make_predictor,
)
from hwnas.search.acquire import (
    Warp,
    Warped,
    pick_by_front,
    pick_by_gaps,
    pick_by_hypervolume,
    pick_by_improvement,
)
from hwnas.search.evolve import evolve, fittest
from hwnas.search.first_archs import first_archs
from hwnas.search.memory import Memory, genome_keys
from hwnas.search.problem import Problem
from hwnas.search.quality import PredictorQuality
from hwnas.search.region import Region
from hwnas.search.settings import NATv2Settings
from hwnas.space import Arch

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_FEWEST_TO_FIT = 4
"""Evaluated archs with which a predictor is fitted and can be judged: two folds of two."""
SELECTIONS = ("turns", "gaps", "improvement")
"""Names of `NATv2.selection`."""


@dataclass(eq=False)
class NATv2:
    """Search with a predictor: Neural Architecture Transfer, version 2, for any space and objectives.

    The first archs are drawn without a model (`first_archs`). From then on each generation is made in three steps:

    1. Learn: a predictor of every objective (and limited value) that needs an evaluation is fitted to what was
       evaluated. Losses of objectives are warped before (`Warp`), since they lie close together near the best.
    2. Propose: NSGA-II (NSGA-III under three objectives and more) runs on the predictions and on exact values. A space
       of up to 50,000 archs is predicted whole instead.
    3. Choose: a few of the candidates are evaluated, by ``selection``.

    How this differs from the paper:

    - 12 to 60 first archs, not 3,000 thinned to 300: only evaluations are dear here.
    - The predictor is a Gaussian process that also reads exact values (`GroupedProcess`), not LightGBM.
    - Two generations in three, and all in the second half of the budget, are chosen by expected hypervolume
      improvement; the paper fills gaps of the front in all.
    - Of more than 1,000 evaluations the predictor learns from 1,000: half the best, half spread over the rest.
    - Where 200 evaluations of a large space have not changed the front, the search begins anew: new first archs, and a
      predictor that learns from these on.

    Every number stands in `NATv2Settings`. Nothing is asked for twice.

    Reference:
        Sarti, Lomurno and Matteucci, 2023, NATv2; Lu et al., 2021, NAT.
    """

    problem: Problem
    evaluations: int
    """How many will be spent."""
    seed: int
    _: KW_ONLY
    population: int | None = None
    """Archs in a generation; None: sized by ``evaluations``."""
    predictor: str | Predictor = "gp_groups"
    """A name of `hwnas.predictors.PREDICTORS`, or a predictor."""
    selection: str = "turns"
    """How candidates are chosen. ``turns``: one generation in three fills the widest gaps of the front; the others, and
    all in the second half of the budget, take the largest expected hypervolume improvement. Under three objectives and
    more, generations alternate between the hypervolume of all and the predicted front of two, drawn anew.
    ``gaps``: always the widest gaps, as in the paper. ``improvement``: always the largest expected improvement (the
    widest gaps under three objectives and more)."""
    encoder: Callable[[Problem], Encode] | None = None
    """Called with the problem, returns what turns genomes into `Inputs`; None: `Encoder` of `Problem.known`."""
    settings: NATv2Settings | Mapping[str, Any] | None = None
    """Every number that steers the search, or some of them by name; None: the defaults."""
    _numbers: NATv2Settings = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.selection not in SELECTIONS:
            raise SearchError(f"selection {self.selection!r} is unknown; choose one of {list(SELECTIONS)}")
        n = self.evaluations
        self.memory = Memory(self.problem)
        self._numbers = NATv2Settings.of(self.settings)
        self.n_asked = 0  # what was told beforehand (a warm start) is not part of the budget
        self.per_generation = self.population or self._numbers.per_generation(n)
        self.n_initial = self._numbers.n_first(n)
        self.notes: list[str] = []
        self._predictor = make_predictor(self.predictor)
        self._rng = np.random.default_rng([self.seed, 2])
        self._generation = 0
        # Rows of the memory, archs seen and archs asked for when the search last began anew.
        self._begin = self._seen_before = self._asked_before = 0
        self._encoder: Encode | None = None
        self._pool: tuple[IntArray, Inputs, FloatArray, dict[bytes, int]] | None = None

    def ask(self) -> list[Arch]:
        """Return the next generation; empty where the space has no new arch."""
        region = self.region()
        if region.is_whole and self._stalled():
            patience = self._numbers.restart_after
            self.notes.append(f"began anew after {self.n_asked} evaluations, as {patience} had not changed the front")
            self._begin, self._seen_before, self._asked_before = len(self.memory), self.memory.n_seen, self.n_asked
        known, seen = len(self._complete_rows()), self.memory.n_seen - self._seen_before
        if seen < self.n_initial:
            n = self.n_initial - seen
            genomes = first_archs(self.memory, region, self._rng, n, self._numbers.first_draws)
        elif known < _FEWEST_TO_FIT:
            genomes = self.memory.draw_new(self._rng, self.per_generation)
        else:
            # One thread: the matrices are small, and sums must not depend on the number of cores.
            with threadpool_limits(limits=1):
                genomes = self._propose(region)
            if len(genomes) < self.per_generation:
                self.memory.mark_asked(genomes)
                more = self.memory.draw_new(self._rng, self.per_generation - len(genomes))
                genomes = np.concatenate([genomes, more])
        self.memory.mark_asked(genomes)
        self.n_asked += len(genomes)
        return self.problem.space.decode_many(genomes)

    def tell(self, archs: Sequence[Arch], losses: FloatArray) -> None:
        """Learn ``(n, columns)`` losses; they count at the next `ask`."""
        self.memory.add(archs, losses)

    def predictor_quality(self, folds: int = 5) -> dict[str, PredictorQuality]:
        """Judge the predictor of each expensive objective on archs that it was not fitted to.

        It is cross-validated on what it learns from, in the objectives' own units, as warped as in the search (the
        warp follows the archs drawn without a model, also where these are left out).

        Args:
            folds: how many.

        Returns:
            By the objective's name; empty where too few archs were evaluated, or the predictor cannot be fitted.
        """
        rows = self._learnt()
        names = [o.name for o in self.problem.columns]
        reference, losses = self._reference_rows(), self.memory.losses[rows]
        found: dict[str, PredictorQuality] = {}
        if len(rows) < _FEWEST_TO_FIT:
            return found
        with threadpool_limits(limits=1):
            inputs = self._encode(self.memory.genomes[rows])
            for i in self.problem.expensive_columns.tolist():
                predictor = self._predictor
                if i < self.problem.n_objectives:
                    predictor = Warped(predictor, self.memory.losses[reference, i], self._numbers)
                try:
                    metrics = cross_validate(predictor, inputs, losses[:, i], folds)
                except (ValueError, np.linalg.LinAlgError):
                    continue
                found[names[i]] = PredictorQuality(self._predictor_name, len(rows), min(folds, len(rows) // 2), metrics)
        return found

    @property
    def _predictor_name(self) -> str:
        return self.predictor if isinstance(self.predictor, str) else type(self.predictor).__name__

    def region(self) -> Region:
        """Return where the next generation may be; here the whole space."""
        return Region.whole(self.problem.space)

    def _encode(self, genomes: IntArray) -> Inputs:
        """What predictors read of ``genomes``."""
        if self._encoder is None:
            problem = self.problem
            self._encoder = self.encoder(problem) if self.encoder else Encoder(problem.space, problem.known)
        return self._encoder(genomes)

    @property
    def _listable(self) -> bool:
        """Whether the space is small enough to be predicted whole."""
        return self.problem.space.size <= self._numbers.listed_archs

    def _complete_rows(self) -> IntArray:
        """Rows of the memory that did not fail, since the search last began anew."""
        return self._begin + np.flatnonzero(self.memory.complete[self._begin :])

    def _stalled(self) -> bool:
        """Whether the search of a large space has stalled, and enough evaluations are left to begin anew.

        A predictor that has learnt one part of the space well is sure that the rest is poorer, and what evolves from
        the best archs stays near them. So a restart forgets all, as stalled trust regions do in TuRBO (Eriksson et al.,
        2019).
        """
        tried, left = self.n_asked - self._asked_before, self.evaluations - self.n_asked
        patience = self._numbers.restart_after
        if self._listable or tried <= patience or left < 2 * patience:
            return False
        rows = self._complete_rows()
        rows = rows[self.problem.violation(self.memory.losses[rows]) <= 0]
        losses = self.memory.losses[:, : self.problem.n_objectives]
        front = rows[non_dominated(losses[rows])]
        if not len(front):
            return False
        _, first = np.unique(losses[front], axis=0, return_index=True)  # its equal leaves a front as it is
        return len(self.memory) - int(front[first].max()) > patience

    def _learnt(self) -> IntArray:
        """Rows of the memory that predictors learn from."""
        rows = self._complete_rows()
        most = self._numbers.training_archs
        if len(rows) > most:
            losses = self.memory.losses[rows]
            best = rows[fittest(self.problem, losses, most // 2)]
            rest = np.setdiff1d(rows, best)
            spread = np.linspace(0, len(rest) - 1, most - len(best)).astype(np.int64)
            rows = np.sort(np.concatenate([best, rest[spread]]))
        return rows

    def _reference_rows(self) -> IntArray:
        """Rows of the memory that were drawn without a model."""
        return self._complete_rows()[: max(self.n_initial, _FEWEST_TO_FIT)]

    def _propose(self, region: Region) -> IntArray:
        """Fit the predictors, make candidates and choose among them."""
        memory, problem, m = self.memory, self.problem, self.problem.n_objectives
        self._generation += 1
        rows, reference = self._learnt(), self._reference_rows()
        evaluated = memory.losses[rows]
        train = self._encode(memory.genomes[rows])
        warps, models = {}, {}
        for i in problem.expensive_columns.tolist():
            values = evaluated[:, i]
            if i < m:  # what is limited only has no best end that a warp could spread
                warps[i] = Warp.of(values, memory.losses[reference, i], self._numbers)
                values = warps[i](values)
            models[i], note = fit_or_fall_back(self._predictor, train, values)
            if note and note not in self.notes:
                self.notes.append(note)

        def predict(inputs: Inputs, cheap: FloatArray) -> tuple[FloatArray, FloatArray]:
            """``(n, columns)`` means (warped where an expensive objective) and deviations (0 where cheap)."""
            mean, std = cheap.copy(), np.zeros_like(cheap)
            for i, model in models.items():
                mean[:, i], std[:, i] = model.predict(inputs)
            return mean, std

        def own_units(mean: FloatArray) -> FloatArray:
            out = mean.copy()
            for i, warp in warps.items():
                out[:, i] = warp.undo(mean[:, i])
            return out

        if region.is_whole and self._listable:
            genomes, inputs, cheap, place = self._listed()
            keep = np.ones(len(genomes), dtype=bool)
            keep[[place[key] for key in memory.seen]] = False
            genomes, inputs, cheap = genomes[keep], inputs[keep], cheap[keep]
        else:
            genomes = self._candidates(region, predict, own_units)
            inputs, cheap = self._encode(genomes), problem.cheap_losses(genomes)
        usable = np.flatnonzero(np.isfinite(cheap[:, problem.cheap_columns]).all(axis=1))
        genomes, inputs, cheap = genomes[usable], inputs[usable], cheap[usable]
        if not len(genomes):
            return genomes
        mean, std = predict(inputs, cheap)
        over = problem.violation(own_units(mean - std))
        within = np.flatnonzero(over <= 0)
        if len(within) < self.per_generation:
            within = np.argsort(over, kind="stable")[: self.per_generation]
            return genomes[within]
        warped = evaluated.copy()
        for i, warp in warps.items():
            warped[:, i] = warp(evaluated[:, i])
        feasible = problem.violation(evaluated) <= 0
        worst = {i: w.breakpoint for i, w in warps.items()}
        chosen = self._choose(mean[within, :m], std[within, :m], warped[feasible, :m], worst)
        return genomes[within[chosen]]

    def _choose(self, mean: FloatArray, std: FloatArray, evaluated: FloatArray, worst: dict[int, float]) -> IntArray:
        """Rows of candidates that make the next generation, by ``selection``.

        Args:
            mean: ``(n, m)`` predicted losses, warped where expensive.
            std: ``(n, m)`` their deviations; 0 where exact.
            evaluated: ``(k, m)`` evaluated losses within the limits, warped alike.
            worst: by expensive column, the loss from which on nothing counts.
        """
        m, k, turn = mean.shape[1], self.per_generation, self._generation % self._numbers.gaps_every
        low, high = np.empty(m), np.empty(m)
        for i in range(m):
            column = np.concatenate([mean[:, i], evaluated[:, i]])
            low[i] = (evaluated[:, i].min() if len(evaluated) else column.min()) if i in worst else column.min()
            high[i] = max(worst[i], low[i]) if i in worst else np.quantile(column, 0.99)
        span = np.where(high > low, high - low, 1.0)
        mean, std, evaluated = (mean - low) / span, std / span, (evaluated - low) / span
        uncertain = [i for i in range(m) if i in worst]
        late = self.n_asked > self._numbers.improvement_from * self.evaluations
        optimistic = mean - self._numbers.optimism_deviations * std
        improve = self.selection == "improvement" or (self.selection == "turns" and (turn > 0 or late))
        if m <= 2 and uncertain and improve:
            i = uncertain[0]
            beside, other = (
                (mean[:, 1 - i], evaluated[:, 1 - i]) if m == 2 else (np.zeros(len(mean)), np.zeros(len(evaluated)))
            )
            both = np.stack([evaluated[:, i], other], axis=1)
            return pick_by_improvement(
                mean[:, i],
                np.maximum(std[:, i], 1e-9),
                beside,
                both,
                (1.0, 1.0),
                k,
                self._numbers.improvement_shortlist,
            )
        if self.selection == "gaps" or (self.selection == "improvement" and m > 2) or (m == 2 and turn == 0):
            return pick_by_gaps(optimistic, evaluated, k)
        if m > 2 and self._generation % 2 == 0:
            return pick_by_hypervolume(optimistic, evaluated, k, self._rng, self._numbers.hypervolume_samples)
        inside = np.flatnonzero((mean <= 1.0).all(axis=1))  # where a reader of the front looks
        mean = mean - self._rng.random() * std
        rows = inside if len(inside) >= k else np.arange(len(mean))
        columns = np.arange(m) if m <= 2 else self._pair(uncertain, m)
        return rows[pick_by_front(mean[np.ix_(rows, columns)], k, self._rng)]

    def _pair(self, uncertain: list[int], m: int) -> IntArray:
        """Draw two objectives, an expensive one and any other: fronts are read two objectives at a time."""
        first = self._rng.choice(uncertain or np.arange(m))
        return np.array([first, self._rng.choice(np.setdiff1d(np.arange(m), [first]))], dtype=np.int64)

    def _listed(self) -> tuple[IntArray, Inputs, FloatArray, dict[bytes, int]]:
        """Every genome of a small space with its inputs, exact losses and rows by key, computed once."""
        if self._pool is None:
            genomes = self.problem.space.all_genomes(self._numbers.listed_archs)
            place = {key: i for i, key in enumerate(genome_keys(genomes))}
            self._pool = genomes, self._encode(genomes), self.problem.cheap_losses(genomes), place
        return self._pool

    def _candidates(
        self,
        region: Region,
        predict: Callable[[Inputs, FloatArray], tuple[FloatArray, FloatArray]],
        own_units: Callable[[FloatArray], FloatArray],
    ) -> IntArray:
        """New genomes of the region: NSGA-II on the predictor, and neighbours of the best evaluated."""
        memory, problem, numbers = self.memory, self.problem, self._numbers
        rows = self._complete_rows()
        best = memory.genomes[rows[fittest(problem, memory.losses[rows], numbers.parents)]]

        def losses_of(genomes: IntArray) -> tuple[FloatArray, FloatArray]:
            mean, std = predict(self._encode(genomes), problem.cheap_losses(genomes))
            mean = mean - numbers.optimism_deviations * std
            return mean[:, : problem.n_objectives], problem.violation(own_units(mean))

        screen = (lambda g: problem.violation(problem.cheap_losses(g))) if problem.cheap_limits else None
        evolved, _, _ = evolve(
            region, losses_of, self._rng, numbers.population, numbers.generations, best, screen,
            numbers.children_per_survivor,
        )  # fmt: skip
        near = region.repair(self._rng, np.repeat(best, numbers.neighbours, axis=0))
        near = region.mutate(self._rng, near, numbers.neighbour_changes / max(1, int((~region.frozen).sum())))
        genomes = np.concatenate([evolved, near])
        return genomes[memory.is_new(genomes)]
