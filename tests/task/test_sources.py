"""The source of the second task, by the rules of all sources."""

from task_plugins import MEAN_COLOUR, TINTS

from hwnas.data.source import SourceConfig
from hwnas.testing.source import SourceTests


class TestTints(SourceTests):
    name = "task_plugins:TINTS"

    def make(self):
        return TINTS

    def config(self):
        return SourceConfig(source=self.name, options={"n_images": 30})

    def task(self):
        return MEAN_COLOUR
