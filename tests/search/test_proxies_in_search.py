"""Zero-cost proxies as features of predictors and as filters: what docs/search.md shows."""

from functools import cache

import pytest

import hwnas
from hwnas.objectives import Objective
from hwnas.objectives.config import EvaluationConfig
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.search import Problem


@pytest.fixture
def small(layout):
    """28 archs of the tiny supernet."""
    space = layout.space.where(kernel_size=[3], expand_ratio=[3, 4], resolution=[11])
    assert space.size == 28
    return space


@pytest.fixture
def naswot(make_net, splits):
    evaluator = SubnetEvaluator(make_net(), splits, EvaluationConfig(proxy_images=6))

    @cache
    def one(arch):
        return evaluator.score(arch, ["naswot"])["naswot"]

    return Objective("naswot", "max", lambda archs: [one(a) for a in archs], cheap=True)


def accuracy_of(space):
    def accuracy(archs):
        accuracy.asked.extend(archs)
        return [50.0 + sum(i * g for i, g in enumerate(space.encode(a), 1)) for a in archs]

    accuracy.asked = []
    return Objective("top1_percent", "max", accuracy)


def test_a_proxy_is_a_feature_of_the_predictor(small, naswot):
    top1 = accuracy_of(small)
    result = hwnas.minimize(small, [top1], capacity=[naswot], evaluations=5, seed=0)
    assert result.values.shape == (5, 1)  # it is not optimised
    problem = Problem(small, (top1,), capacity=(naswot,))
    genomes = small.all_genomes()
    assert problem.known(genomes)[:, 0].tolist() == naswot.evaluate(small.decode_many(genomes))


def test_a_proxy_is_a_filter_before_anything_is_evaluated(small, naswot):
    top1, everything = accuracy_of(small), small.decode_many(small.all_genomes())
    limit = sorted(naswot.evaluate(everything))[len(everything) // 2]
    able = [a for a, v in zip(everything, naswot.evaluate(everything), strict=True) if v >= limit]
    result = hwnas.minimize(small, [top1, naswot], constraints=[f"naswot>={limit!r}"], evaluations=4, seed=0)
    assert result.feasible.all()
    assert set(top1.evaluate.asked) <= set(able)
