"""A target that times networks: a board that counts multiply-adds and says how long they would take."""

import math

import onnx
from onnx import shape_inference

from hwnas import Burst, Facts, MeasurementError

OPERATOR_MS = 0.004
"""Fixed time of every operator."""


class CountingBoard:
    """A real target would send the model to its runtime here."""

    host = None

    def __init__(self, gmacs_per_s: float = 1.0) -> None:
        self.gmacs_per_s = gmacs_per_s

    def facts(self) -> Facts:
        """Say what the target is; a table holds while this stays the same."""
        return Facts(f"counting board, {self.gmacs_per_s:g} GMAC/s", "counting-1")

    def bursts(self, models, names, reference, config, schedule):
        """Yield one burst for each entry of the schedule; all runs of a model take the same time."""
        if config.cores is not None:
            raise MeasurementError("the counting board cannot pin to cores; leave cores out")
        for model, session in schedule:
            milliseconds, shape = self._count(models[model], names[model], config)
            for _ in range(config.bursts):
                yield Burst(model, session, (milliseconds,) * config.min_runs, 1.0, shape)

    def _count(self, model: str | bytes, name: str, config) -> tuple[float, tuple[int, ...]]:
        """Milliseconds of a batch, and the shape of one input."""
        try:
            proto = onnx.load(model) if isinstance(model, str) else onnx.load_from_string(model)
        except Exception as error:  # protobuf's own classes share no public base
            raise MeasurementError(f"{name} does not load as ONNX: {error}") from error
        first = proto.graph.input[0].type.tensor_type.shape.dim
        shape = config.input_shape or tuple(d.dim_value for d in first[1:])
        for axis, size in zip(first, (config.batch_size, *shape), strict=True):
            axis.dim_value = size
        inferred = shape_inference.infer_shapes(proto).graph
        sizes = {
            v.name: [d.dim_value or config.batch_size for d in v.type.tensor_type.shape.dim]
            for v in (*inferred.value_info, *inferred.output)
        }
        weights = {w.name: list(w.dims) for w in proto.graph.initializer}
        macs = 0
        for node in proto.graph.node:
            if node.op_type in ("Conv", "Gemm", "MatMul") and len(node.input) > 1 and node.input[1] in weights:
                out, kernel = sizes.get(node.output[0], [1]), weights[node.input[1]]
                macs += math.prod(out) * math.prod(kernel) // (out[1] if len(out) > 1 else 1)
        return OPERATOR_MS * len(proto.graph.node) + macs / self.gmacs_per_s / 1e6, tuple(shape)
