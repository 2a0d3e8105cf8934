"""Shipped searchers and one of somebody else keep the promises of the protocol, and broken ones are caught."""

import numpy as np
import pytest

from hwnas.search import SEARCHERS, make_searcher
from hwnas.testing.searcher import LARGE, SearcherTests, problem_of


class Shipped(SearcherTests):
    """A large population keeps the number of fitted models, and so the tests, small."""

    name: str

    def make(self, problem, evaluations, seed):
        population = max(4, evaluations // 6)
        return make_searcher(self.name, problem, evaluations=evaluations, seed=seed, population=population)

    def test_other_seeds_give_other_archs(self):
        problem = problem_of(LARGE, 2)
        assert self.search(problem, 12, seed=0).archs != self.search(problem, 12, seed=1).archs

    def test_ten_thousand_archs_are_distinct(self):
        assert len(set(self.search(problem_of(LARGE, 2), 10_000).archs)) == 10_000


class TestRandom(Shipped):
    name = "random"


class TestMdeNAS(Shipped):
    name = "mdenas"


class TestNSGA2(Shipped):
    name = "nsga2"


class TestNATv2(Shipped):
    name = "natv2"


class TestHurricane(Shipped):
    name = "hurricane"


def test_every_shipped_searcher_is_tested():
    assert set(SEARCHERS.names()) >= {c.name for c in Shipped.__subclasses__()}
    assert {c.name for c in Shipped.__subclasses__()} >= set(SEARCHERS._shipped)


class Sweep:
    """Somebody else's: goes through the space at even steps, and learns nothing."""

    def __init__(self, problem, evaluations, seed):
        self.space, self.known = problem.space, set()
        self.rng = np.random.default_rng(seed)

    def ask(self):
        found = []
        for _ in range(50):
            found += [a for a in self.space.sample(self.rng, 40) if a not in self.known]
        if not found and self.space.size < 10_000:
            found = [a for a in self.space.decode_many(self.space.all_genomes(10_000)) if a not in self.known]
        found = list(dict.fromkeys(found))[:7]
        self.known.update(found)
        return found

    def tell(self, archs, losses):
        self.known.update(archs)


class TestSweep(SearcherTests):
    def make(self, problem, evaluations, seed):
        return Sweep(problem, evaluations, seed)


class Forgetful(Sweep):
    """Begins anew where it is told nothing."""

    def ask(self):
        self.rng = np.random.default_rng(0)
        found = super().ask()
        self.known.clear()
        return found


class Global(Sweep):
    """Depends on the global random state."""

    def __init__(self, problem, evaluations, seed):
        super().__init__(problem, evaluations, np.random.randint(1000))  # noqa: NPY002


class Greedy(Sweep):
    """Spoils what it is told."""

    def tell(self, archs, losses):
        losses[:] = np.nan_to_num(losses)
        super().tell(archs, losses)


class Impatient(Sweep):
    """Gives up when an evaluation fails."""

    failed = False

    def ask(self):
        return [] if self.failed else super().ask()

    def tell(self, archs, losses):
        self.failed |= bool(np.isnan(losses).all(axis=1).any()) or bool(np.isnan(losses).any())
        super().tell(archs, losses)


class Early(Sweep):
    """Ends before the space does."""

    def ask(self):
        return super().ask() if len(self.known) < 200 else []


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Forgetful, "test_never_asks_twice_even_where_nothing_is_told"),
        (Global, "test_same_seed_same_archs_all_legal_and_distinct"),
        (Greedy, "test_tell_leaves_its_arguments_unchanged"),
        (Impatient, "test_failed_evaluations_are_survived"),
        (Impatient, "test_a_search_in_which_everything_fails_goes_on"),
        (Early, "test_a_space_is_searched_to_its_end"),
    ],
)
def test_a_broken_searcher_is_caught(broken, test):
    class Case(SearcherTests):
        def make(self, problem, evaluations, seed):
            return broken(problem, evaluations, seed)

    with pytest.raises(AssertionError):
        getattr(Case(), test)()
