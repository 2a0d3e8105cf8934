"""How long would a device need for operators that nobody measured on it? A fitted cost model answers.

The time of one operator is the sum of a fixed overhead, its arithmetic over a compute rate and its data over
a bandwidth. The terms are added, not overlapped as in a roofline: the sum is linear in its constants, so that
few measurements identify them, and it is monotone in every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from hwnas.errors import DeviceError
from hwnas.export.op import Op, OpType

OP_TYPES: tuple[OpType, ...] = get_args(OpType)

ConvKind = Literal["pointwise_conv", "grouped_conv"]
"""Convolutions that a model may cost apart from the other ones of type ``conv``: 1x1 without groups, and with groups.

NPUs run 1x1 convolutions at another rate than larger ones, which reuse each value that they load; in int8 the two
differ by more than ten times."""

OpKind = OpType | ConvKind
OP_KINDS: tuple[OpKind, ...] = (*OP_TYPES, *get_args(ConvKind))

_NonNegative = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
"""Milliseconds: at most twelve days."""
_Positive = Annotated[float, Field(ge=1e-9, le=1e12, allow_inf_nan=False)]
"""Rates: from one operation a second to a thousand exaflops."""
_Text = Annotated[str, Field(min_length=1)]


def macs_of(op: Op) -> int:
    """Return the arithmetic of ``op`` in multiply-adds, each counted once, for one image.

    Convolutions and linear layers as in `Op.macs`; pooling one for each kernel element and output (so that a
    pooling layer and a depthwise convolution of one shape count alike); anything else one for each output.
    """
    if op.type in ("conv", "depthwise_conv", "linear"):
        return op.macs
    if op.type in ("avg_pool", "max_pool"):
        return op.kernel_area * op.out_elements
    return op.in_elements if op.type == "global_avg_pool" else op.out_elements


def elements_of(op: Op) -> int:
    """Return the elements that ``op`` moves for one image: feature maps read and written, and weights."""
    return op.in_elements + op.out_elements + op.weights


def kind_of(op: Op) -> OpKind:
    """Return the most particular kind of ``op``; a model without constants for it uses those of its type."""
    if op.type != "conv":
        return op.type
    if op.groups > 1:
        return "grouped_conv"
    return "pointwise_conv" if op.kernel_area == 1 else "conv"


def op_features(ops: Sequence[Op]) -> tuple[np.ndarray, np.ndarray]:
    """Return what a cost model knows of each operator, as arrays.

    Returns:
        ``(n,)`` index of each operator's type in `OP_TYPES`, and ``(n, 3)`` columns: 1, millions of
        multiply-adds (`macs_of`) and millions of elements moved (`elements_of`).
    """
    types = np.array([OP_TYPES.index(op.type) for op in ops], dtype=np.intp)
    sizes = np.array([(1.0, macs_of(op) / 1e6, elements_of(op) / 1e6) for op in ops], dtype=float)
    return types, sizes.reshape(len(ops), 3)


class OpCost(BaseModel):
    """How one type of operator is costed: by constants, as another type, or as part of its neighbour.

    Exactly one of three forms: constants (``overhead_ms``, either rate may be absent: no such term);
    ``same_as`` another type; ``fused`` (executed inside the operator before it, so without time of its own).
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", str_max_length=10_000)

    overhead_ms: _NonNegative | None = None
    """Fixed time of one execution, milliseconds."""
    gmacs_per_s: _Positive | None = None
    """Arithmetic rate, 1e9 multiply-adds a second (`macs_of`)."""
    gelements_per_s: _Positive | None = None
    """Rate of moving data, 1e9 elements a second (`elements_of`); precision decides their bytes."""
    gweights_per_s: _Positive | None = None
    """Rate of fetching weights besides, 1e9 a second: they come from the main memory, where feature maps of a single
    image stay on an accelerator's chip."""
    same_as: OpType | None = None
    """Type whose constants are used."""
    fused: bool = False
    """True: the runtime executes it inside the operator before it."""
    source: _Text
    """Where the constants come from (fitted, cited), or why the mapping is sound."""

    @model_validator(mode="after")
    def _one_form(self) -> OpCost:
        forms = (self.overhead_ms is not None) + (self.same_as is not None) + self.fused
        rates = any(r is not None for r in (self.gmacs_per_s, self.gelements_per_s, self.gweights_per_s))
        if forms != 1 or (rates and self.overhead_ms is None):
            raise ValueError("give either overhead_ms (with rates), or same_as, or fused: true")
        return self

    @property
    def coefficients(self) -> tuple[float, float, float]:
        """Milliseconds: fixed, per million multiply-adds, per million elements."""
        per_mac = 1.0 / self.gmacs_per_s if self.gmacs_per_s else 0.0
        per_element = 1.0 / self.gelements_per_s if self.gelements_per_s else 0.0
        return self.overhead_ms or 0.0, per_mac, per_element

    @property
    def per_mweight_ms(self) -> float:
        """Milliseconds for a million weights, besides what they take as elements."""
        return 1.0 / self.gweights_per_s if self.gweights_per_s else 0.0

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        if self.gweights_per_s is None:
            values.pop("gweights_per_s", None)
        return values


