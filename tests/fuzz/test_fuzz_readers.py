"""A short run of the fuzzer, and the inputs that once got through."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_readers import doors, fuzz

from hwnas.errors import HwnasError

INPUTS = 60
"""For each reader; `fuzz_readers.py` tries 20,000."""


@pytest.fixture(scope="module")
def found(finished_run, tmp_path_factory):
    return doors(tmp_path_factory.mktemp("fuzz"), finished_run)


def test_valid_inputs_are_read(found):
    for door in found.values():
        for seed in door.seeds:
            door.read(seed)


def test_spoiled_inputs_are_refused_in_one_line(found):
    assert len(found) >= 18
    refused = 0
    for name, door in found.items():
        faults, n = fuzz(name, door, INPUTS, seed=1)
        assert not faults, (name, {place: data[:200] for place, (data, _) in faults.items()})
        refused += n
    assert refused > INPUTS * len(found) / 2


SMALLEST = [
    ("once-for-all arch", b'"x"'),
    ("once-for-all arch", b'{"r": []}'),
    ("digests of a table", b"0  " + b"9" * 300),
    ("arch", b"null"),
    ("NAS-Bench-201 cell", b"|none~" + b"9" * 4301 + b"|"),
    ("npz", b"PK\x03\x04" + b"\0" * 26),
    ("duration", b"9" * 100_000),
]


@pytest.mark.parametrize(("name", "data"), SMALLEST)
def test_what_once_got_through(name, data, found):
    with pytest.raises(HwnasError):
        found[name].read(data)


def test_the_fuzzer_finds_faults(found):
    door = found["limit"]

    def careless(data):
        door.read(data)
        float(data)

    faults, _ = fuzz("careless", type(door)(door.seeds, careless), 200)
    assert any(place.startswith("ValueError") for place in faults)
