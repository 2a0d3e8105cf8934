"""Does a searcher keep to `hwnas.search.Searcher`? Inherit `SearcherTests` in your own tests and override `make`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwnas.objectives import Objective, as_losses
from hwnas.search import Evaluate, Limit, Problem, Result, Searcher, run_search
from hwnas.space import Arch, Choice, SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SMALL = SearchSpace.of_choices(
    {f"op{i}": ["id", "mb3", "mb6"] for i in range(5)}, [["op0", "op1"], ["op2", "op3", "op4"]]
)
"""243 archs: a search can use them up."""

LARGE = SearchSpace(
    (
        Choice("resolution", (160, 192, 224)),
        *(
            choice
            for s in range(3)
            for choice in (
                Choice(f"stage{s}.depth", (1, 2)),
                *(
                    Choice(
                        f"stage{s}.block{b}",
                        ((3, 3), (3, 6), (5, 3), (5, 6), (7, 3), (7, 6)),
                        ("kernel_size", "expand_ratio"),
                        f"stage{s}.depth",
                        tuple(d for d in (1, 2) if d > b),
                    )
                    for b in range(2)
                ),
            )
        ),
    ),
    tuple((f"stage{s}.depth", f"stage{s}.block0", f"stage{s}.block1") for s in range(3)),
)
"""222,264 archs with depths, so that some choices are inactive in some archs."""


def problem_of(space: SearchSpace, n_objectives: int) -> Problem:
    """Return a problem whose objectives, ``value0`` (maximised), ``value1``, ..., pull in different directions.

    The last is cheap where there is another; the others need an evaluation.
    """

    def objective(i: int) -> Objective:
        weights = np.cos(np.arange(len(space)) * (i + 1.0)) + (0.5 if i else 1.5)

        def of_genomes(genomes: IntArray) -> FloatArray:
            # Row by row, so that a value does not depend on the batch it is computed in.
            return np.asarray((genomes * weights).sum(axis=1) + 0.1 * i * (genomes**2).sum(axis=1), dtype=float)

        def of_archs(archs: Sequence[Arch]) -> FloatArray:
            return of_genomes(space.encode_many(archs))

        cheap = 0 < i == n_objectives - 1
        return Objective(f"value{i}", "min" if i else "max", of_archs, cheap, of_genomes if cheap else None)

    return Problem(space, tuple(objective(i) for i in range(n_objectives)))


def evaluate(problem: Problem) -> Evaluate:
    """Return the function that evaluates archs of ``problem``: ``(n, columns)`` values in own units."""
    return lambda archs: np.stack([np.asarray(o.evaluate(archs), dtype=float) for o in problem.columns], axis=1)


class SearcherTests:
    """Promises of `hwnas.search.Searcher`, each a test. Override `make`."""

    def make(self, problem: Problem, evaluations: int, seed: int) -> Searcher:
        """Return a fresh searcher that expects so many evaluations."""
        raise NotImplementedError("override make(problem, evaluations, seed)")

    def search(self, problem: Problem, evaluations: int, seed: int = 0) -> Result:
        """Return a whole search."""
        return run_search(problem, self.make(problem, evaluations, seed), evaluate(problem), evaluations)

    def test_same_seed_same_archs_all_legal_and_distinct(self) -> None:
        """A function of its seed and of what it was told; never of the global random state."""
        for space in (SMALL, LARGE):
            for n_objectives in (1, 2, 4):
                problem = problem_of(space, n_objectives)
                state = np.random.get_state()  # noqa: NPY002 - the global generator is what must not matter
                try:
                    found = []
                    for seed_of_others in (1, 2):
                        np.random.seed(seed_of_others)  # noqa: NPY002
                        found.append(self.search(problem, 24).archs)
                finally:
                    np.random.set_state(state)  # noqa: NPY002
                assert found[0] == found[1], "a search with the same seed asked for other archs"
                assert len(set(found[0])) == len(found[0]) == 24
                assert all(space.decode(space.encode(arch)) == arch for arch in found[0])

    def test_never_asks_twice_even_where_nothing_is_told(self) -> None:
        """What was asked for is being evaluated, whoever is told or not."""
        searcher = self.make(problem_of(LARGE, 2), 10_000, 3)
        asked = [arch for _ in range(10) for arch in searcher.ask()]
        assert len(asked) >= 10
        assert len(set(asked)) == len(asked)

    def test_failed_evaluations_are_survived(self) -> None:
        """A row with NaN has failed; it is neither asked for again nor the end."""
        problem = problem_of(LARGE, 2)
        calls = 0

        def flaky(archs: Sequence[Arch]) -> FloatArray:
            nonlocal calls
            calls += 1
            values = evaluate(problem)(archs)
            values[: len(values) if calls <= 2 else 1, 0] = np.nan
            return values

        result = run_search(problem, self.make(problem, 40, 0), flaky, 40)
        assert len(set(result.archs)) == 40

    def test_a_search_in_which_everything_fails_goes_on(self) -> None:
        """Nothing is known of any arch; there is still something to try."""
        problem = problem_of(LARGE, 2)
        result = run_search(problem, self.make(problem, 30, 0), lambda archs: np.full((len(archs), 2), np.nan), 30)
        assert len(set(result.archs)) == 30

    def test_tell_leaves_its_arguments_unchanged(self) -> None:
        """They are the caller's."""
        problem = problem_of(SMALL, 2)
        searcher = self.make(problem, 20, 0)
        archs = searcher.ask()
        losses = as_losses(evaluate(problem)(archs), problem.columns)
        losses[0] = np.nan
        archs_before, losses_before = list(archs), losses.copy()
        searcher.tell(archs, losses)
        searcher.ask()
        assert list(archs) == archs_before
        np.testing.assert_array_equal(losses, losses_before)

    def test_resume_by_replay_is_identical(self) -> None:
        """Started again and answered from an archive, a search goes on as if it had never stopped."""
        problem = problem_of(LARGE, 2)
        whole = self.search(problem, 40)
        archive = dict(zip(whole.archs[:17], whole.values[:17], strict=True))
        computed: list[Arch] = []

        def from_archive(archs: Sequence[Arch]) -> FloatArray:
            computed.extend(arch for arch in archs if arch not in archive)
            return np.stack([archive[a] if a in archive else evaluate(problem)([a])[0] for a in archs])

        again = run_search(problem, self.make(problem, 40, 0), from_archive, 40)
        assert again.archs == whole.archs
        assert computed == list(whole.archs[17:])

    def test_a_space_is_searched_to_its_end(self) -> None:
        """With a budget beyond the space every arch is asked for once, then ``ask`` returns nothing."""
        for space in (SMALL, SearchSpace.of_choices({"a": [1], "b": [1, 2]}), SearchSpace.of_choices({"a": [1]})):
            result = self.search(problem_of(space, 2), 300)
            assert result.ended == "exhausted"
            assert len(result.archs) == len(set(result.archs)) == space.size

    def test_what_was_known_before_is_not_asked_for(self) -> None:
        """Archs of a warm start cost nothing, and the whole budget goes to others."""
        problem = problem_of(LARGE, 2)
        known = list(dict.fromkeys(LARGE.sample(np.random.default_rng(5), 30)))
        start = known, evaluate(problem)(known)
        result = run_search(problem, self.make(problem, 20, 0), evaluate(problem), 20, warm_start=start)
        assert result.n_warm_start == len(known)
        assert len(set(result.archs)) == len(known) + 20

    def test_limits_do_not_end_a_search(self) -> None:
        """Limits on cheap, evaluated and limited values, whether all archs are within them, some, or none."""
        base = problem_of(LARGE, 3)
        for bound in (1e9, 4.0, -1e9):
            limits = tuple(Limit(None, f"value{i}", "<=", bound) for i in (1, 2))
            result = self.search(replace(base, limits=limits), 24)
            assert len(set(result.archs)) == 24
            limited = Problem(LARGE, base.objectives[:1], limits, limited=base.objectives[1:])
            result = self.search(limited, 24)
            assert result.values.shape == (24, 3)
            assert len(set(result.archs)) == 24

    def test_an_arch_told_again_has_its_new_losses(self) -> None:
        """Values lose their meaning when weights change: all archs are told anew, and the search goes on."""
        problem = problem_of(LARGE, 2)

        def flipped(number: int, archs: tuple[Arch, ...], values: FloatArray) -> FloatArray:
            return -evaluate(problem)(archs)

        calls: list[tuple[Arch, ...]] = []

        def drifting(archs: Sequence[Arch]) -> FloatArray:
            done = sum(map(len, calls))
            calls.append(tuple(archs))
            return (1 if done < 12 else -1) * evaluate(problem)(archs)

        found = []
        for _ in range(2):
            calls.clear()
            searcher = self.make(problem, 24, 0)
            result = run_search(problem, searcher, drifting, 24, reevaluate=flipped, reevaluate_at=[0.5])
            found.append(result.archs)
            assert (result.evaluated, result.reevaluations, result.repeated) == (24, 1, 12)
        assert found[0] == found[1]
        assert len(set(found[0])) == 24