class CostModel(BaseModel):
    """Latency of a network as a sum over its operators, with a few constants for each type.

    ``latency = network_overhead + sum over ops (overhead + macs / rate + elements / bandwidth + weights / theirs)``.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", str_max_length=10_000)

    network_overhead_ms: _NonNegative
    """Fixed time of one inference (call, copies to and from the device), milliseconds."""
    ops: dict[OpKind, OpCost]
    """How each type is costed; a type that is not here is an error, never zero. A `ConvKind` that is not here is costed
    as ``conv``."""
    input_normalisation_ms: _NonNegative = 0.0
    """What a normalisation of the image, channel by channel, took inside the networks that were timed. It is not part
    of `latency_ms`: networks of hwnas take images that are normalised already. Add it for one that does it itself."""

    @model_validator(mode="after")
    def _mappings_end(self) -> CostModel:
        for name, cost in self.ops.items():
            target = cost.same_as
            if target is not None and (target not in self.ops or self.ops[target].overhead_ms is None):
                raise ValueError(f"ops.{name}.same_as is {target!r}, which has no constants of its own")
        return self

    def cost_of(self, op_type: OpKind) -> OpCost:
        """Return the constants used for ``op_type``, with ``same_as`` followed.

        Raises:
            DeviceError: the model has no constants for the type.
        """
        known: OpKind = "conv" if op_type in get_args(ConvKind) and op_type not in self.ops else op_type
        try:
            cost = self.ops[known]
        except KeyError:
            raise DeviceError(
                f"cost model has no constants for operator type {known!r}; it has {sorted(self.ops)}; "
                "add the type to cost_model.ops of the profile (constants, or same_as with the reason)"
            ) from None
        return self.ops[cost.same_as] if cost.same_as is not None else cost

    def op_ms(self, op: Op) -> float:
        """Return the time of one operator, milliseconds, without the network's overhead."""
        cost = self.cost_of(kind_of(op))
        fixed, per_mac, per_element = cost.coefficients
        time_ms = fixed + per_mac * macs_of(op) / 1e6 + per_element * elements_of(op) / 1e6
        return time_ms + cost.per_mweight_ms * op.weights / 1e6

    def ops_ms(self, ops: Sequence[Op]) -> np.ndarray:
        """Return `op_ms` of every operator, ``(n,)`` milliseconds, in one array operation."""
        types, sizes = op_features(ops)
        if self._tells_convs_apart:
            types = np.array([OP_KINDS.index(kind_of(op)) for op in ops], dtype=np.intp)
        coefficients, per_mweight = np.zeros((len(OP_KINDS), 3)), np.zeros(len(OP_KINDS))
        for index in np.unique(types):
            cost = self.cost_of(OP_KINDS[index])
            coefficients[index], per_mweight[index] = cost.coefficients, cost.per_mweight_ms
        found = np.asarray((coefficients[types] * sizes).sum(axis=1))
        if per_mweight.any():
            found = found + per_mweight[types] * np.array([op.weights / 1e6 for op in ops])
        return found

    def latency_ms(self, ops: Sequence[Op]) -> float:
        """Return the time of a whole network for one image, milliseconds."""
        return self.network_overhead_ms + float(self.ops_ms(ops).sum())

    @property
    def _tells_convs_apart(self) -> bool:
        return any(kind in self.ops for kind in get_args(ConvKind))

    @model_serializer(mode="wrap")
    def _without_zero_normalisation(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        if not self.input_normalisation_ms:
            values.pop("input_normalisation_ms", None)
        return values
