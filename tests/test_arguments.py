"""Public functions read what callers have, and name what they cannot read."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import hwnas
from hwnas.arguments import checked_arguments
from hwnas.errors import ArgumentError


@checked_arguments
def door(
    n: int = 1, share: float = 0.5, names: Sequence[str] = (), pins: Sequence[int] | None = None, path: str | Path = "",
    kind: Literal["a", "b"] = "a", options: Mapping[str, int | str] | None = None, anything: object = None,
) -> tuple:  # fmt: skip
    """A function as those that are public."""
    return n, share, names, pins, path, kind, options, anything


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"n": np.int32(3)}, 3),
        ({"n": np.float64(3)}, 3),
        ({"share": np.float32(0.25)}, 0.25),
        ({"share": 1}, 1.0),
        ({"names": np.array(["a", "b"])}, ["a", "b"]),
        ({"names": ("a", np.str_("b"))}, ["a", "b"]),
        ({"pins": range(2)}, [0, 1]),
        ({"pins": np.arange(2)}, [0, 1]),
        ({"path": Path("x")}, Path("x")),
        ({"options": {"k": np.int64(2), "host": "b"}}, {"k": 2, "host": "b"}),
        ({"anything": {1: door}}, {1: door}),
    ],
)
def test_what_callers_have_is_read(given, read):
    found = door(**given)[list(inspect.signature(door).parameters).index(next(iter(given)))]
    same = list(found) if isinstance(found, tuple) else found
    assert same == read
    assert type(same) is type(read)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n": "many"}, "door: n is 'many'; it should be a valid integer"),
        ({"n": 1.5}, "door: n is 1.5; it should be a valid integer"),
        ({"n": None}, "door: n is None; it should be a valid integer"),
        ({"n": np.nan}, "door: n is nan"),
        ({"share": np.nan}, "door: share is NaN; give a number"),
        ({"share": [1]}, r"door: share is \[1\]; it should be a valid number"),
        ({"names": "ab"}, r"door: names is 'ab'; .*; give a list, such as \['ab'\]"),
        ({"names": ["a", 3]}, r"door: names is \['a', 3\] \(entry 1\); it should be a valid string"),
        ({"names": {"a": 1}}, "door: names is"),
        ({"pins": "0,1"}, "door: pins is '0,1'"),
        ({"path": 3}, "door: path is 3"),
        ({"kind": "c"}, "door: kind is 'c'; it should be 'a' or 'b'"),
        ({"options": [1]}, r"door: options is \[1\]; it should be "),
    ],
)
def test_what_cannot_be_read_is_named(given, said):
    with pytest.raises(ArgumentError, match=said) as error:
        door(**given)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


def test_a_long_value_is_not_repeated_in_full():
    with pytest.raises(ArgumentError) as error:
        door(n="x" * 10_000)
    assert len(str(error.value)) < 200


DOORS = [
    "run", "plan", "quickstart", "start_run", "open_run", "load_recipe", "profile", "build_table", "check_table",
    "import_table", "fit_profile", "sample_networks", "load_device", "import_ofa", "load_supernet", "load_model",
    "to_onnx", "open_data", "look_at_data",
]  # fmt: skip


@pytest.mark.parametrize("name", DOORS)
def test_every_public_door_names_what_it_cannot_read(name):
    """Each plain argument alone is of a wrong kind; the others are as little as the signature asks for."""
    function = getattr(hwnas, name)
    parameters = inspect.signature(function).parameters
    needed = {
        n: 1 if p.annotation == "int" else "nothing-here" for n, p in parameters.items() if p.default is p.empty
    }  # fmt: skip
    tried = 0
    for n, p in parameters.items():
        plain = str(p.annotation)
        if plain not in ("str", "str | Path", "int", "float", "Sequence[str]", "Sequence[int] | None", "Path", "bool"):
            continue
        with pytest.raises(ArgumentError, match=f"{name}: {n} is "):
            function(**{**needed, n: {"a": object()}})
        tried += 1
    assert tried


def test_a_value_that_cannot_be_printed_is_named_by_its_type():
    class Strange:
        def __repr__(self):
            raise KeyError("no")

    with pytest.raises(ArgumentError, match="door: n is a Strange that cannot be shown; it should be a valid integer"):
        door(n=Strange())
