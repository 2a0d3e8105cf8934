"""Closed forms of the cost model: a few operators by hand, mappings, and what it refuses."""

import numpy as np
import pytest
from pydantic import ValidationError

from hwnas.errors import DeviceError
from hwnas.export.op import Op
from hwnas.latency.cost_model import OP_TYPES, CostModel, elements_of, kind_of, macs_of, op_features

CONV = Op("conv", in_channels=5, out_channels=7, in_size_px=13, out_size_px=13, kernel_size=3)
POOL = Op("avg_pool", in_channels=7, out_channels=7, in_size_px=13, out_size_px=11, kernel_size=3, groups=7)
ADD = Op("add", in_channels=7, out_channels=7, in_size_px=11, out_size_px=11, n_inputs=2)
DEPTHWISE = Op("depthwise_conv", 7, 7, 13, 11, kernel_size=3, groups=7)


def constants(overhead_ms, gmacs_per_s=None, gelements_per_s=None):
    given = {"overhead_ms": overhead_ms, "gmacs_per_s": gmacs_per_s, "gelements_per_s": gelements_per_s}
    return {"source": "by hand"} | {k: v for k, v in given.items() if v is not None}


def model(**ops):
    return CostModel.model_validate({"network_overhead_ms": 2.0, "ops": ops})


HAND = {
    "conv": constants(0.5, gmacs_per_s=0.01, gelements_per_s=0.002),
    "avg_pool": constants(0.25, gmacs_per_s=0.001),
    "add": constants(0.125, gelements_per_s=0.001),
}


def test_macs_and_elements_by_hand():
    assert macs_of(CONV) == 9 * 5 * 7 * 169
    assert elements_of(CONV) == 5 * 169 + 7 * 169 + 9 * 5 * 7
    assert macs_of(POOL) == 9 * 7 * 121
    assert macs_of(DEPTHWISE) == macs_of(POOL)
    assert elements_of(ADD) == 3 * 7 * 121
    assert macs_of(Op("global_avg_pool", 7, 7, 11, 1)) == 7 * 121
    assert elements_of(Op("linear", 7, 10, 1, 1)) == 7 + 10 + 70


def test_latency_of_three_operators_by_hand():
    conv_ms = 0.5 + 53_235 / 0.01e6 + (845 + 1_183 + 315) / 0.002e6
    pool_ms = 0.25 + 7_623 / 0.001e6
    add_ms = 0.125 + 2_541 / 0.001e6
    hand = model(**HAND)
    assert hand.op_ms(CONV) == pytest.approx(conv_ms, rel=1e-12)
    assert hand.op_ms(POOL) == pytest.approx(pool_ms, rel=1e-12)
    assert hand.latency_ms([CONV, POOL, ADD, ADD]) == pytest.approx(2.0 + conv_ms + pool_ms + 2 * add_ms)


def test_arrays_give_what_single_operators_give():
    hand = model(**HAND)
    ops = [CONV, ADD, POOL, CONV]
    np.testing.assert_allclose(hand.ops_ms(ops), [hand.op_ms(op) for op in ops], rtol=1e-12)
    types, sizes = op_features(ops)
    assert [OP_TYPES[i] for i in types] == ["conv", "add", "avg_pool", "conv"]
    np.testing.assert_allclose(sizes[1], [1.0, 847 / 1e6, 2_541 / 1e6])


def test_no_operators_cost_the_network_overhead():
    assert model(**HAND).latency_ms([]) == 2.0


def test_same_as_uses_the_targets_constants_and_fused_costs_nothing():
    mapped = model(
        **HAND,
        depthwise_conv={"same_as": "avg_pool", "source": "moves the same data"},
        relu={"fused": True, "source": "inside the convolution"},
    )
    weights = 9 * 7
    assert elements_of(DEPTHWISE) - elements_of(POOL) == weights
    assert mapped.op_ms(DEPTHWISE) == mapped.op_ms(POOL)  # pooling has no bandwidth term here
    assert mapped.op_ms(Op("relu", 7, 7, 11, 11)) == 0.0


