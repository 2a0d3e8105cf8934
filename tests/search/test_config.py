"""The search section of a recipe."""

import pytest
from pydantic import ValidationError

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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "nsga2", "selection": "gaps"}, r"searcher 'nsga2' has no settings \['selection'\]; it takes"),
        ({"algorithm": "random", "predictor": "gp"}, "searcher 'random' has no settings"),
        ({"options": {"speed": 3}}, r"searcher 'hurricane' has no settings \['speed'\]"),
        ({"options": {"settings": {"speed": 3}}}, r"settings \['speed'\] are unknown; known are first_archs"),
        ({"selection": "x"}, "selection 'x' is unknown"),
    ],
)
def test_a_setting_that_the_searcher_does_not_take_is_refused_when_a_recipe_is_read(settings, message):
    with pytest.raises(ValidationError, match=message):
        SearchConfig(**settings)


def test_options_reach_the_searcher():
    made = SearchConfig(options={"staged": False, "settings": {"listed_archs": 0}}).searcher(PROBLEM)
    assert (made.staged, made._listable) == (False, False)


def test_a_searcher_and_a_predictor_may_be_ones_own():
    config = SearchConfig(algorithm="hwnas.search.natv2:NATv2", predictor="hwnas.predictors.gp:GaussianProcess")
    assert type(config.searcher(PROBLEM)).__name__ == "NATv2"
    with pytest.raises(ValidationError, match=r"searcher 'nowhere:thing' cannot be imported"):
        SearchConfig(algorithm="nowhere:thing")
