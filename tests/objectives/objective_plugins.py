"""Objectives of somebody else, for tests."""

from contextlib import nullcontext

from hwnas.objectives.plugin import EvaluatedObjective, ExactObjective
from hwnas.supernet.slot_sum import SlotSum


class Kernels(ExactObjective):
    """Kernel areas of all blocks together."""

    name, title, direction = "kernel_area", "kernel area", "min"

    def compile(self, layout, device):
        return SlotSum.of(layout, lambda block: float(getattr(block, "kernel_size", 0) ** 2))


class Confidence(EvaluatedObjective):
    """Mean of the highest probabilities."""

    name, title, direction = "confidence_percent", "confidence", "max"

    def observer(self, case):
        return nullcontext(MeanOfMaxima())


class MeanOfMaxima:
    def __init__(self):
        self.maxima = []

    def add(self, outputs, targets):
        self.maxima += outputs.softmax(1).amax(1).tolist()

    def values(self):
        return {"confidence_percent": 100 * sum(self.maxima) / len(self.maxima), "most_confident": max(self.maxima)}


class Silent(Confidence):
    name = "silent"


class Sideways(Confidence):
    direction = "sideways"


class NoMethod:
    name, title, direction, cost = "x", "x", "max", "exact"


KERNELS, CONFIDENCE, SILENT, SIDEWAYS, NO_METHOD = Kernels(), Confidence(), Silent(), Sideways(), NoMethod()
