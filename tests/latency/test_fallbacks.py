"""Operators that a device runs elsewhere or not at all: counted for every arch, for populations, and said."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from hwnas.latency.device import load_profile, write_profile
from hwnas.latency.table import block_ops, load_device
from hwnas.objectives.exact import FALLBACK_LAYERS


def device_with(**changes):
    device = load_device("qcs8550-int8")
    return replace(device, profile=device.profile.model_copy(update=changes))


@pytest.fixture
def archs(layout):
    return layout.space.sample(np.random.default_rng(0), 12)


def test_they_are_counted_by_kind_for_every_arch(layout, archs):
    device = device_with(falls_back={"hswish": "CPU, by layer counts"}, unsupported={"mul": "refused by the compiler"})
    values = FALLBACK_LAYERS.compile(layout, device).of_archs(archs)
    for arch, value in zip(archs, values, strict=True):
        types = [op.type for _, b in layout.blocks(arch) for op in block_ops(b)]
        expected = {k: types.count(k) for k in ("hswish", "mul") if k in types}
        assert device.fallbacks(arch) == expected
        assert value == sum(expected.values())
    assert len(set(values)) > 2


def test_kinds_of_convolutions_are_told_apart_and_no_operator_is_counted_twice(layout, archs):
    point = device_with(falls_back={"pointwise_conv": "CPU"})
    every = device_with(falls_back={"pointwise_conv": "CPU", "conv": "CPU"})
    for arch in archs:
        ops = [op for _, b in layout.blocks(arch) for op in block_ops(b)]
        assert sum(point.fallbacks(arch).values()) == sum(o.type == "conv" and o.kernel_size == 1 for o in ops)
        assert sum(every.fallbacks(arch).values()) == sum(o.type == "conv" for o in ops)


def test_a_device_that_runs_everything_has_none(layout, archs):
    assert load_device("qcs8550-int8").fallbacks(archs[0]) == {}
    assert not FALLBACK_LAYERS.compile(layout, load_device("qcs8550-int8")).of_archs(archs).any()


def test_a_profile_says_where_and_why(tmp_path):
    profile = device_with(falls_back={"hswish": "CPU"}, unsupported={"mul": "no kernel"}).profile
    assert profile.missing_operators == ("hswish falls back: CPU", "mul is not supported: no kernel")
    write_profile(profile.model_copy(update={"name": "mine"}), tmp_path)
    assert load_profile(tmp_path).falls_back == {"hswish": "CPU"}
    with pytest.raises(ValidationError, match="softmax"):
        type(profile).model_validate(profile.model_dump() | {"falls_back": {"softmax": "CPU"}})
