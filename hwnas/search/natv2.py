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
    RankMetrics,
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
    pick_evenly,
)
from hwnas.search.evolve import evolve, fittest
from hwnas.search.memory import Memory, genome_keys
from hwnas.search.problem import Problem, evaluate_genomes
from hwnas.search.region import Region
from hwnas.search.settings import NATv2Settings
from hwnas.space import Arch

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_FEWEST_TO_FIT = 4
"""Evaluated archs with which a predictor is fitted and can be judged: two folds of two."""
SELECTIONS = ("turns", "gaps", "improvement")
"""How a generation is chosen among the candidates."""


@dataclass(frozen=True)
class PredictorQuality:
    """How well a search could predict one objective."""

    predictor: str
    """Its name, such as ``gp_groups``."""
    archs: int
    """On which it was judged, each left out of one fit."""
    folds: int
    metrics: RankMetrics
    """Means and deviations over the folds; the error is in the objective's unit."""

    def __str__(self) -> str:
        m = self.metrics
        return (
            f"Kendall's tau {m.kendall_tau:.2f} ± {m.kendall_tau_deviation:.2f}, Spearman {m.spearman:.2f} ± "
            f"{m.spearman_deviation:.2f}, RMSE {m.rmse:.3g} ± {m.rmse_deviation:.2g} "
            f"({self.predictor}, {self.folds} folds of {self.archs} archs)"
        )


@dataclass(eq=False)
class NATv2:
    """The loop of Neural Architecture Transfer, version 2, for any space and objectives.

    Archs drawn without a model come first. Then, generation by generation: fit a predictor of every expensive
    objective to what was evaluated; propose candidates by NSGA-II (NSGA-III for three objectives and more) under
    predicted and exact cheap losses (a small space is predicted whole); evaluate a few of them.

    Departures from the paper: 12 to 60 first archs instead of 3000 thinned to 300, since only evaluations are
    dear here; losses are warped before they are fitted (`Warp`); the predictor is a Gaussian process that also reads
    exact values (`GroupedProcess`); one generation in three is taken by gaps as in the paper, the others and all in the
    second half of the budget by expected hypervolume improvement, or as ``selection`` says; the archive that the
    predictor learns from is cut at 1,000, half of them survivors (of survivors alone it learns little but what
    they share, and long searches stood still); where 200 evaluations of a large space have not changed the front, the
    search begins anew, with first archs and a predictor that learns from these on; nothing asked is asked again.

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
    """``turns``: one generation in three fills the widest gaps of the front, the others and all in the second half of
    the budget take the largest expected hypervolume improvement; with three objectives or more, hypervolume of all and
    the predicted front of two in turn.
    ``gaps``: always fill the widest gaps (NATv2). ``improvement``: always the largest expected hypervolume
    improvement, under one or two objectives (``gaps`` under more)."""
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
        # Rows of the memory, archs seen and archs asked for when the present try began.
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
            genomes = self._first(self.n_initial - seen, region)
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

    def _first(self, n: int, region: Region) -> IntArray:
        """Draw archs without a model: a third so that options occur evenly, the rest spread over what is known.

        What is known are the cheap losses and, to be large, the capacity; with fewer than two of these all are
        drawn so that options occur evenly. NATv2 thins ten times as many *evaluated* archs by survival.
        """
        memory, problem = self.memory, self.problem
        if region.is_whole and not problem.cheap_limits:
            draws = memory.draw_new(self._rng, self._numbers.first_draws * n)
        else:
            draws = self._towards_limits(region.draw(self._rng, self._numbers.first_draws * n), region)
        draws = draws[memory.is_new(draws)]
        if not len(draws):
            return memory.draw_new(self._rng, n)
        losses = problem.cheap_losses(draws)
        cheap = losses[:, problem.cheap_columns[problem.cheap_columns < problem.n_objectives]]
        capacity = [evaluate_genomes(o, problem.space, draws) for o in problem.capacity]
        known = np.concatenate([cheap, -np.array(capacity).reshape(len(capacity), len(draws)).T], axis=1)
        there = np.isfinite(known).all(axis=1) & np.isfinite(losses[:, problem.cheap_columns]).all(axis=1)
        over = np.where(there, problem.violation(losses), np.inf)
        nearest = np.flatnonzero(over == over.min())
        if len(nearest) < n or not np.isfinite(over.min()):
            return np.asarray(draws[np.argsort(over, kind="stable")[:n]], dtype=np.int64)
        even = nearest[pick_evenly(problem.space, draws[nearest], n if known.shape[1] < 2 else -(-n // 3))]
        if len(even) == n:
            return np.asarray(draws[even], dtype=np.int64)
        left = np.setdiff1d(nearest, even)
        low, high = known[left].min(axis=0), np.quantile(known[left], 0.99, axis=0)
        scaled = (known - low) / np.where(high > low, high - low, 1.0)
        spread = pick_by_gaps(scaled[left], np.zeros((0, known.shape[1])), n - len(even))
        return np.asarray(draws[np.concatenate([even, left[spread]])], dtype=np.int64)

    def _towards_limits(self, genomes: IntArray, region: Region) -> IntArray:
        """Give archs outside the limits on cheap values ever more genes of archs inside, until they fit.

        Half of them take the genes of the smallest arch, where it is inside: they keep most of their own. Uniform
        draws within a tight limit would all be alike (of the lowest resolution, say), and a predictor cannot know
        what it never saw.
        """
        problem = self.problem

        def outside(genomes: IntArray) -> FloatArray:
            return np.nan_to_num(problem.violation(problem.cheap_losses(genomes)), nan=np.inf)

        if not problem.cheap_limits or not len(genomes):
            return genomes
        smallest = region.repair(self._rng, problem.space.encode_many([problem.space.smallest()]))
        over = outside(np.concatenate([genomes, smallest]))
        inside = np.flatnonzero(over == over.min())
        donors = np.concatenate([genomes, smallest])[inside[self._rng.integers(0, len(inside), len(genomes))]]
        if len(genomes) in inside:
            donors = np.where(self._rng.random((len(genomes), 1)) < 0.5, smallest, donors)
        out, over = genomes.copy(), over[:-1]
        turn = self._rng.random(genomes.shape)
        for share in np.linspace(0.1, 1.0, 10):
            bad = np.flatnonzero(over > 0)
            if not len(bad):
                break
            out[bad] = problem.space.canonical(np.where(turn[bad] < share, donors[bad], genomes[bad]))
            over[bad] = outside(out[bad])
        return out

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
        """Rows of the memory that did not fail, of the present try."""
        return self._begin + np.flatnonzero(self.memory.complete[self._begin :])

    def _stalled(self) -> bool:
        """Whether the present try has come to its end in a large space, and enough is left for another.

        A predictor that has learnt one part of the space well is sure that the rest is poorer, and what evolves from
        the best archs stays near them. So a new try forgets all, as stalled trust regions do in TuRBO (Eriksson et al.,
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
