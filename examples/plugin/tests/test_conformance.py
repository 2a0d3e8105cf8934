"""The tests that hwnas gives to authors of plug-ins, for one plug-in of every kind."""

import numpy as np
import torch
from hwnas_example.executor import Retry
from hwnas_example.objective import P95_ERROR
from hwnas_example.searcher import Climb
from hwnas_example.source import RECTANGLES
from hwnas_example.target import CountingBoard
from hwnas_example.task import RECTANGLE

from hwnas import DataConfig, ImageSet, Splits
from hwnas.testing.executor import ExecutorTests
from hwnas.testing.family import FamilyTests
from hwnas.testing.objective import CHANNELS, CLASSES, PX, EvaluatedObjectiveTests
from hwnas.testing.searcher import SearcherTests
from hwnas.testing.source import SourceTests
from hwnas.testing.target import TargetTests
from hwnas.testing.task import TaskTests


class TestTask(TaskTests):
    n_outputs = 2
    names = ("width", "height")

    def make(self):
        return RECTANGLE

    def labels(self, n):
        return np.linspace(0.2, 0.9, 2 * n).reshape(n, 2)

    def perfect_outputs(self, labels):
        return torch.from_numpy(labels.astype(np.float32))


class TestSource(SourceTests):
    def make(self):
        return RECTANGLES

    def config(self):
        return DataConfig(source="rectangles", options={"images": 30})

    def task(self):
        return RECTANGLE


class TestFamily(FamilyTests):
    def make(self):
        return {
            "family": "plain",
            "in_channels": 1,
            "classes": 2,
            "resolutions": [9, 12],
            "widths": [4, 8],
            "layers": 3,
        }


class TestObjective(EvaluatedObjectiveTests):
    def make(self):
        return P95_ERROR

    def task(self):
        return RECTANGLE

    def splits(self):
        g = torch.Generator().manual_seed(0)
        parts = [
            ImageSet(
                torch.randint(0, 256, (n, CHANNELS, PX, PX), generator=g, dtype=torch.uint8),
                torch.rand((n, CLASSES), generator=g),
            )
            for n in (30, 20, 10)
        ]
        return Splits("random", tuple("abcd"), *parts, RECTANGLE)


class TestTarget(TargetTests):
    def make(self):
        return CountingBoard(gmacs_per_s=2.0)


class TestSearcher(SearcherTests):
    def make(self, problem, evaluations, seed):
        return Climb(problem, evaluations, seed)


class TestExecutor(ExecutorTests):
    def make(self):
        return Retry()
