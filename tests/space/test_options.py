"""What can be decided: any sequence of plain values, of Python's or NumPy's."""

import json

import numpy as np
import pytest

from hwnas.errors import SpaceError
from hwnas.space import Choice, SearchSpace


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (np.arange(3, 9, 2), (3, 5, 7)),
        ([np.int64(3), np.float32(0.5)], (3, 0.5)),
        (np.array(["a", "b"]), ("a", "b")),
        (range(2), (0, 1)),
        ((n for n in (1, 2)), (1, 2)),
        ([np.bool_(True), False], (True, False)),
        (np.array([[3, 1], [5, 2]]), ((3, 1), (5, 2))),
        ([(3, None), [5, 1]], ((3, None), (5, 1))),
        ([np.str_("x"), 1, 2.5], ("x", 1, 2.5)),
    ],
)
def test_options_are_plain_values(given, options):
    space = SearchSpace.of_choices({"x": given, "e": [1, 2]})
    assert space["x"].options == options
    json.dumps([a.as_dict() for a in space.decode_many(space.all_genomes())])
    for option in space["x"].options:
        for one in option if isinstance(option, tuple) else [option]:
            assert type(one) in (int, float, str, bool, type(None))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("relu", "options of choice 'x' are 'relu'; give a list of them"),
        ({"a": 1}, "give a list of them"),
        ({1, 2}, "give a list of them"),
        (3, "options of choice 'x' are 3; give a list of them"),
        ([], "choice 'x' has no options; give at least one"),
        ([None, "relu"], "None can be no option of choice 'x'"),
        ([{"k": 3}], "can be no option of choice 'x'"),
        ([[1, {"k": 3}]], "can be no option of choice 'x'"),
        ([float("nan")], "nan can be no option of choice 'x'"),
        ([np.inf, 1.0], "inf can be no option"),
        ([10**400], "can be no option of choice 'x'; options are finite numbers of at most 64 bits"),
        ([b"x"], "can be no option"),
        ([0, False], "repeats an option"),
        ([1, np.int64(1)], "repeats an option"),
        ([object()], "can be no option"),
    ],
)
def test_what_can_be_no_option_is_named(given, said):
    with pytest.raises(SpaceError, match=said) as error:
        SearchSpace.of_choices({"x": given, "e": [1, 2]})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_a_name_is_a_text():
    for name in (3, None, ""):
        with pytest.raises(SpaceError, match="its name is a text"):
            Choice(name, (1, 2))
    with pytest.raises(SpaceError, match="give a mapping of names to options"):
        SearchSpace.of_choices([[1, 2]])


def test_archs_are_made_of_numpy_values():
    space = SearchSpace.of_choices({"k": [3, 5], "p": [(1, 2), (3, 4)]})
    arch = space.arch({"k": np.int64(5), "p": np.array([3, 4])})
    assert arch == space.arch({"k": 5, "p": [3, 4]})
    assert space.restrict({"k": np.array([5])}).size == 2
    assert space.where(k=5).size == space.where(k=[np.int32(5)]).size == 2
    with pytest.raises(SpaceError, match="4 is not an option of 'k'"):
        space.arch({"k": np.int64(4), "p": [3, 4]})
    with pytest.raises(SpaceError, match="can be no option of choice 'k'"):
        space.arch({"k": 10**400, "p": [3, 4]})
