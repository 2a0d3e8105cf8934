"""The search section of a recipe."""

import pytest
from pydantic import ValidationError

from hwnas.errors import RecipeError
from hwnas.objectives import Objective
from hwnas.search import Problem, SearchConfig
from hwnas.space import SearchSpace

PROBLEM = Problem(
    SearchSpace.of_choices({"a": [1, 2, 3]}), (Objective("x", "min", lambda archs: [float(a.int("a")) for a in archs]),)
)


def test_the_default_is_hurricane():
    assert type(SearchConfig().searcher(PROBLEM)).__name__ == "Hurricane"


@pytest.mark.parametrize(
    "bad",
    [{"algorithm": "x"}, {"evaluations": 0}, {"seed": "1"}, {"predictor": "x"}, {"popsize": 3}, {"selection": "x"}],
)
def test_bad_values_and_unknown_keys_are_refused(bad):
    with pytest.raises(ValidationError):
        SearchConfig(**bad)


@pytest.mark.parametrize("algorithm", ["natv2", "hurricane"])
@pytest.mark.parametrize("selection", ["turns", "gaps", "improvement"])
def test_the_way_to_select_reaches_the_searcher(algorithm, selection):
    assert SearchConfig(algorithm=algorithm).searcher(PROBLEM).selection == "turns"
    assert SearchConfig(algorithm=algorithm, selection=selection).searcher(PROBLEM).selection == selection


def test_a_setting_of_another_algorithm_is_refused():
    with pytest.raises(RecipeError, match=r"search: search algorithm 'nsga2' has no settings \['selection'\]"):
        SearchConfig(algorithm="nsga2", selection="gaps").searcher(PROBLEM)
    with pytest.raises(RecipeError, match="search: search algorithm 'random' has no settings"):
        SearchConfig(algorithm="random", predictor="gp").searcher(PROBLEM)
