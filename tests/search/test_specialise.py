"""Operators are kept by marginal cost against marginal capacity."""

import numpy as np

from hwnas.objectives import Objective
from hwnas.search import Problem, Region, make_searcher, run_search, specialise
from hwnas.space import SearchSpace

OPTIONS = ["skip", "mb3", "mb6", "se3", "se6", "shuffle", "wide", "bad"]
SPACE = SearchSpace.of_choices(
    {f"op{i}": OPTIONS for i in range(6)}, stages=[["op0", "op1", "op2"], ["op3", "op4", "op5"]]
)
COST = np.array([0.0, 1.0, 2.0, 3.0, 6.0, 2.5, 4.0, 9.0])
SIZE = np.array([0.0, 1.0, 2.0, 1.1, 2.1, 1.0, 3.0, 0.5])


def additive(name, direction, table, cheap=True):
    def of_genomes(genomes):
        return table[genomes].sum(axis=1)

    return Objective(name, direction, lambda archs: of_genomes(SPACE.encode_many(archs)), cheap, of_genomes)


PROBLEM = Problem(
    SPACE,
    (additive("top1_percent", "max", np.sqrt(SIZE), cheap=False), additive("latency_ms", "min", COST)),
    capacity=(additive("params", "min", SIZE),),
)


def test_marginals_are_the_table_and_the_worst_operator_goes():
    found = specialise(PROBLEM, keep=4)
    np.testing.assert_allclose(found.cost[0], COST)
    np.testing.assert_allclose(found.capacity[0], SIZE / 3.0)
    kept = [OPTIONS[i] for i in found.kept[0]]
    assert "bad" not in kept
    assert "se6" not in kept
    assert {"skip", "mb3", "mb6", "wide"} <= set(kept)


def test_the_table_shows_the_exact_size():
    found = specialise(PROBLEM, keep=4)
    size = len(found.kept[0]) ** 6
    assert found.restricted.size == size
    assert f"{8**6:,} archs before, {size:,} after" in found.table()


def test_without_capacity_everything_is_kept():
    found = specialise(Problem(SPACE, PROBLEM.objectives[:1]))
    assert found.restricted.size == SPACE.size


def test_hurricane_holds_the_earlier_stages_first_then_the_later():
    searcher = make_searcher("hurricane", PROBLEM, evaluations=60, seed=0)

    def evaluate(archs):
        return np.stack([np.asarray(o.evaluate(archs)) for o in PROBLEM.objectives], axis=1)

    result = run_search(PROBLEM, searcher, evaluate, 60)
    genomes = SPACE.encode_many(result.archs)
    assert searcher.n_initial == 12  # then a fifth of 48 for either half

    def halves(rows, columns):
        return {tuple(row) for row in genomes[rows, columns].tolist()}

    earlier, later = slice(None, 3), slice(3, None)
    assert halves(slice(12, 22), earlier) <= halves(slice(12), earlier)
    assert len(halves(slice(12, 22), later)) > 5
    assert halves(slice(22, 32), later) <= halves(slice(22), later)
    assert len(halves(slice(22, 32), earlier)) > 3
    allowed = set(specialise(PROBLEM).kept[0].tolist())
    assert set(genomes[:32].ravel().tolist()) <= allowed
    assert not set(genomes[32:].ravel().tolist()) <= allowed


def test_a_region_draws_allowed_and_frozen_genes_only():
    rng = np.random.default_rng(0)
    donor = SPACE.sample_genomes(rng, 1)
    frozen = np.array([True, False, False, False, False, True])
    region = Region(SPACE, tuple(np.array([1, 4]) for _ in range(6)), frozen, donor)
    for genomes in (region.draw(rng, 50), region.repair(rng, SPACE.sample_genomes(rng, 50))):
        assert (genomes[:, frozen] == donor[0, frozen]).all()
        assert set(np.unique(genomes[:, ~frozen])) == {1, 4}