def test_a_type_without_constants_is_an_error_that_names_it():
    hand = model(**HAND)
    for call in (lambda: hand.op_ms(DEPTHWISE), lambda: hand.latency_ms([CONV, DEPTHWISE])):
        with pytest.raises(DeviceError, match=r"'depthwise_conv'.*it has.*avg_pool.*same_as"):
            call()


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ({"conv": constants(-0.1)}, "conv.overhead_ms"),
        ({"conv": constants(float("nan"))}, "conv.overhead_ms"),
        ({"conv": constants(0.1, gmacs_per_s=0.0)}, "conv.gmacs_per_s"),
        ({"conv": constants(0.1, gelements_per_s=float("inf"))}, "conv.gelements_per_s"),
        ({"conv": {"overhead_ms": 0.1}}, "conv.source"),
        ({"conv": {"source": "nothing"}}, "either overhead_ms"),
        ({"conv": {"gmacs_per_s": 1.0, "same_as": "add", "source": "both"}}, "either overhead_ms"),
        ({"conv": {"overhead_ms": 0.1, "fused": True, "source": "both"}}, "either overhead_ms"),
        ({"conv": {"same_as": "add", "source": "to nowhere"}}, "ops.conv.same_as is 'add'"),
        ({"convolution": constants(0.1)}, "convolution"),
        ({"conv": constants(0.1) | {"ms_per_mac": 1.0}}, "conv.ms_per_mac"),
    ],
)
def test_bad_constants_are_refused(ops, message):
    with pytest.raises(ValidationError, match=message):
        model(**ops)


def test_chains_of_same_as_are_refused():
    with pytest.raises(ValidationError, match=r"ops\.mul\.same_as is 'linear'"):
        model(
            **HAND,
            linear={"same_as": "conv", "source": "one matrix product"},
            mul={"same_as": "linear", "source": "a chain"},
        )


def test_kinds_of_convolutions_may_have_constants_of_their_own_and_fall_back_to_conv():
    point, grouped = Op("conv", 6, 8, 9, 9), Op("conv", 6, 8, 9, 9, 3, groups=2)
    hand = model(**HAND, pointwise_conv=constants(0.75, gmacs_per_s=0.02))
    assert (kind_of(point), kind_of(grouped), kind_of(CONV)) == ("pointwise_conv", "grouped_conv", "conv")
    assert kind_of(Op("linear", 6, 8, 1, 1)) == "linear"
    assert hand.op_ms(point) == pytest.approx(0.75 + 6 * 8 * 81 / 0.02e6)
    assert hand.op_ms(grouped) == model(**HAND).op_ms(grouped)
    assert hand.op_ms(CONV) == model(**HAND).op_ms(CONV)
    np.testing.assert_allclose(hand.ops_ms([point, grouped, CONV]), [hand.op_ms(o) for o in (point, grouped, CONV)])


def test_weights_may_take_time_of_their_own():
    slow = model(conv=constants(0.5) | {"gweights_per_s": 0.002}, add=constants(0.125))
    assert slow.op_ms(CONV) == pytest.approx(0.5 + 315 / 0.002e6)
    np.testing.assert_allclose(slow.ops_ms([CONV, ADD]), [slow.op_ms(CONV), slow.op_ms(ADD)])
    without = model(conv=constants(0.5))
    assert "gweights_per_s" not in without.model_dump()["ops"]["conv"]  # files of older models stay as they are
    assert slow.model_dump()["ops"]["conv"]["gweights_per_s"] == 0.002


def test_normalisation_of_the_image_is_kept_apart_from_latencies():
    with_it = CostModel.model_validate(model(**HAND).model_dump() | {"input_normalisation_ms": 0.3})
    assert with_it.latency_ms([CONV]) == model(**HAND).latency_ms([CONV])
    assert with_it.model_dump()["input_normalisation_ms"] == 0.3
    assert "input_normalisation_ms" not in model(**HAND).model_dump()


def test_rectangles_count_their_own_sides():
    wide = Op("conv", 4, 6, 5, 5, 1, in_width_px=7, out_width_px=7, kernel_width=3)
    assert (wide.weights, wide.macs, wide.in_elements, wide.out_elements) == (72, 72 * 35, 140, 210)
    assert kind_of(wide) == "conv"
    pool = Op("avg_pool", 4, 4, 6, 6, 2, in_width_px=3, out_width_px=3, kernel_width=1)
    assert macs_of(pool) == 2 * 4 * 18
    square = Op("conv", 4, 6, 5, 5, 3)
    assert square == Op("conv", 4, 6, 5, 5, 3, in_width_px=0)
    assert square.macs == 9 * 4 * 6 * 25
